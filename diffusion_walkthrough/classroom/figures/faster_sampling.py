"""Pictures of chapter 09: curves without noise, orders, where to ask, and what that draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.classroom.figures.backward_sampling import VALLEYS
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule

Array = NDArray[np.float64]

_HEAPS = (plots.BLUE, "black", plots.ORANGE)
# Told apart by colour, dashes and marker, so that one of them is enough.
_LINES: tuple[dict[str, Any], ...] = (
    {"color": plots.BLUE, "linestyle": "-", "marker": "o"},
    {"color": "black", "linestyle": "--", "marker": "s"},
    {"color": plots.ORANGE, "linestyle": "-", "marker": "^"},
    {"color": plots.PINK, "linestyle": ":", "marker": "D"},
    {"color": plots.GREEN, "linestyle": "-.", "marker": "v"},
)


def curves(sigmas: ArrayLike, exact: Array, asked: ArrayLike, walked: Array) -> Figure:
    """Draw walkers on the exact curves, and a few of them walking in straight steps.

    Both as x = a y, so that noise does not leave the picture; a walker has the colour of the heap
    in which its curve ends.

    Args:
        sigmas: falling σ, above 0, ``(places,)``.
        exact: y = x/a there, ``(places, walkers)``.
        asked: the σ at which steps begin or end, ``(stops,)``.
        walked: y there, ``(stops, walkers)``; every fifth walker is drawn.
    """
    figure, axis = plots.new_figure(height=3.4)
    for walker in range(exact.shape[1]):
        colour = _HEAPS[np.searchsorted(VALLEYS, exact[-1, walker])]
        axis.plot(_log_snr(sigmas), _shrunk(exact[:, walker], sigmas), color=colour, linewidth=0.8)
    for walker in range(0, walked.shape[1], 5):
        x = _shrunk(walked[:, walker], asked)
        axis.plot(_log_snr(asked), x, ":o", color=plots.GREY, linewidth=1.2, markersize=4)
    axis.set_xlabel("log SNR: from noise at the left to almost clean at the right")
    axis.set_ylabel("x")
    axis.set_title("lines: the exact curves; dots: straight steps")
    return figure


def _log_snr(sigmas: ArrayLike) -> Array:
    return -2 * np.log(np.asarray(sigmas, np.float64))


def _shrunk(y: ArrayLike, sigmas: ArrayLike) -> Array:
    return np.asarray(y) / np.hypot(1, np.asarray(sigmas, np.float64))


def orders(evaluations: Mapping[str, Sequence[int]], errors: Mapping[str, ArrayLike]) -> Figure:
    """Draw errors against evaluations, both on logarithmic axes, a line for each kind of step.

    Args:
        evaluations: by name, how often the network (or what stands for it) was asked.
        errors: by the same names, the error each time.
    """
    figure, axis = plots.new_figure(height=3.0)
    for (name, counts), line in zip(evaluations.items(), _LINES, strict=False):
        axis.loglog(counts, np.asarray(errors[name]), label=name, markersize=5, **line)
    asked = sorted({int(count) for counts in evaluations.values() for count in counts})
    axis.set_xticks(asked, [str(count) for count in asked])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axis.set_xlabel("evaluations")
    axis.set_ylabel("mean distance from the curve")
    axis.legend()
    return figure


def ruler(schedule: NoiseSchedule, asked: Mapping[str, Sequence[float]]) -> Figure:
    """Draw where walks ask, on the ruler of log SNR, below how much is still open there.

    What is open is the share of the variance of x_0 that even the best guess does not know, in
    the world of one dimension.

    Args:
        schedule: that of the t.
        asked: by the name of a spacing, falling t.
    """
    figure, (above, below) = plots.new_figure(
        rows=2, height=3.4, sharex=True, gridspec_kw={"height_ratios": [1.3, 1]}
    )
    along = np.linspace(-9, 8, 120)
    still_open = ONE_DIMENSIONAL_WORLD.not_knowable(1 / (1 + np.exp(-along)))
    above.fill_between(along, still_open, color=plots.GREY, alpha=0.3, linewidth=0)
    above.plot(along, still_open, color=plots.BLUE)
    above.set_ylabel("still open")
    names = list(asked)
    for row, (name, line) in enumerate(zip(names, _LINES, strict=False)):
        kept = schedule.alpha_bar(np.asarray(asked[name]))
        places = np.log(kept / (1 - kept))
        below.plot(places, np.full(len(places), row), line["marker"], color=line["color"])
    below.set_yticks(range(len(names)), names)
    below.set_ylim(len(names) - 0.5, -0.5)
    below.set_xlabel("log SNR: from noise at the left to almost clean at the right")
    return figure


def marks(
    rows: Mapping[str, Sequence[Sequence[float]]], beside: Sequence[float], name: str
) -> Figure:
    """Draw three marks of drawn digits against the number of evaluations.

    Args:
        rows: by name, for each walk (evaluations, Fréchet distance, precision, coverage).
        beside: the three marks of a walk to compare with.
        name: what that walk is called.
    """
    figure, axes = plots.new_figure(3, height=3.2)
    titles = ("Fréchet distance (small is good)", "precision", "coverage")
    for place, (axis, title) in enumerate(zip(axes, titles, strict=True), start=1):
        axis.axhline(beside[place - 1], color=plots.GREY, linewidth=1.5, label=name)
        for (label, walks), line in zip(rows.items(), _LINES, strict=False):
            counts, values = np.transpose([(walk[0], walk[place]) for walk in walks])
            axis.plot(counts, values, label=label, markersize=5, **line)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("evaluations")
    axes[0].set_yscale("log")
    _plain_numbers(axes[0], (0.2, 0.5, 1, 2, 5, 20))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    return figure


def _plain_numbers(axis: Axes, numbers: Sequence[float]) -> None:
    """Mark a logarithmic axis with these of the numbers that it reaches."""
    low, high = axis.get_ylim()
    shown = [number for number in numbers if low <= number <= high]
    axis.set_yticks(shown, [f"{number:g}" for number in shown])
    axis.minorticks_off()


def at_once(
    drawn: Mapping[str, Mapping[int, Any]], evaluations: int, scale: int = 5
) -> tuple[str, str]:
    """Lay out what each kind of walk draws with so many evaluations, a row for each.

    Args:
        drawn: by name, and by the number of evaluations, images ``(n, height, width, channels)``.
        evaluations: how many.
        scale: how many times to enlarge each pixel.
    """
    rows = []
    for name, by_count in drawn.items():
        picture = plots.tile(by_count[evaluations], columns=len(by_count[evaluations]), scale=scale)
        rows.append(live.pixels(picture / 127.5 - 1, name, size=picture.shape[1]))
    many = "evaluation" if evaluations == 1 else "evaluations"
    caption = f"{evaluations} {many} each; a column has one and the same start"
    return live.stack(*rows), caption
