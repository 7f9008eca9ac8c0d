"""What a damaged file may lead to, and what is wrong."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError

BLACK = 0.05  # share of pixels that are exactly 0, where the picture has none


class WrongError(Exception):
    """A result that is not what the file says, without an error."""


class Place(NamedTuple):
    """Where the undamaged files are, and where damaged ones go."""

    bases: Path
    here: Path


def run(*words: str) -> str:
    """What a command prints, which must end with status 0, or 2 and one line of error, its last.

    Raises:
        UserError: the second, with that line.
        WrongError: neither.
    """
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        status = main(words)
    errors = [line for line in said.getvalue().splitlines() if line.startswith("ssl-ebm: error: ")]
    if status not in (0, 2) or (status == 2) != (len(errors) == 1) or "Traceback" in said.getvalue():
        raise WrongError(f"status {status}: {said.getvalue()[-2000:]}")
    if errors and len(errors[0]) > 2000:
        raise WrongError(f"an error of {len(errors[0])} characters: {errors[0][:300]}")
    if errors and said.getvalue().splitlines()[-1] != errors[0]:
        raise WrongError(f"more than one line: {said.getvalue()[-2000:]}")
    if errors:
        raise UserError(errors[0])
    return printed.getvalue()


def check_finite(found: Any) -> None:
    if not np.isfinite(np.asarray(found, float)).all():
        raise WrongError("it holds numbers that are not finite, without an error")


def check_written(path: Path) -> None:
    """Of a picture or an animation, which no command may leave black."""
    with Image.open(path) as file:
        if not np.asarray(file.convert("RGB")).any():
            raise WrongError(f"{path.name} is black, without an error")


def check_not_black(found: Any) -> None:
    if (share := float((np.asarray(found) == 0).mean())) > BLACK:
        raise WrongError(f"{share:.0%} of it is 0, without an error")


def check_frames(video: Any) -> None:
    """Of (T, C, H, W). A codec that was misled may paint anything, but hardly a whole frame of nothing."""
    if black := [number for number, frame in enumerate(video) if not bool(np.asarray(frame).any())]:
        raise WrongError(f"frames {black} are 0, without an error")


def checkpoint_of(place: Place, name: str) -> Path:
    return place.bases / "runs" / name / "checkpoints" / "last.ckpt"
