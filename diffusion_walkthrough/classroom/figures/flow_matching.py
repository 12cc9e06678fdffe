"""Pictures of chapter 11: lines that cross, walks that do not, one path in two scales, crowds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.classroom.figures.backward_sampling import VALLEYS
from diffusion_walkthrough.flow_matching import share_of_noise, x_start_weight
from diffusion_walkthrough.noise_schedule import NoiseSchedule

Array = NDArray[np.float64]

_HEAPS = (plots.BLUE, "black", plots.ORANGE)
# Told apart by colour and dashes, so that one of them is enough.
_LINES: tuple[tuple[str, str], ...] = (
    (plots.BLUE, "-"),
    (plots.ORANGE, "--"),
    ("black", "-."),
    (plots.PINK, ":"),
)

#: How far the plane of the toys is drawn.
REACH = 3.4


def lines_and_walks(pairs: Sequence[ArrayLike], walks: ArrayLike) -> Figure:
    """Draw straight lines of pairs in one dimension, and beside them the walks of what is learnt.

    Each has the colour of the heap in which it ends. Noise is at the left, s = 1.

    Args:
        pairs: x_0 and the noise, each ``(n,)``.
        walks: as ``flow_matching.euler`` returns them, ``(stops, n)``.
    """
    x_start, noise = (np.asarray(part) for part in pairs)
    walked = np.asarray(walks)
    figure, axes = plots.new_figure(2, height=3.2, sharey=True, sharex=True)
    for axis, title, stops in (
        (axes[0], "lines of pairs", np.stack([noise, x_start])),
        (axes[1], "walks along the mean velocity", walked),
    ):
        s = np.linspace(1, 0, len(stops))
        for walker in stops.T:
            colour = _HEAPS[np.searchsorted(VALLEYS, walker[-1])]
            axis.plot(s, walker, color=colour, linewidth=0.8)
        axis.set_title(title)
        axis.set_xlabel("s: from noise to clean")
    axes[0].set_xlim(1, 0)
    axes[0].set_ylabel("x")
    return figure


def rays(schedules: Mapping[str, NoiseSchedule], marked: int = 8) -> Figure:
    """Draw a and b of schedules as places, with their rays to the straight path; and s over time.

    At the left, a schedule's steps lie on the quarter circle a² + b² = 1, and a ray from the corner
    carries each to the straight line a + b = 1. At the right, the share of noise at each step.

    Args:
        schedules: by name; the rays are those of the first.
        marked: how many steps have a ray.
    """
    figure, (places, over_time) = plots.new_figure(2, height=3.3)
    angle = np.linspace(0, np.pi / 2, 100)
    places.plot(np.cos(angle), np.sin(angle), color=plots.BLUE, label="a² + b² = 1")
    places.plot([1, 0], [0, 1], color=plots.ORANGE, linestyle="--", label="a + b = 1")
    first = next(iter(schedules.values()))
    t = np.linspace(0, len(first) - 1, marked).round().astype("int32")
    a, b = (rate.ravel() for rate in first.rates(t, 1))
    for x, y in zip(a, b, strict=True):
        places.plot([0, x], [0, y], color=plots.GREY, linewidth=0.8)
    places.plot(a, b, "o", color=plots.BLUE, markersize=5)
    places.plot(a / (a + b), b / (a + b), "s", color=plots.ORANGE, markersize=5)
    places.set_aspect("equal")
    places.set_xlabel("a, of the image")
    places.set_ylabel("b, of the noise")
    places.set_title("on a ray: the same mixture")
    places.legend(loc="upper right", fontsize=7, framealpha=1, borderpad=0.3)
    for (name, schedule), (colour, dashes) in zip(schedules.items(), _LINES, strict=False):
        t = np.arange(-1, len(schedule))
        share = share_of_noise(schedule, t)
        over_time.plot((t + 1) / len(schedule), share, dashes, color=colour, label=name)
    over_time.set_xlabel("share of the steps")
    over_time.set_title("share of noise, s = b / (a + b)")
    over_time.legend(fontsize=8)
    return figure


def plane(panels: Mapping[str, ArrayLike], shown: int = 200) -> Figure:
    """Draw walks in a plane, a panel each: thin lines from hollow starts to full ends.

    Args:
        panels: by title, walks ``(stops, n, 2)``; lines of pairs are walks of two stops.
        shown: how many walkers.
    """
    figure, axes = plots.new_figure(len(panels), height=3.0, sharex=True, sharey=True)
    for axis, (title, stops) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        some = np.asarray(stops)[:, :shown]
        lines = LineCollection(list(np.swapaxes(some, 0, 1)), colors=plots.GREY, linewidths=0.4)
        axis.add_collection(lines)
        axis.plot(*some[0].T, "o", color=plots.BLUE, markersize=2.5, markerfacecolor="white")
        axis.plot(*some[-1].T, "o", color=plots.ORANGE, markersize=2.5)
        axis.set_title(title, fontsize=9)
        _square(axis)
    return figure


def crowds(
    rows: Mapping[str, Mapping[str, ArrayLike]], shown: int = 1500, reach: float = 2.5
) -> Figure:
    """Draw crowds of points, a row for each kind and a panel for each of its crowds.

    Args:
        rows: by name, and by title, points ``(n, 2)``.
        shown: how many points of each.
        reach: how far the plane is drawn.
    """
    columns = max(map(len, rows.values()))
    figure, axes = plots.new_figure(
        columns, len(rows), height=1.9 * len(rows), sharex=True, sharey=True, squeeze=False
    )
    for number, (row, (name, crowd)) in enumerate(zip(axes, rows.items(), strict=True)):
        row[0].set_ylabel(name, fontsize=9)
        for axis, (title, points) in zip(row, crowd.items(), strict=False):
            axis.plot(*np.asarray(points)[:shown].T, ".", color=plots.BLUE, markersize=1.2)
            axis.set_title("" if number else title, fontsize=9)
            _square(axis, reach)
    return figure


def _square(axis: Any, reach: float = REACH) -> None:
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color("#cccccc")


def weights(predictions: Sequence[str] = ("noise", "x_start", "v", "flow")) -> Figure:
    """Draw how much an error of x_0 counts over log SNR, for what a network may be asked for."""
    figure, axis = plots.new_figure(height=2.9)
    log_snr = np.linspace(-10, 8, 200)
    for name, (colour, dashes) in zip(predictions, _LINES, strict=False):
        weight = x_start_weight(name, np.exp(log_snr))
        axis.semilogy(log_snr, weight, dashes, color=colour, label=name)
    axis.set_xlabel("log SNR: from noise at the left to almost clean at the right")
    axis.set_ylabel("weight of an error of x_0")
    axis.legend()
    return figure


def crowd_at(
    walks: Mapping[str, Mapping[int, Array]], evaluations: int, s: float, size: int = 190
) -> tuple[str, str]:
    """Show crowds on their way, as pictures of how dense they are: one for each kind of walk.

    Args:
        walks: by name, and by the number of evaluations, ``(stops, n, 2)``, evenly from s = 1 to 0.
        evaluations: how many.
        s: the share of noise at which to look; between two stops a walk is straight.
        size: of each picture, in CSS pixels.
    """
    parts = []
    for name, by_count in walks.items():
        stops = by_count[evaluations]
        place = (1 - s) * (len(stops) - 1)
        before = min(int(place), len(stops) - 2)
        share = place - before
        points = (1 - share) * stops[before] + share * stops[before + 1]
        parts.append(live.pixels(_density(points), name, size=size))
    many = "evaluation" if evaluations == 1 else "evaluations"
    where = "noise" if s == 1 else "where the walk ends" if s == 0 else "on the way"
    return live.row(*parts), f"{evaluations} {many}, s = {s:.2f}: {where}"


def _density(points: Array, cells: int = 64) -> Array:
    """White where there is nobody, dark where many are: ``(cells, cells)`` in [-1, 1]."""
    edges = np.linspace(-REACH, REACH, cells + 1)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=(edges, edges))
    full = 12 * len(points) / cells**2
    return np.asarray(1 - 2 * np.minimum(np.sqrt(counts / full), 1))[::-1]
