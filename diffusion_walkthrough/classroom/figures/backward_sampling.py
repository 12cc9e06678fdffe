"""Pictures of chapter 06: walkers on their way back, and what the network draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.evaluation import ball_radii, nearest
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule

Array = NDArray[np.float64]

#: Where the world of one dimension is nearly empty, between its three heaps.
VALLEYS = (-0.25, 0.3)
_COLOURS = (plots.BLUE, "black", plots.ORANGE)


def paths(schedule: NoiseSchedule, walks: Mapping[str, Array], shown: int = 60) -> Figure:
    """Draw walkers on their way back over the exact density at every step, a heat map in grey.

    Each walker has the colour of the heap in which it ends, from its first step on.

    Args:
        schedule: the chain's noise schedule.
        walks: by title, positions ``(T + 1, walkers)``; row 0 is the noise, the last the result.
        shown: how many walkers to draw.
    """
    figure, axes = plots.new_figure(len(walks), height=3.0, sharey=True, squeeze=False)
    for axis, (title, walk) in zip(axes.flat, walks.items(), strict=True):
        _draw_density_over_time(axis, schedule)
        steps_left = np.arange(len(schedule), -1, -1)
        for walker in walk[:, :shown].T:
            colour = _COLOURS[np.searchsorted(VALLEYS, walker[-1])]
            axis.plot(steps_left, walker, color=colour, linewidth=0.7, alpha=0.8)
        axis.set_xlim(len(schedule), 0)
        axis.set_xlabel("steps left")
        axis.set_title(title)
        axis.grid(False)
    axes.flat[0].set_ylabel("x")
    return figure


def _draw_density_over_time(axes: Axes, schedule: NoiseSchedule) -> None:
    """Shade the exact density of the noisy world, each step relative to its own peak."""
    x = np.linspace(-3, 3, 300)
    alpha_bars = np.append(1.0, schedule.alphas_cumprod)
    columns = [ONE_DIMENSIONAL_WORLD.noised(a).pdf(x) for a in alpha_bars]
    shade = np.array([column / column.max() for column in columns]).T  # (x, steps left)
    extent = (-0.5, len(schedule) + 0.5, -3.0, 3.0)
    axes.imshow(shade, aspect="auto", origin="lower", cmap="Greys", extent=extent, vmax=3)


def heaps(samples: Mapping[str, Array]) -> Figure:
    """Draw a histogram of each set of numbers, under the density that it should have.

    Args:
        samples: by title, numbers of any count.
    """
    figure, axes = plots.new_figure(len(samples), height=2.3, sharey=True, squeeze=False)
    x = np.linspace(-1.5, 1.5, 400)
    for axis, (title, numbers) in zip(axes.flat, samples.items(), strict=True):
        axis.hist(numbers, bins=100, range=(-1.5, 1.5), density=True, color=plots.SKY)
        axis.plot(x, ONE_DIMENSIONAL_WORLD.pdf(x), color=plots.BLUE, linewidth=1.2)
        axis.set_ylim(0, 2)
        axis.set_title(title)
        axis.set_xlabel("x")
    axes.flat[0].set_ylabel("density")
    return figure


def balls(real: Array, generated: Array, k: int = 3) -> Figure:
    """Draw what precision and coverage count, for points in the plane and the balls of the real.

    Drawn points outside all balls are hollow; balls in which no drawn point lies are grey.

    Args:
        real: points ``(n, 2)``.
        generated: points ``(m, 2)``.
        k: to which nearest neighbour each ball reaches.
    """
    figure, (left, right) = plots.new_figure(2, height=3.6, sharex=True, sharey=True)
    radii = ball_radii(real, k)
    within = cdist(real, generated) <= radii[:, np.newaxis]  # (balls, drawn)
    hit, reached = within.any(axis=0), within.any(axis=1)
    _draw_balls(left, real, radii, [plots.BLUE] * len(real))
    _draw_balls(right, real, radii, [plots.BLUE if ball else "grey" for ball in reached])
    left.set_title(f"precision: {hit.sum()} of {len(hit)} points are in a ball")
    right.set_title(f"coverage: {reached.sum()} of {len(reached)} balls hold a point")
    for axis in (left, right):
        axis.plot(*real.T, "o", color=plots.BLUE, markersize=5, label="real")
        axis.plot(*generated[hit].T, "^", color=plots.ORANGE, markersize=6, label="drawn")
        axis.plot(*generated[~hit].T, "^", color=plots.ORANGE, markersize=6, fillstyle="none")
        axis.set_aspect("equal")
        axis.set(xticklabels=[], yticklabels=[])
    left.legend(loc="upper left")
    return figure


def _draw_balls(axes: Axes, points: Array, radii: Array, colours: Sequence[str]) -> None:
    for (x, y), radius, colour in zip(points, radii, colours, strict=True):
        axes.add_patch(Circle((x, y), radius, color=colour, alpha=0.12, linewidth=0))


def journey(
    schedule: NoiseSchedule, times: Sequence[int], frames: Any, i: int, scale: int = 5
) -> tuple[str, str]:
    """Lay out the images at one stop of their journey, and say where that is.

    Args:
        schedule: the walk's noise schedule.
        times: the t of each stop, down to -1, as from ``p_sample_loop_progressive``.
        frames: images ``(stops, n, height, width, channels)``.
        i: which stop, from 0.
        scale: how many times to enlarge each pixel.
    """
    outside = np.mean(np.abs(frames[i]) > 1)
    caption = f"t = {times[i]}, {times[i] + 1} steps left; {outside:.0%} of the pixels lie outside "
    caption += "[−1, 1]"
    picture = plots.tile(frames[i], columns=16, scale=scale)
    images = live.pixels(picture / 127.5 - 1, f"stop {i} of {len(frames) - 1}", 1, picture.shape[1])
    signal = signal_at(schedule, [times[i]])[0]
    return live.stack(live.gauge(signal, f"√ᾱ = {signal:.2f}"), images), caption


def signal_at(schedule: NoiseSchedule, times: Sequence[int]) -> list[float]:
    """How much of the image is there, √ᾱ, at each of these t; 1 at t = -1, where it is clean."""
    return [float(np.append(schedule.sqrt_alphas_cumprod, 1.0)[t]) for t in times]


def rows(images: Mapping[str, Any], columns: int = 16) -> Figure:
    """Draw images in rows, each row with its name at the left.

    Args:
        images: by name, at least ``columns`` of them, ``(n, height, width, 1)``.
        columns: how many of them to show.
    """
    tiles = {name: plots.tile(row[:columns], columns=columns) for name, row in images.items()}
    left, width, gap = 0.15 + 0.085 * max(map(len, images)), 7.5, 0.08  # in inches
    tall, wide, _ = next(iter(tiles.values())).shape
    side = (width - left) * tall / wide
    height = len(images) * (side + gap)
    figure, axes = plots.new_figure(rows=len(images), width=width, height=height, squeeze=False)
    figure.set_layout_engine("none")
    for place, (axis, (name, tile)) in enumerate(zip(axes[:, 0], tiles.items(), strict=True)):
        below = height - (place + 1) * (side + gap)
        axis.set_position((left / width, below / height, 1 - left / width, side / height))
        axis.imshow(tile, interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure


def neighbours(images: Any, training_images: Any) -> Figure:
    """Draw each image above the training image that is nearest to it, with their distance.

    Args:
        images: ``(n, height, width, 1)``.
        training_images: ``(m, height, width, 1)``.
    """
    places, distances = nearest(images, training_images)
    rows = [list(images), list(np.asarray(training_images)[places])]
    return _grid(rows, ["drawn", "nearest"], [f"{distance:.1f}" for distance in distances])


def returns(
    schedule: NoiseSchedule, clean: Any, hidden: Any, returned: Any, times: Sequence[int]
) -> Figure:
    """Draw, for each time: the image, the image under that much noise, and ways back from there.

    Args:
        schedule: of the noise.
        clean: ``(height, width, 1)``.
        hidden: noised images, ``(times, height, width, 1)``.
        returned: ``(times, n, height, width, 1)``.
        times: the steps to which the image was noised.
    """
    rows = [[clean, hidden[i], *returned[i]] for i in range(len(times))]
    titles = ["clean", "noised", *[f"way back {i + 1}" for i in range(len(returned[0]))]]
    signals = signal_at(schedule, times)
    labels = [f"t = {t}\n√ᾱ = {signal:.2f}" for t, signal in zip(times, signals, strict=True)]
    return _grid(rows, labels, titles)


def shared_ways(images: Mapping[int, Any]) -> Figure:
    """Draw images whose ways back began with the same noise, a row for each number of such steps.

    Args:
        images: by number of steps with shared noise, ``(n, height, width, 1)``.
    """
    titles = [f"{i + 1}" for i in range(len(next(iter(images.values()))))]
    return _grid([list(row) for row in images.values()], [f"{n} shared" for n in images], titles)


def between(pixel_mix: Any, drawn: Mapping[int, Any], weights: Sequence[float]) -> Figure:
    """Draw a mix of two images in pixels above images drawn between them, a row for each t.

    Args:
        pixel_mix: ``(weights, height, width, 1)``.
        drawn: by the step t at which noisy versions were mixed, ``(weights, height, width, 1)``.
        weights: the shares λ of the second image.
    """
    rows = [list(pixel_mix), *(list(row) for row in drawn.values())]
    labels = ["pixels", *(f"t = {t}" for t in drawn)]
    return _grid(rows, labels, [f"λ = {weight:.1f}" for weight in weights], width=5.2)


def _grid(
    rows: list[list[Any]], labels: Sequence[str], titles: Sequence[str], width: float = 7.5
) -> Figure:
    """Draw images in rows, each with a label at its left, under titles."""
    columns = len(rows[0])
    side = (width - 0.3) / columns
    figure, axes = plots.new_figure(
        columns, len(rows), width=width, height=len(rows) * side + 0.3, squeeze=False
    )
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        for j, image in enumerate(row):
            plots.draw_image(axes[i, j], image, titles[j] if i == 0 else "")
            axes[i, j].title.set_fontsize(8)
        axes[i, 0].set_ylabel(label, fontsize=9)
    return figure
