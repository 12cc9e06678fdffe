"""Pictures of chapter 00: the question, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.classroom import plots

Array = NDArray[np.float32]


def question(x_t: Array, noise: Array, guess: Array, cleaned: Array) -> Figure:
    """Draw a noisy image, its noise, the guessed noise, and what the guess makes of the image.

    Args:
        x_t: noisy image, ``(height, width, channels)``.
        noise: the noise in it, same shape.
        guess: the guessed noise, same shape.
        cleaned: the image behind it, if the guess is right, same shape.
    """
    figure, axes = plots.new_figure(4, width=7.5, height=2.2)
    pictures = (x_t, 1.5), (noise, 2.5), (guess, 2.5), (cleaned, 1.0)
    titles = "noisy image", "its noise", "the network's guess", "image without it"
    for axis, (picture, value_range), title in zip(axes, pictures, titles, strict=True):
        plots.draw_image(axis, picture, title, value_range)
    return figure


def journeys(times: Sequence[int], journey: Array) -> Figure:
    """Draw several images on their way from noise, one row each.

    Args:
        times: the t of each stop, ``(stops,)``, from T-1 down to -1, the finished image.
        journey: the images, ``(stops, batch, height, width, channels)``.
    """
    stops, batch = journey.shape[:2]
    size = 7.5 / stops
    figure, axes = plots.new_figure(stops, batch, 7.5, batch * size + 0.35, squeeze=False)
    for row in range(batch):
        for stop in range(stops):
            title = f"{times[stop] + 1} left" if row == 0 else ""
            plots.draw_image(axes[row, stop], journey[stop, row], title, 1.3)
            axes[row, stop].title.set_fontsize(8)
    return figure
