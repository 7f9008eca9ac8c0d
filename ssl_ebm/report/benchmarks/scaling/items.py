"""What an item of each set of data is: its shape, its bytes where it is stored, how fast a core loads it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from ssl_ebm.data import (
    IdxImages,
    ImageFolder,
    LabelledDocuments,
    LabelledShare,
    MovingDigits,
    PlanePoints,
    Text,
    TorchvisionImages,
    VideoFolder,
)
from ssl_ebm.errors import UserError

# Measured on an AMD EPYC (Zen 4), 2026-11-30, in seconds of one core's time, unless it says otherwise.
KEPT_PICTURES, KEPT_CROPS = 82_000, 36_000  # a second in 32x32, from memory: mirrored; cropped as well
KEPT_DIGITS = 155_000  # a second in 28x28, from memory, as they are
DECODED_PICTURES = 2_800  # a second, JPEG in 32x32
DECODED_WINDOWS = 30  # a second, of clips of some seconds
TOKENS = 5.8e6  # a second, from mapped files (2026-11-26)
DOCUMENTS = 60_000  # a second, of 64 tokens, from memory
POINTS = 570_000  # a second
DIGITS = 24_600 * 5 * 32**2  # pixels a second of one moving digit
UNCERTAIN = 5_400 * 5 * 32**2  # where 0.6 of the clips are drawn again until their future is uncertain
TWO_DIGITS = 2_700 * 9 * 64**2  # the same of two
JPEG = 913 / 32**2  # bytes a pixel, of a million of CIFAR-10's
IMAGENET = 138e9 / 1_281_167  # bytes a picture
VIDEO = 125_000  # bytes a second
CLIP, CLIPS = 10.0, 240_000  # seconds of a clip of Kinetics-400, and how many it has to train on
CORPUS = 3_300_000_000  # tokens
MEASURED = "measured on a core of an AMD EPYC (Zen 4)"


@dataclass(frozen=True)
class Items:
    """Items of a set of data.

    Attributes:
        unit: what they are, in plural.
        key: of a batch.
        shape: of one, in a training batch.
        stored: bytes of one where it is stored; 0: it is made on the fly.
        form: in which it is stored.
        kept: all are read once, and kept in memory.
        epoch: how many an epoch has.
        core: how many a second one processor core loads.
        sources: where these are from.
    """

    unit: str
    key: str
    shape: tuple[int, ...]
    stored: float
    form: str
    kept: bool
    epoch: int
    core: float
    sources: str


@singledispatch
def items_of(data: Any, task: Any) -> Items:
    """The items of a training on a set of data.

    Args:
        data: of a run; it need not be set up.
        task: that trains on it.

    Raises:
        UserError: it is a set of which this is not known.
    """
    raise UserError(
        f"how large the items of {type(data).__name__} are is not known: say it in {__name__}, by items_of"
    )


@items_of.register
def _(data: LabelledShare, task: Any) -> Items:
    return items_of(data.data, task)


@items_of.register
def _(data: IdxImages, task: Any) -> Items:
    sources = (
        f"MNIST's and Fashion-MNIST's files hold 28x28 bytes a picture; loading from memory: {MEASURED}."
    )
    return Items("images", "image", (1, 28, 28), 28**2, "8 bits a pixel", True, 50_000, KEPT_DIGITS, sources)


@items_of.register
def _(data: ImageFolder, task: Any) -> Items:
    pixels = math.prod(data.size)
    kept = KEPT_CROPS if data.augmentation.crop < 1 else KEPT_PICTURES
    core = (kept if data.in_memory else DECODED_PICTURES) * 32**2 / pixels
    sources = (
        "Pictures as CIFAR-10's, of which an epoch has 50,000: a million as JPEG have 913 MB; loading, "
        f"{'from memory' if data.in_memory else 'decoded'}, in proportion to the pixels: {MEASURED}."
    )
    shape = (1 if data.grayscale else 3, *data.size)
    return Items("images", "image", shape, JPEG * pixels, "JPEG", data.in_memory, 50_000, core, sources)


@items_of.register
def _(data: TorchvisionImages, task: Any) -> Items:
    if data.set_name != "ImageNet":
        raise UserError(f"how large the items of {data.set_name} are is not known: say it in {__name__}")
    sources = "ImageNet's training tar: 138 GB, 1,281,167 images. 150 decoded and cropped by a core: assumed."
    return Items("images", "image", (3, *data.size), IMAGENET, "JPEG", False, 1_281_167, 150, sources)


@items_of.register
def _(data: VideoFolder, task: Any) -> Items:
    frames, rate = data.context_frames + data.future_frames, data.frame_rate or 25.0
    windows = min(int(CLIP * rate) // frames, data.windows_per_clip or CLIPS)
    sources = (
        f"A window of {frames} frames, {frames / rate:g} s, of MP4 with 1 Mbit/s: assumed. Kinetics-400 (Kay "
        f"et al. 2017): 240,000 clips of 10 s, {windows} windows of each in an epoch. They fit no memory "
        "(cache off); 30 windows/s decoded by a core: measured on short clips."
    )
    shape, stored = (frames, *data.frame_shape), VIDEO * frames / rate
    return Items("clips", "video", shape, stored, "MP4", False, CLIPS * windows, DECODED_WINDOWS, sources)


@items_of.register
def _(data: MovingDigits, task: Any) -> Items:
    shape = (data.context_frames + data.future_frames, *data.frame_shape)
    pixels = TWO_DIGITS if data.world.digits > 1 else UNCERTAIN if data.train_uncertain_share else DIGITS
    sources = (
        f"Clips are made on the fly, {data.train_uncertain_share:.0%} of them drawn again until their future "
        f"is uncertain: {MEASURED}, in proportion to the pixels."
    )
    core = pixels / math.prod(shape)
    return Items("clips", "video", shape, 0, "generated", False, data.clips["train"], core, sources)


@items_of.register
def _(data: Text, task: Any) -> Items:
    size = 2 if data.vocabulary <= 2**16 else 4
    sources = (
        f"Tokens lie in {size} bytes each, tokenised once. An epoch of 3.3 billion, BERT's corpus (Devlin et "
        "al. 2019), a word taken for a token; your own will have fewer. A core loads 5.8 million a second: "
        "measured."
    )
    stored, epoch, core = size * data.length, CORPUS // data.length, TOKENS / data.length
    return Items(
        "sequences",
        "tokens",
        (data.length,),
        stored,
        f"tokens, {size} bytes each",
        False,
        epoch,
        core,
        sources,
    )


@items_of.register
def _(data: LabelledDocuments, task: Any) -> Items:
    length = data.length or task.backbone.network.length
    sources = (
        f"Documents of {length} tokens (shorter ones cost less), stored as text of 5 bytes a token: assumed. "
        f"IMDB (Maas et al. 2011) has 25,000 to train on. Loading from memory: {MEASURED}."
    )
    return Items(
        "documents", "tokens", (length,), 5 * length, "text", True, 25_000, DOCUMENTS * 64 / length, sources
    )


@items_of.register
def _(data: PlanePoints, task: Any) -> Items:
    sources = f"Points are made on the fly: {MEASURED}."
    return Items("points", "point", (2,), 0, "generated", False, data.counts["train"], POINTS, sources)
