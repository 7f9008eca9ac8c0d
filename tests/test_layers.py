"""The floors of the package: imports point down only, and each floor keeps to what it may know."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ssl_ebm"
FLOORS = [["energy"], ["networks"], ["data"], ["tasks"], ["evaluation"], ["running"]]
FLOORS += [["report", "lecture"], ["cli"], ["__init__"]]
FORWARDED = {"load_encoder": "tasks"}  # by the package itself, when it is asked for
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
FOR_ALL = {"errors", "files", "progress"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path: Path, package: str) -> set[str]:
    """Names of all that a file imports, also inside functions; ``from a import b`` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def floor_of(module: str) -> str | None:
    """The floor of a module of the package: the part after ``ssl_ebm.``; None outside of the package."""
    parts = module.split(".")
    if len(parts) < 2 or parts[0] != "ssl_ebm" or parts[1] in FOR_ALL:
        return None
    return FORWARDED.get(parts[1], parts[1])


def upward_imports(path: Path, package: str) -> list[str]:
    """What a file imports from above its floor; what stands on no floor may import from none."""
    height = HEIGHT.get(floor_of(f"{package}.{path.stem}") or "", -1)
    found = imported_modules(path, package)
    return sorted(name for name in found if HEIGHT.get(floor_of(name) or "", -1) > height)


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).parent.parts)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    assert upward_imports(path, package_of(path)) == []


def test_every_module_stands_on_a_floor() -> None:
    names = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in FILES}
    assert names - {"__init__"} <= set(HEIGHT) | FOR_ALL


@pytest.mark.parametrize(
    "path", [p for p in FILES if floor_of(f"{package_of(p)}.x") == "energy"], ids=name_of
)
def test_energy_is_plain_torch(path: Path) -> None:
    allowed = {"torch", "ssl_ebm", "einops", "numpy", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imported_modules(path, package_of(path))} <= allowed


@pytest.mark.parametrize(
    "path", [p for p in FILES if floor_of(f"{package_of(p)}.x") == "networks"], ids=name_of
)
def test_networks_know_no_lightning(path: Path) -> None:
    imported = {name.split(".")[0] for name in imported_modules(path, package_of(path))}
    assert not imported & {"lightning", "pytorch_lightning", "lightning_fabric"}


@pytest.mark.parametrize(
    ("line", "package", "upward"),
    [
        ("from ssl_ebm.tasks import checkpoints", "ssl_ebm.energy", True),
        ("import ssl_ebm.running.runs", "ssl_ebm.tasks", True),
        ("from ssl_ebm import cli", "ssl_ebm.report", True),
        ("from ssl_ebm import load_encoder", "ssl_ebm.data", True),
        ("from ssl_ebm import load_encoder", "ssl_ebm.report", False),
        ("from ..tasks.checkpoints import load_task", "ssl_ebm.data", True),
        ("def f():\n    from ssl_ebm.report import compare", "ssl_ebm.evaluation", True),
        ("from ssl_ebm.energy import latents", "ssl_ebm.tasks", False),
        ("from .latents import Latent", "ssl_ebm.energy", False),
        ("from ssl_ebm.errors import UserError", "ssl_ebm.energy", False),
    ],
)
def test_the_check_itself(line: str, package: str, upward: bool, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert bool(upward_imports(path, package)) == upward
