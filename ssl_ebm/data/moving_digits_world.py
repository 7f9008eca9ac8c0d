"""The world of the bouncing digits: its dynamics, and the exact distribution of its next state.

Positions are integers, the top-left corner of a digit's square as (row, column), each in 0..limit with
limit = size - digit_size. In each step the velocity is added and the result clamped to 0..limit. A digit
that lies on a wall (a coordinate is 0 or limit) draws the velocity of its next step anew, all choices
equally likely:

- the component normal to a wall: 1..normal_speed, away from the wall;
- the component along the wall: -tangential_speed..tangential_speed;
- in a corner both components are normal.

So what comes after a frame is uncertain only if a digit touches a wall in that frame, which can be seen in
it. The defaults of SVG's stochastic Moving MNIST (Denton and Fergus, "Stochastic video generation with a
learned prior", ICML 2018) have
normal and tangential speed 4: 4 * 9 = 36 velocities at a wall.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data.randomness import integers
from ssl_ebm.errors import UserError


@dataclass(frozen=True)
class World:
    """The settings of a world; lengths in pixels, speeds in pixels per frame.

    Attributes:
        size: side of the square frame.
        digit_size: side of the square that holds a digit.
        digits: how many digits move, each on its own (they pass through each other).
        normal_speed: largest speed away from a wall.
        tangential_speed: largest speed along a wall.
    """

    size: int
    digit_size: int
    digits: int
    normal_speed: int
    tangential_speed: int

    def __post_init__(self) -> None:
        if self.digit_size < 1 or self.digit_size >= self.size:
            raise UserError(
                f"digit_size {self.digit_size} leaves no room to move in a frame of {self.size}: shrink it"
            )
        if self.digits < 1:
            raise UserError(f"digits is {self.digits}: at least one must move")
        if self.normal_speed < 1:
            raise UserError(
                f"normal_speed is {self.normal_speed}: a digit could not leave a wall, use at least 1"
            )
        if self.tangential_speed < 0:
            raise UserError(f"tangential_speed is {self.tangential_speed}: use 0 or more")

    @property
    def limit(self) -> int:
        """Largest coordinate of a digit's top-left corner."""
        return self.size - self.digit_size

    def draws(self, frames: int) -> int:
        """Uniform numbers that `simulate` uses for a clip."""
        return self.digits * (3 + 2 * frames)

    def on_wall(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which coordinates lie on a wall: (..., 2) -> (..., 2)."""
        return (position == 0) | (position == self.limit)

    def bounce(self, position: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """The velocity a digit on a wall draws: position (..., 2), uniform (..., 2) in [0, 1) -> (..., 2)."""
        normal = integers(uniform, 1, self.normal_speed)
        along = integers(uniform, -self.tangential_speed, self.tangential_speed)
        away = np.where(position == 0, normal, -normal)
        return np.where(self.on_wall(position), away, along)

    def simulate(
        self, uniform: NDArray[np.float64], frames: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Clips from uniform numbers; a longer clip starts with the shorter one.

        The first position is uniform over the world; the first velocity is uniform over
        -normal_speed..normal_speed in both directions without (0, 0), or drawn as at a bounce when the digit
        starts on a wall.

        Args:
            uniform: (N, draws(frames)) in [0, 1).
            frames: T.

        Returns:
            position (N, T, digits, 2), and velocity (N, T, digits, 2): the one that leads from a frame to
            the next.
        """
        clips, digits = len(uniform), self.digits
        start, steps = uniform[:, : 3 * digits].reshape(clips, digits, 3), uniform[:, 3 * digits :]
        steps = steps.reshape(clips, frames, digits, 2)
        side = 2 * self.normal_speed + 1
        cell = integers(start[..., 2], 0, side * side - 2)
        cell += cell >= side * side // 2  # the middle cell is the velocity (0, 0)
        moving = np.stack([cell // side, cell % side], axis=-1) - self.normal_speed  # (N, digits, 2)
        place = integers(start[..., :2], 0, self.limit)
        position = np.empty((clips, frames, digits, 2), dtype=np.int64)
        velocity = np.empty_like(position)
        for t in range(frames):
            touches = self.on_wall(place).any(axis=-1, keepdims=True)
            moving = np.where(touches, self.bounce(place, steps[:, t]), moving)
            position[:, t], velocity[:, t] = place, moving
            place = np.clip(place + moving, 0, self.limit)
        return position, velocity

    def bounce_velocities(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """All velocities, equally likely, that a digit on a wall at `position` (2,) may draw: (V, 2)."""
        away = np.arange(1, self.normal_speed + 1)
        along = np.arange(-self.tangential_speed, self.tangential_speed + 1)
        choices = [
            (away if coordinate == 0 else -away) if wall else along
            for coordinate, wall in zip(position, self.on_wall(position), strict=True)
        ]
        return np.stack(np.meshgrid(*choices, indexing="ij"), axis=-1).reshape(-1, 2)

    def next_positions(
        self, position: NDArray[np.int64], velocity: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The exact distribution of one digit's next position.

        Args:
            position: (2,).
            velocity: (2,), used only where the digit is not on a wall.

        Returns:
            positions (M, 2), all distinct (velocities that end in the same place after clamping are merged),
            and their probabilities (M,), which sum to 1.
        """
        if not self.on_wall(position).any():
            return np.clip(position + velocity, 0, self.limit)[None], np.ones(1)
        reached = np.clip(position + self.bounce_velocities(position), 0, self.limit)
        places, count = np.unique(reached, axis=0, return_counts=True)
        return places, count / len(reached)

    def is_uncertain(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a digit's next position has more than one possible value: (..., 2) -> (...).

        On a wall each component takes its values on its own, so there are several futures if any component
        has several.
        """
        low = np.where(self.on_wall(position), 1, -self.tangential_speed)
        high = np.where(self.on_wall(position), self.normal_speed, self.tangential_speed)
        inward = np.where(position == self.limit, -1, 1)
        first = np.clip(position + inward * low, 0, self.limit)
        last = np.clip(position + inward * high, 0, self.limit)
        return self.on_wall(position).any(axis=-1) & (first != last).any(axis=-1)
