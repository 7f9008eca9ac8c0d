"""What is looked at before and while an object is made from settings, because its constructor would not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pydoc import locate
from types import NoneType
from typing import Any, get_args, get_type_hints

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ssl_ebm.data.loading import check_memory
from ssl_ebm.errors import UserError

MOST_TENSORS = 20_000  # of a model: one of a thousand transformer blocks has 12,000


@contextmanager
def of_bearable_size() -> Iterator[None]:
    """Stops the making of a model that would go on for hours, or fill the memory.

    Raises:
        UserError: more weights than half of the memory holds, or more than 20,000 tensors of them.
    """
    tensors = size = 0

    def count(module: nn.Module, name: str, weights: Any) -> None:
        nonlocal tensors, size
        if weights is None:
            return
        tensors, size = tensors + 1, size + weights.numel() * weights.element_size()
        if tensors > MOST_TENSORS:
            raise UserError(
                f"the model has over {MOST_TENSORS:,} tensors of weights: lower its depth or levels"
            )
        check_memory(size, "the weights of the model", "lower its width or depth")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def refuse_nulls(class_path: str, settings: Mapping[str, Any], name: str) -> None:
    """The parser lets null pass for any type.

    Args:
        class_path: of a class that the parser has imported.
        settings: its arguments.
        name: of what is described, for the error.

    Raises:
        UserError: a setting is None and its type has no None.
    """
    kind = locate(class_path)
    if not isinstance(kind, type):  # a function that makes one
        return
    hints: dict[str, Any] = {}
    for one in reversed(kind.__mro__):  # arguments may be handed on to a parent
        if "__init__" in vars(one):
            try:
                hints |= get_type_hints(vars(one)["__init__"])
            except (NameError, TypeError):  # types that are there for a type checker alone
                return
    for argument, value in settings.items():
        hint = hints.get(argument, Any)
        if value is None and hint is not Any and NoneType not in (hint, *get_args(hint)):
            raise UserError(
                f"{name}.{argument} is null: give a value of type {getattr(hint, '__name__', hint)}"
            )
