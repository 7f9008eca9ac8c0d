"""What a file from a stranger may name: classes that are there to be set up by files, of a few packages.

A name is judged by what it stands for. A function, or a class of another kind, could do anything with the
arguments that a file gives it: `ssl_ebm.cli.main`, say, runs a command.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, TypeVar

import torch
from jsonargparse import _common as parser_settings
from jsonargparse import set_parsing_settings
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment, Precision
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_ebm.errors import in_one_line

FLAG = "--trust_config"  # of commands, for files of the user's own
FLAGS = (FLAG, FLAG.replace("_", "-"))  # its spellings
PACKAGES = ("ssl_ebm", "lightning.pytorch", "lightning.fabric", "torch.nn", "torch.optim")

_OF_TRAINING = (
    *(Callback, Profiler, Strategy, Accelerator),
    *(Precision, CheckpointIO, LayerSync, ClusterEnvironment),
)
_LEARNT = (nn.Module, Optimizer, LRScheduler)
_KINDS: tuple[type, ...] = (*_OF_TRAINING, *_LEARNT, LightningDataModule, Logger)

# Classes of these packages that are one of these. Loggers: those that send nothing to where a file says.
_CLASSES: dict[str, tuple[type, ...]] = {
    "ssl_ebm.energy": (object,),
    "ssl_ebm.networks": (object,),
    "ssl_ebm.data": (object,),
    "ssl_ebm.tasks": (nn.Module, Callback, Strategy),
    "ssl_ebm.evaluation": (Callback,),
    "ssl_ebm.report": (Callback,),
    "torch.nn": (nn.Module,),
    "torch.optim": (Optimizer, LRScheduler),
    "lightning": (*_OF_TRAINING, CSVLogger, TensorBoardLogger),
}
_NOT_IN = ("ssl_ebm.data.shards",)  # which writes files
_FUNCTIONS = ("ssl_ebm.energy", "ssl_ebm.networks", "torch.nn.functional", "torch._C._nn")  # of tensors
# As fsspec reads them, also once variables of the environment have been filled in.
_ADDRESS = re.compile(r"(?!file://)\b[a-z][\w+.-]*://|:\S*\$[\w{]", re.IGNORECASE)
# What no setting stands for: refused again when the parser imports, in whatever way it came by the name.
_NEVER = (
    *("os", "posix", "nt", "subprocess", "_posixsubprocess", "multiprocessing", "pty", "asyncio", "signal"),
    *("importlib", "runpy", "pkgutil", "zipimport", "code", "codeop", "timeit", "pdb", "bdb", "doctest"),
    *("pickle", "_pickle", "marshal", "shelve", "shutil", "ctypes", "_ctypes", "socket", "_socket", "sys"),
    *("webbrowser", "urllib", "http", "ftplib", "smtplib", "pip", "setuptools", "pydoc", "site"),
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.open", "builtins.__import__"),
    *("torch.load", "torch.hub", "torch.package", "torch.utils.cpp_extension", "torch.distributed.run"),
    *("lightning.pytorch.cli", "lightning.fabric.utilities.cloud_io"),
    *("ssl_ebm.cli", "ssl_ebm.files", "ssl_ebm.running.runs"),
)
# Whose modules are more than networks: some are compiled from code, some fetch what they need.
_OTHERWISE = ("torch", "torchmetrics")
_lock = RLock()
Made = TypeVar("Made")


class _Words(NamedTuple):
    """What whoever calls `importing` knows of the names that `of_a_checkpoint` will be asked about."""

    are_trusted: bool = False
    of_the_user: frozenset[str] = frozenset()


_OF_NOBODY = _Words()
_words: ContextVar[_Words] = ContextVar("_words", default=_OF_NOBODY)


class ForeignNameError(ValueError):
    """A name that a stranger's file may not have."""


class NoSuchNameError(ValueError):
    """A class that is not there; the message says what is missing."""


def is_address(text: str) -> bool:
    """Whether a text could be an address of another machine, or of a file system of another kind."""
    return _ADDRESS.search(text) is not None


def is_dotted(text: str) -> bool:
    """Whether a text has the form of a name in a module."""
    return "." in text and all(part.isidentifier() for part in text.split("."))


def of_a_stranger(name: str, is_class: bool) -> set[str]:
    """Judges a name in a stranger's file.

    Args:
        name: any value of a file.
        is_class: it stands for a class that is to be made, as `class_path`.

    Returns:
        Paths that the parser must not import for it: what is not there now could be so a moment later, and a
        name without a dot stands for any class that goes by it.

    Raises:
        ForeignNameError: it stands for something that is not to be named.
        NoSuchNameError: a class that is not there.
    """
    if not is_dotted(name):
        if is_class and "." in name:
            raise ForeignNameError(name)
        loaded = _loaded(name)
        foreign = [one for one in loaded if not _may_be_named(one)]
        if is_class and foreign and len(foreign) == len(loaded):
            raise ForeignNameError(name)
        return {path for one in foreign for path in _paths(one)}
    if not _is_of(name, PACKAGES):
        if _is_there(name):
            raise ForeignNameError(name)
        if is_class:
            first = name.partition(".")[0]
            raise NoSuchNameError(
                f"{name}: no module named {first!r}: install it, or set PYTHONPATH to its folder"
            )
        return {name}
    try:
        found = look_up(name)
    except Exception as error:
        if is_class:
            raise NoSuchNameError(f"{name}: {in_one_line(error)}") from error
        return {name}
    if not (_may_be_named(found) or (not is_class and _is_function_of(found, name))):
        raise ForeignNameError(name)
    return set()


def of_the_user(name: str) -> set[str]:
    """The paths of what the user himself names, if it is loaded; and that name."""
    found = _loaded(name)
    module, _, attribute = name.rpartition(".")
    with suppress(Exception):
        found = [getattr(sys.modules[module], attribute)]
    return {name}.union(*(_paths(one) for one in found if inspect.isclass(one)))


def of_a_checkpoint(name: str, is_class: bool) -> set[str]:
    """As `of_a_stranger`; and what the user's own modules hold may be named, too, if they have been imported:
    classes that are one of the usual kinds, and, of modules that are not installed, other classes and
    functions as well. So may what the user himself has named, and everything that he trusts: see `importing`.

    Raises:
        ForeignNameError: it stands for something that is not to be named, or for a module not yet imported.
        NoSuchNameError: a class that is not there.
    """
    if _words.get().are_trusted or name in _words.get().of_the_user:
        return set()
    module, _, attribute = name.rpartition(".")
    if not is_dotted(name) or _is_of(name, PACKAGES) or not (module in sys.modules or _is_there(name)):
        return of_a_stranger(name, is_class)
    if module not in sys.modules or module.partition(".")[0] in sys.stdlib_module_names:
        raise ForeignNameError(name)
    try:
        found = getattr(sys.modules[module], attribute)
    except Exception as error:  # some modules import what is asked for
        if is_class:
            raise NoSuchNameError(f"module {module!r} has no attribute {attribute!r}") from error
        return {name}
    home = getattr(found, "__module__", None) or ""
    is_own = home.partition(".")[0] == module.partition(".")[0] and not _is_installed(home)
    is_usual = inspect.isclass(found) and issubclass(found, _KINDS) and not _is_of(home, _OTHERWISE)
    if is_usual or (is_own and (inspect.isclass(found) or (not is_class and inspect.isfunction(found)))):
        return set()
    raise ForeignNameError(name)


@contextmanager
def importing(all_but: Collection[str] | None, of_the_user: Collection[str] | None = None) -> Iterator[None]:
    """Inside, the parser imports none of these names for a setting, and nothing that no setting stands for.

    It makes no objects from values of any type, either: those are described to a task, which makes them.

    Args:
        all_but: None: the parser imports whatever it meets, and `of_a_checkpoint` allows it.
        of_the_user: names that `of_a_checkpoint` allows, for the user has given them; None: as around it.
    """
    own = _words.get().of_the_user if of_the_user is None else frozenset(of_the_user)
    token = _words.set(_Words(all_but is None, own))
    _all_loaded.cache_clear()
    with _lock:  # the parser's settings are those of all threads
        settings = parser_settings.parsing_settings  # not public: what is denied can never be allowed again
        before = dict(settings)
        set_parsing_settings(instantiate_subclass_spec_in_any=False)
        try:
            if all_but is not None:
                settings["import_path_verdicts"] = {}  # its own list has functools, which code may well use
                never_importing(_NEVER)
                never_importing(all_but)
            yield
        finally:
            settings.update(before)
            _words.reset(token)


def in_a_new_context(function: Callable[..., Made], *arguments: Any) -> Made:
    """Calls a function with nothing of what surrounds the parser's work, but for what may be named."""
    context = Context()
    context.run(_words.set, _words.get())
    return context.run(function, *arguments)


def trusts_all() -> bool:
    """Whether it is inside of `importing` with nothing barred."""
    return _words.get().are_trusted


def never_importing(names: Collection[str]) -> None:
    """More names, inside of `importing`."""
    set_parsing_settings(import_path_denylist=sorted(names))


def in_our_words(message: str) -> str:
    """What the parser says of a name that is barred, without its advice to programmers."""
    return re.sub(
        r"(?s)Importing '([^']+)' is not allowed, denied by .*? to allow it\.",
        rf"\1 is not there, or none of the classes that a file may name ({FLAG} lifts that)",
        message,
    )


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
    if module == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    of_torch = Path(str(torch.__file__)).parent.parent  # wherever that has been put
    return (
        file is None
        or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
        or Path(file).is_relative_to(of_torch)
    )


def _loaded(name: str) -> list[type]:
    """Classes of the usual kinds that go by a name without a dot."""
    return _all_loaded(len(sys.modules)).get(name, []) if name[:1].isupper() else []


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


def _paths(found: type) -> set[str]:
    """Where a class is defined, and the packages above that have it, too: the parser takes the shortest."""
    parts = found.__module__.split(".")
    above = (sys.modules.get(".".join(parts[:end])) for end in range(1, len(parts) + 1))
    homes = {one.__name__ for one in above if one is not None and getattr(one, found.__name__, None) is found}
    paths = {f"{home}.{found.__name__}" for home in homes} | {f"{found.__module__}.{found.__qualname__}"}
    return set(filter(is_dotted, paths))
