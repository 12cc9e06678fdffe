"""Pictures of chapter 00: the question, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.noise_schedule import NoiseSchedule

Array = NDArray[np.float32]


def question(schedule: NoiseSchedule, t: int, x_t: Array, noise: Array, guess: Array) -> Figure:
    """Draw a noisy image, its noise, the guessed noise, and what the guess makes of the image.

    Args:
        schedule: the noise schedule.
        t: the step at which the image stands.
        x_t: noisy image, ``(height, width, channels)``.
        noise: the noise in it, same shape.
        guess: the guessed noise, same shape.
    """
    cleaned = x_t - schedule.sqrt_one_minus_alphas_cumprod[t] * guess
    cleaned = np.clip(cleaned / schedule.sqrt_alphas_cumprod[t], -1, 1)
    figure, axes = plots.new_figure(4, width=7.5, height=2.2)
    pictures = (x_t, 1.5), (noise, 2.5), (guess, 2.5), (cleaned, 1.0)
    titles = "noisy image", "its noise", "the network's guess", "image without it"
    for axis, (picture, value_range), title in zip(axes, pictures, titles, strict=True):
        plots.draw_image(axis, picture, title, value_range)
    return figure


def journeys(steps_left: Sequence[int], journey: Array) -> Figure:
    """Draw several images on their way from noise, one row each.

    Args:
        steps_left: how many steps are left at each stop, ``(stops,)``.
        journey: the images, ``(stops, batch, height, width, channels)``.
    """
    stops, batch = journey.shape[:2]
    size = 7.5 / stops
    figure, axes = plots.new_figure(stops, batch, 7.5, batch * size + 0.35, squeeze=False)
    for row in range(batch):
        for stop in range(stops):
            title = f"{steps_left[stop]} left" if row == 0 else ""
            plots.draw_image(axes[row, stop], journey[stop, row], title, 1.3)
            axes[row, stop].title.set_fontsize(8)
    return figure
