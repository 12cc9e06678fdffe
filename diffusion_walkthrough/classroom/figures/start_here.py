"""Pictures of chapter 00: how a noisy image is put together, and what a network makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.classroom import plots

Array = NDArray[np.float32]

#: One scale for all pictures: -1.6 is black, +1.6 is white.
VALUE_RANGE = 1.6


class Recipe(NamedTuple):
    """One noisy image: the factors and images it is the sum of, and what was made of it."""

    t: int  # how much noise
    signal: float  # √ᾱ, the factor of the digit
    sigma: float  # √(1-ᾱ), the factor of the noise
    noisy: Array  # signal · digit + sigma · noise, (height, width, channels)
    guess: Array  # the noise that the network sees in it, likewise
    implied: Array  # the image that this guess implies, likewise


def three_places(playground: Any, times: Sequence[int]) -> Figure:
    """Move a playground's slider to each of ``times``, and draw what it shows there, row by row."""
    rows = []
    for t in times:
        playground.slider.value = t
        rows.append(playground.recipe())
    return recipes(playground.digit[0], playground.noise[0], rows)


def recipes(digit: Array, noise: Array, rows: list[Recipe]) -> Figure:
    """Draw, for each row: factor × digit + factor × noise = noisy image, the guess, the image.

    Args:
        digit: the clean image, ``(height, width, channels)`` in [-1, 1].
        noise: the noise, same shape.
        rows: one for each amount of noise.
    """
    figure, axes = plots.new_figure(5, len(rows), 7.0, 1.75 * len(rows), squeeze=False)
    for line, recipe in zip(axes, rows, strict=True):
        pictures = {
            f"{recipe.signal:.2f} × digit": recipe.signal * digit,
            f"+ {recipe.sigma:.2f} × noise": recipe.sigma * noise,
            f"= noisy, t = {recipe.t}": recipe.noisy,
            f"{recipe.sigma:.2f} × guess": recipe.sigma * recipe.guess,
            "so the image is": recipe.implied,
        }
        for axis, (title, picture) in zip(line, pictures.items(), strict=True):
            plots.draw_image(axis, picture, title, VALUE_RANGE)
    return figure
