"""A strip holds the frames that it was made of."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from ssl_ebm.report.animation import strip


def picture(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def test_grey_frames_are_kept_exactly(generator: torch.Generator) -> None:
    frames = torch.rand(5, 1, 9, 7, generator=generator)
    pixels = picture(strip(frames)).reshape(5, 9, 7, 3)
    wanted = (frames * 255).round().to(torch.uint8).numpy()
    assert (pixels == wanted.transpose(0, 2, 3, 1)).all()


def test_coloured_frames_keep_place_and_colour() -> None:
    frames = torch.zeros(3, 3, 16, 16)
    for channel in range(3):
        frames[channel, channel] = 1.0
    pixels = picture(strip(frames)).reshape(3, 16, 16, 3).mean((1, 2))
    assert (pixels.argmax(1) == [0, 1, 2]).all()
    assert (pixels.max(1) > 200).all()
