"""Files of settings that are damaged, or made to exhaust whoever reads them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_ebm.cli import main
from ssl_ebm.tasks.config_files import DEEPEST, LARGEST, NoSettingsError, read_settings

LINES = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]
REFUSED = {
    "ten to the eleventh values": ("\n".join(LINES).encode(), "aliases"),
    "a part of itself": (b"model: &m {init_args: {a: *m}}", r"\*m stands for something that it is a part of"),
    "too deep": (b"model: " + b"[" * 50_000, "nesting depth|levels deep"),
    "deep lists": (b"model: " + b"[" * 100 + b"]" * 100, f"over {DEEPEST} levels deep"),
    "deep mappings": (b"{a: " * 1000 + b"1" + b"}" * 1000, "levels deep"),
    "no UTF-8": (b"model: caf\xe9", "not UTF-8, at byte 10"),
    "too large": (b"a: 1\n" + b"#" * LARGEST, "1,000,000 bytes"),
    "a long text, many times": (b"a: &a " + b"x" * 9000 + b"\nb: [" + b"*a, " * 1000 + b"]", "characters"),
}


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_a_config_that_would_exhaust_its_reader_is_refused(
    name: str,
    trusted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, words = REFUSED[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    monkeypatch.setenv("SSL_EBM_TRUST_CONFIG", str(int(trusted)))
    with pytest.raises(NoSettingsError, match=words):
        read_settings(path)
    assert main(["fit", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ssl-ebm: error: ")


def with_numbers(value: Any) -> Any:
    """Numbers such as 1e-3, which YAML 1.1 takes for text."""
    if isinstance(value, dict):
        return {name: with_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [with_numbers(one) for one in value]
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value)
    return float(value) if is_number else value


def test_what_people_write_is_read_as_the_parser_reads_it(tmp_path: Path, repository: Path) -> None:
    """Anchors and aliases too. Its numbers have exponents without a point, and no dates."""
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {lr: 1e-3, sizes: [1, 2]}\na: *base\nb: {<<: *base, lr: &l 2}\nc: *l\n")
    base = {"lr": 0.001, "sizes": [1, 2]}
    assert read_settings(path) == {"base": base, "a": base, "b": {"lr": 2, "sizes": [1, 2]}, "c": 2}
    path.write_text("day: 2026-01-13\nnone: 2026-13-45\n")
    assert read_settings(path) == {"day": "2026-01-13", "none": "2026-13-45"}
    shipped = sorted((repository / "configs").rglob("*.yaml"))
    assert len(shipped) > 10
    for one in shipped:
        assert read_settings(one) == with_numbers(yaml.safe_load(one.read_text()))


@pytest.mark.parametrize("text", ["model: [unclosed", "a: *unknown", "a: !!int x", "a: !!timestamp x"])
def test_what_is_no_yaml_is_refused_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(NoSettingsError, match="is no YAML"):
        read_settings(path)
    assert main(["fit", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ssl-ebm: error: {path} is no YAML")
