"""Figures with axes, drawn twice: for a light page and for a dark one; maps of energies in the plane."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from ssl_ebm.energy.sampling import EnergyOfState

GRID_POINTS = 160  # of an energy map, on each side
AT_ONCE = 4096  # points that an energy is asked for at a time
DPI = 130


@dataclass(frozen=True)
class Theme:
    """Colours of a page; Okabe and Ito's, told apart by most colour-blind readers."""

    name: str
    card: str
    ink: str
    soft: str
    line: str
    data: str
    first: str
    second: str
    third: str
    fourth: str
    scale: str  # of a map; low energy stands out from the page


LIGHT = Theme(
    "light", "#ffffff", "#1d1f21", "#5c6166", "#dcdcd8",
    data="#1d1f21", first="#0069a8", second="#c65200", third="#007a58", fourth="#a8477f", scale="YlGnBu_r",
)  # fmt: skip
DARK = Theme(
    "dark", "#1c1f23", "#e8e8e6", "#a2a8ae", "#363b41",
    data="#ffffff", first="#5cb8f2", second="#f08a3c", third="#3ecf9f", fourth="#e08fbd", scale="cividis_r",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A picture of a page.

    Attributes:
        caption: what is seen, and how to read it.
        draw: fills the axes, row by row, in the colours of a theme.
        columns, rows: how many axes there are side by side, and one above the other.
        width, height: of one of them, inches.
    """

    caption: str
    draw: Callable[[Theme, Sequence[Axes]], None]
    columns: int = 1
    width: float = 4.6
    height: float = 4.2
    rows: int = 1

    def render(self, theme: Theme) -> bytes:
        """PNG."""
        colours: dict[Any, Any] = {
            "figure.facecolor": theme.card, "axes.facecolor": theme.card, "savefig.facecolor": theme.card,
            "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.edgecolor": theme.line,
            "xtick.color": theme.soft, "ytick.color": theme.soft, "grid.color": theme.line,
            "legend.facecolor": theme.card, "legend.edgecolor": theme.line, "font.size": 12.0,
            "axes.titlesize": 13.0, "axes.labelsize": 12.5, "legend.fontsize": 11.0,
        }  # fmt: skip
        with mpl.rc_context(colours):
            canvas = Canvas(
                figsize=(self.width * self.columns, self.height * self.rows), layout="constrained"
            )
            axes = canvas.subplots(self.rows, self.columns, squeeze=False)
            self.draw(theme, list(axes.flat))
            buffer = io.BytesIO()
            canvas.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()

    def html(self) -> str:
        """Both pictures, of which the page shows the one that suits it, with the caption."""
        dark, light = (
            f"data:image/png;base64,{base64.b64encode(self.render(theme)).decode()}"
            for theme in (DARK, LIGHT)
        )
        wide = self.width * self.columns * 100  # pixels on a page
        return (
            f'<figure class="plot"><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
            f'<img src="{light}" alt="{escape(self.caption)}" style="max-width:{wide:.0f}px">'
            f"</picture><figcaption>{escape(self.caption)}</figcaption></figure>"
        )


def grid_of(reach: float, points: int = GRID_POINTS) -> Tensor:
    """Points of [-reach, reach]^2, row by row from below: (points^2, 2)."""
    axis = torch.linspace(-reach, reach, points)
    y2, y1 = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([y1.flatten(), y2.flatten()], 1)


def energies_on(energy: EnergyOfState, y: Tensor) -> Tensor:
    """F of many points, a few at a time, without gradient: (N, 2) -> (N,)."""
    with torch.no_grad():
        return torch.cat([energy(part) for part in y.split(AT_ONCE)])


def energy_map(
    axes: Axes,
    theme: Theme,
    energy: EnergyOfState,
    reach: float = 3.6,
    high: float | None = None,
    bar: str = "energy F(y)",
) -> Any:
    """Energy in colour with contours, lowest value 0; above `high` (None: the 90th percentile) one colour."""
    grid = grid_of(reach)
    values = energies_on(energy, grid).reshape(GRID_POINTS, GRID_POINTS).numpy()
    values = values - values.min()
    top = float(np.quantile(values, 0.9)) if high is None else high
    levels = np.linspace(0, max(top, 1e-9), 13)
    axis = np.linspace(-reach, reach, GRID_POINTS)
    drawn = axes.contourf(axis, axis, values, levels=levels, cmap=theme.scale, extend="max")
    axes.contour(axis, axis, values, levels=levels[::2], colors=theme.soft, linewidths=0.4)
    square(axes, reach)
    if bar:
        axes.figure.colorbar(drawn, ax=axes, label=bar, shrink=0.85, ticks=levels[::3], format="%.3g")
    return drawn


def square(axes: Axes, reach: float) -> None:
    """Equal scales on both axes, which are y1 and y2."""
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="$y_1$", ylabel="$y_2$", aspect="equal")


def points(axes: Axes, y: Tensor, colour: str, size: float = 2.0, label: str = "", **style: Any) -> None:
    """Dots at (N, 2)."""
    axes.plot(
        *y.detach().numpy().T, ls="", marker=style.pop("marker", "."), ms=size, color=colour,
        label=label or None, **style,
    )  # fmt: skip


def curve(
    axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str = "", **style: Any
) -> None:
    """A line with marks."""
    axes.plot(x, y, color=colour, label=label or None, lw=style.pop("lw", 2.0), **style)
    axes.grid(visible=True, alpha=0.6)
