"""Stochastic moving digits: clips made on the fly whose possible next frames are known exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.clip_data import ClipData
from ssl_ebm.data.glyphs import Glyphs, font_glyphs, mnist_glyphs
from ssl_ebm.data.moving_digits_world import World
from ssl_ebm.data.randomness import integers, uniforms
from ssl_ebm.errors import UserError

MOTION_ATTEMPTS = (
    32  # draws for a clip that is to be uncertain; one in six is in the small world, so 32 suffice
)


@dataclass(frozen=True)
class Futures:
    """The distribution of the next frame given the state of the world.

    Attributes:
        frames: (N, C, H, W) float32 in [0, 1], all distinct.
        probability: (N,) float64, sums to 1.
    """

    frames: Tensor
    probability: Tensor


class MovingDigitsDataset(Dataset[dict[str, Tensor]]):
    """Clips of bouncing digits. Item i is a pure function of (seed, split, i).

    An index beyond the length is an item of a later epoch: epoch e holds the items e * len .. (e + 1) * len
    - 1, so a sampler that offsets its indices never repeats a clip.

    An item is a dictionary of tensors:
        video: (T, 1, H, W) float32 in [0, 1]; digits are composed by their maximum.
        clip: int64, the index of the item.
        label: int64 in 0..9, the first digit.
        position: (T, digits, 2) float32, top-left corners as (row, column), pixels.
        velocity: (T, digits, 2) float32, pixels per frame; velocity[t] leads from frame t to t + 1, so at a
            wall it tells the future.
        uncertain: bool, whether the frame after the context has more than one possible value.

    Args:
        world: the dynamics.
        glyphs: the bank from which each clip draws its digits.
        clips: items per epoch.
        context_frames: frames before the one to be predicted, at least 2 (one frame shows no velocity).
        future_frames: frames after the context.
        seed, split: name the random numbers.
        uncertain_share: this share of the clips is drawn again until the frame after the context is uncertain
            (the others come as they come). It selects by the context alone, so the distribution of that frame
            given the context stays what it is.
    """

    fresh_items = True

    def __init__(
        self,
        world: World,
        glyphs: Glyphs,
        clips: int,
        context_frames: int,
        future_frames: int,
        seed: int,
        split: str,
        uncertain_share: float = 0.0,
    ) -> None:
        if context_frames < 2:
            raise UserError(
                f"context_frames is {context_frames}: moving digits need 2, one frame shows no velocity"
            )
        self.world = world
        self.glyphs = glyphs
        self.clips = clips
        self.context_frames = context_frames
        self.future_frames = future_frames
        self.seed = seed
        self.split = split
        self.uncertain_share = uncertain_share

    def __len__(self) -> int:
        return self.clips

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self[index] for index in range(len(self)))  # of the first epoch; indices know no end

    @property
    def frames(self) -> int:
        """T, frames in a clip."""
        return self.context_frames + self.future_frames

    def _states(self, index: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Positions and velocities (N, T, digits, 2), and the chosen glyphs (N, digits)."""
        position, velocity = self._motion(index, "motion")
        if self.uncertain_share > 0:
            wanted = uniforms(self.seed, f"{self.split}/wanted", index, 1)[:, 0] < self.uncertain_share
            for attempt in range(MOTION_ATTEMPTS):
                again = np.flatnonzero(wanted & ~self._is_uncertain(position))
                if len(again) == 0:
                    break
                position[again], velocity[again] = self._motion(np.asarray(index)[again], f"motion/{attempt}")
        chosen = uniforms(self.seed, f"{self.split}/glyph", index, self.world.digits)
        return position, velocity, integers(chosen, 0, len(self.glyphs) - 1)

    def _motion(
        self, index: Sequence[int] | NDArray[np.int64], stream: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        draws = uniforms(self.seed, f"{self.split}/{stream}", index, self.world.draws(self.frames))
        return self.world.simulate(draws, self.frames)

    def _is_uncertain(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the frame after the context has several possible values: (N, T, digits, 2) -> (N,)."""
        uncertain: NDArray[np.bool_] = self.world.is_uncertain(position[:, self.context_frames - 1])
        return np.asarray(uncertain.any(axis=-1))

    def _draw(self, position: NDArray[np.int64], glyph: NDArray[np.int64]) -> NDArray[np.float32]:
        """Frames (M, H, W) of digits inside them: position (M, digits, 2), glyph (M, digits)."""
        side = self.world.digit_size
        frames = np.zeros((len(position), self.world.size, self.world.size), dtype=np.float32)
        images = self.glyphs.images
        for frame, places, numbers in zip(frames, position.tolist(), glyph.tolist(), strict=True):
            for (row, column), number in zip(places, numbers, strict=True):
                patch = frame[row : row + side, column : column + side]
                np.maximum(patch, images[number], out=patch)
        return frames

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """The items of a whole batch at once, which is many times faster than one by one."""
        if min(indices) < 0:
            raise IndexError(f"index {min(indices)} is negative")
        position, velocity, glyph = self._states(indices)
        count, frames = position.shape[:2]
        video = self._draw(position.reshape(count * frames, -1, 2), glyph.repeat(frames, axis=0))
        columns = {
            "video": torch.from_numpy(video.reshape(count, frames, 1, *video.shape[1:])),
            "clip": torch.as_tensor(indices, dtype=torch.int64),
            "label": torch.from_numpy(self.glyphs.labels[glyph[:, 0]]),
            "position": torch.from_numpy(position.astype(np.float32)),
            "velocity": torch.from_numpy(velocity.astype(np.float32)),
            "uncertain": torch.from_numpy(self._is_uncertain(position)),
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def futures(self, index: int) -> Futures:
        """The exact distribution of the frame after the context, given the world's state in the last context
        frame.

        Every combination of the digits' next positions is drawn; combinations that look the same are merged
        and their probabilities added.
        """
        position, velocity, glyph = self._states([index])
        now = self.context_frames - 1
        ways = [
            self.world.next_positions(position[0, now, digit], velocity[0, now, digit])
            for digit in range(self.world.digits)
        ]
        places = np.stack(
            [np.stack(one) for one in product(*(places for places, _ in ways))]
        )  # (M, digits, 2)
        chances = np.array([np.prod(one) for one in product(*(chance for _, chance in ways))])
        frames = self._draw(places, glyph.repeat(len(places), axis=0))
        distinct: dict[bytes, int] = {}
        which = [distinct.setdefault(frame.tobytes(), len(distinct)) for frame in frames]
        _, first = np.unique(which, return_index=True)
        probability = np.bincount(which, weights=chances)
        return Futures(torch.from_numpy(frames[first, None]), torch.from_numpy(probability))

    def impossible(self, index: int) -> Tensor | None:
        """A next frame that breaks the rule of the walls: a touching digit goes on through the wall.

        The first digit that has touched a wall moves outward instead of inward, with a velocity drawn as at
        a bounce but mirrored in the normal direction, and is cut off by the frame's edge. Other digits move
        as they truly do.

        Returns:
            (1, H, W) float32, or None where no digit touches a wall in the last context frame.
        """
        position, velocity, glyph = self._states([index])
        now = self.context_frames - 1
        place = position[0, now]  # (digits, 2)
        touching = np.flatnonzero(self.world.on_wall(place).any(axis=-1))
        if len(touching) == 0:
            return None
        digit = touching[0]
        following = np.clip(place + velocity[0, now], 0, self.world.limit)
        drawn = self.world.bounce(place[digit], uniforms(self.seed, f"{self.split}/impossible", index, 2)[0])
        wall = self.world.on_wall(place[digit])
        along = np.clip(place[digit] + drawn, 0, self.world.limit)
        following[digit] = np.where(wall, place[digit] - drawn, along)
        return torch.from_numpy(self._draw_cut(following, glyph[0])[None])

    def _draw_cut(self, position: NDArray[np.int64], glyph: NDArray[np.int64]) -> NDArray[np.float32]:
        """One frame (H, W) of digits that may stick out of it: position (digits, 2), glyph (digits,)."""
        side, size = self.world.digit_size, self.world.size
        canvas = np.zeros((size + 2 * side, size + 2 * side), dtype=np.float32)
        for (row, column), number in zip(np.clip(position, -side, size) + side, glyph, strict=True):
            patch = canvas[row : row + side, column : column + side]
            np.maximum(patch, self.glyphs.images[number], out=patch)
        return canvas[side:-side, side:-side].copy()


class MovingDigits(ClipData):
    """Digits that move in a square frame and bounce off its walls with a velocity drawn anew.

    The defaults are the small world: one digit, 15 equally likely velocities at a wall. The large one is
    digits=2, size=64, digit_size=20, normal_speed=4, tangential_speed=4: 36 velocities at a wall.

    Args:
        digits: digits in a frame.
        size: side of the square frame, pixels.
        digit_size: side of a digit's square, pixels.
        normal_speed: largest speed away from a wall after a bounce, pixels per frame.
        tangential_speed: largest speed along a wall after a bounce, pixels per frame.
        context_frames: frames that are seen, at least 2.
        future_frames: frames that follow them in a training clip.
        eval_future_frames: frames that follow them in a validation or test clip; null: as in training.
        train_clips: fresh clips in each epoch.
        train_uncertain_share: share of the training clips that are chosen to end their context at a wall
            (that is where futures differ); validation and test clips come as they come.
        val_clips: clips of the validation split, the same in each epoch.
        test_clips: clips of the test split.
        glyphs_per_digit: shapes of each digit; every split has its own.
        mnist: folder with MNIST's IDX files, whose digits are used instead of the font's; null: the font.
        batch_size: clips in a batch, per process.
        workers: worker processes of each loader; the batches do not depend on it.
        seed: names all random numbers of the data.
    """

    def __init__(
        self,
        digits: int = 1,
        size: int = 32,
        digit_size: int = 14,
        normal_speed: int = 3,
        tangential_speed: int = 2,
        context_frames: int = 4,
        future_frames: int = 1,
        eval_future_frames: int | None = None,
        train_clips: int = 32768,
        train_uncertain_share: float = 0.0,
        val_clips: int = 512,
        test_clips: int = 2048,
        glyphs_per_digit: int = 100,
        mnist: str | None = None,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            context_frames=context_frames,
            future_frames=future_frames,
            eval_future_frames=eval_future_frames,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
        )
        self.world = World(size, digit_size, digits, normal_speed, tangential_speed)
        if context_frames < 2:
            raise UserError(
                f"context_frames is {context_frames}: moving digits need 2, one frame shows no velocity"
            )
        for name, value in {
            "train_clips": train_clips,
            "val_clips": val_clips,
            "test_clips": test_clips,
            "glyphs_per_digit": glyphs_per_digit,
        }.items():
            if value < 1:
                raise UserError(f"{name} is {value}: use at least 1")
        if not 0 <= train_uncertain_share <= 1:
            raise UserError(f"train_uncertain_share is {train_uncertain_share}: use a share, 0 to 1")
        self.train_uncertain_share = train_uncertain_share
        self.clips = {"train": train_clips, "val": val_clips, "test": test_clips}
        self.glyphs_per_digit = glyphs_per_digit
        self.mnist = mnist
        self.classes = [str(digit) for digit in range(10)]

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return 1, self.world.size, self.world.size

    def make_dataset(self, split: str) -> MovingDigitsDataset:
        side, per_digit = self.world.digit_size, self.glyphs_per_digit
        if self.mnist is None:
            glyphs = font_glyphs(side, per_digit, self.seed, split)
        else:
            glyphs = mnist_glyphs(self.mnist, split, side, 10 * per_digit, self.seed)
        return MovingDigitsDataset(
            self.world,
            glyphs,
            self.clips[split],
            self.context_frames,
            self.future_frames if split == "train" else self.eval_future_frames,
            self.seed,
            split,
            self.train_uncertain_share if split == "train" else 0.0,
        )

    def settings(self) -> dict[str, Any]:
        return {
            "digits": self.world.digits,
            "digit_size": self.world.digit_size,
            "normal_speed": self.world.normal_speed,
            "tangential_speed": self.world.tangential_speed,
            "train_uncertain_share": self.train_uncertain_share,
            "glyphs": "font" if self.mnist is None else "MNIST files",
            "glyphs_per_digit": self.glyphs_per_digit,
            "speed_unit": "pixels per frame",
        }
