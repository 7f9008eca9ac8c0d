"""What a file from a stranger may name: classes that are there to be set up by files, of a few packages.

A name is judged by what it stands for. A function, or a class of another kind, could do anything with the
arguments that a file gives it: `ssl_ebm.cli.main`, say, runs a command. What was judged well is all that the
parser imports inside of `importing`, wherever it may find a name.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import _common as parser_settings
from jsonargparse import set_parsing_settings
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment, Precision
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

PACKAGES = ("ssl_ebm", "lightning.pytorch", "lightning.fabric", "torch.nn", "torch.optim")

_OF_TRAINING = (
    *(Callback, Profiler, Strategy, Accelerator),
    *(Precision, CheckpointIO, LayerSync, ClusterEnvironment),
)
_LEARNT = (nn.Module, Optimizer, LRScheduler)
_KINDS: tuple[type, ...] = (*_OF_TRAINING, *_LEARNT, LightningDataModule, Logger)

# Classes of these packages that are one of these. Other loggers send what they log to where a file says.
_CLASSES: dict[str, tuple[type, ...]] = {
    "ssl_ebm.energy": (object,),
    "ssl_ebm.networks": (object,),
    "ssl_ebm.data": (object,),
    "ssl_ebm.tasks": (nn.Module, Callback, Strategy),
    "ssl_ebm.evaluation": (Callback,),
    "ssl_ebm.report": (Callback,),
    "torch.nn": (nn.Module,),
    "torch.optim": (Optimizer, LRScheduler),
    "lightning": (*_OF_TRAINING, CSVLogger, TensorBoardLogger, WandbLogger),
}
_NOT_IN = ("ssl_ebm.data.shards",)  # which writes files
_FUNCTIONS = ("ssl_ebm.energy", "ssl_ebm.networks", "torch.nn.functional", "torch._C._nn")  # of tensors
_ADDRESS = re.compile(r"(?!file://)[a-z][\w+.-]*(://|::)", re.IGNORECASE)  # as fsspec reads them


class ForeignNameError(ValueError):
    """A name that a stranger's file may not have."""


def is_address(text: str) -> bool:
    """Whether a text could be an address of another machine, or of a file system of another kind."""
    return _ADDRESS.match(text.strip()) is not None


def is_dotted(text: str) -> bool:
    """Whether a text has the form of a name in a module."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def of_a_stranger(name: str, is_class: bool) -> set[str]:
    """The paths under which the parser may import what a stranger's file names; none where that is nothing to
    be imported.

    Args:
        name: any value of a file.
        is_class: it stands for a class that is to be made, as `class_path`.

    Raises:
        ForeignNameError: it stands for something that is not to be named.
    """
    if not is_dotted(name):
        if is_class and "." in name:
            raise ForeignNameError(name)
        return {path for one in _loaded(name) if _may_be_named(one) for path in _paths(one)}
    if not _is_of(name, PACKAGES):
        if _is_there(name):
            raise ForeignNameError(name)
        return {name}  # nothing: the parser will say so
    try:
        found = look_up(name)
    except Exception:  # the parser will fail, too
        return {name}
    if not (_may_be_named(found) or (not is_class and _is_function_of(found, name))):
        raise ForeignNameError(name)
    return {name} | _paths(found)


def of_the_user(name: str) -> set[str]:
    """The paths under which the parser may import what the user himself names."""
    if not is_dotted(name):
        return {path for one in _loaded(name) for path in _paths(one)}
    with suppress(Exception):  # of the user's module: the parser will meet it, too
        return {name} | _paths(look_up(name))
    return {name}


def of_a_checkpoint(name: str, is_class: bool) -> set[str]:
    """As `of_a_stranger`; and what the user's own modules hold, if they have been imported: classes that are
    one of the usual kinds, and, of modules that are not installed, other classes and functions as well.

    Raises:
        ForeignNameError: it stands for something that is not to be named, or for a module not yet imported.
    """
    module = name.rpartition(".")[0]
    if not is_dotted(name) or _is_of(name, PACKAGES):
        return of_a_stranger(name, is_class)
    if module not in sys.modules or module.partition(".")[0] in sys.stdlib_module_names:
        raise ForeignNameError(name)
    found = getattr(sys.modules[module], name.rpartition(".")[2], None)
    if found is None:
        return {name}
    home = getattr(found, "__module__", None) or ""
    is_own = home.partition(".")[0] == module.partition(".")[0] and not _is_installed(home)
    is_usual = inspect.isclass(found) and issubclass(found, _KINDS) and not _is_of(home, ["torchmetrics"])
    if is_usual or (is_own and (inspect.isclass(found) or (not is_class and inspect.isfunction(found)))):
        return {name} | _paths(found)
    raise ForeignNameError(name)


@contextmanager
def importing(names: Collection[str] | None) -> Iterator[None]:
    """Inside, the parser imports no names of settings but these; those that annotations have it imports.

    It makes no objects from values of any type, either: those are described to a task, which makes them.

    Args:
        names: None: whatever it meets.
    """
    settings = parser_settings.parsing_settings  # not public: what has been denied cannot be allowed again
    before = dict(settings)
    set_parsing_settings(instantiate_subclass_spec_in_any=False)
    try:
        if names is not None:
            set_parsing_settings(import_path_denylist=["*"])
            also_importing(names)
        yield
    finally:
        settings.update(before)


def also_importing(names: Collection[str]) -> None:
    """More names, inside of `importing`."""
    own = {name for name in names if name.partition(".")[0] != "jsonargparse"}  # which it allows nobody
    set_parsing_settings(import_path_allowlist=sorted(own))


def look_up(name: str) -> Any:
    """What a dotted name stands for, found as jsonargparse finds it.

    Raises:
        Exception: whatever the import raises.
    """
    module, _, attribute = name.rpartition(".")
    try:
        parent: Any = import_module(module)
    except ModuleNotFoundError:
        outer, _, inner = module.rpartition(".")
        if not outer:
            raise
        parent = getattr(import_module(outer), inner)
    return getattr(parent, attribute)


def _may_be_named(found: Any) -> bool:
    if not inspect.isclass(found) or _is_of(found.__module__, _NOT_IN):
        return False
    return any(
        _is_of(found.__module__, [one]) and issubclass(found, kinds) for one, kinds in _CLASSES.items()
    )


def _is_function_of(found: Any, name: str) -> bool:
    if not inspect.isroutine(found):
        return False
    home = getattr(found, "__module__", None) or ""
    of_torch = home == "torch" and name.rpartition(".")[0] == "torch.nn.functional"  # as conv2d, in C
    return of_torch or _is_of(home, _FUNCTIONS)


def _is_of(name: str, packages: Collection[str]) -> bool:
    return any(f"{name}.".startswith(f"{one}.") for one in packages)


def _is_there(name: str) -> bool:
    """Whether the first part of a name is a module; a name such as reviews.csv imports nothing."""
    first = name.partition(".")[0]
    try:
        return first in sys.modules or find_spec(first) is not None
    except (ImportError, ValueError):
        return True


def _is_installed(module: str) -> bool:
    """Whether a module comes with a package, as others write them: the user's own stand elsewhere."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _loaded(name: str) -> Iterator[type]:
    """Classes of the usual kinds that go by a name without a dot."""
    if name.isidentifier() and name[0].isupper():
        yield from _all_loaded(len(sys.modules)).get(name, ())


@lru_cache(maxsize=1)
def _all_loaded(modules: int) -> dict[str, list[type]]:
    """Classes of the usual kinds by their names; looked for again when there are more modules."""
    found: dict[str, list[type]] = {}
    seen, left = set[type](), [*_KINDS]
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left.extend(type.__subclasses__(one))
            found.setdefault(one.__name__, []).append(one)
    return found


def _paths(found: Any) -> set[str]:
    """The paths that the parser may take for an object; and, of a class, for functions and classes that are
    the defaults of its arguments."""
    paths = _paths_of(found)
    if inspect.isclass(found):
        for one in found.__mro__:
            with suppress(KeyError, TypeError, ValueError):  # it has none, or one in C
                for argument in inspect.signature(vars(one)["__init__"]).parameters.values():
                    if callable(argument.default):
                        paths |= _paths_of(argument.default)
    return paths


def _paths_of(found: Any) -> set[str]:
    """Where an object is defined, and the packages above that have it, too: the parser takes the shortest."""
    module, name = getattr(found, "__module__", None), getattr(found, "__name__", None)
    if not (module and name):
        return set()
    parts = module.split(".")
    above = (sys.modules.get(".".join(parts[:end])) for end in range(1, len(parts) + 1))
    has_it = {f"{one.__name__}.{name}" for one in above if one and getattr(one, name, None) is found}
    return has_it | {f"{module}.{found.__qualname__}"}
