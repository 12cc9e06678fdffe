"""Perfect denoise functions without a network: of a finite data set, its patches, one dimension.

Each says the average of all clean images (or patches, or numbers) that could lie behind what it is
shown: what training pulls every network towards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.forward_diffusion import as_float32
from diffusion_walkthrough.gaussian_mixture import GaussianMixture
from diffusion_walkthrough.noise_schedule import NoiseSchedule, extract


def optimal_denoiser(images: Any, schedule: NoiseSchedule) -> Callable[..., Any]:
    """Build the perfect denoise function of a finite data set, ``(n, …)`` in [-1, 1].

    If the data are exactly ``images``, each equally likely, Bayes's rule on Eq. 4 of Ho et al.
    2020 gives E[x_0 | x_t] in closed form: average the images, each weighted by how well it
    explains x_t (see also Karras et al. 2022, arXiv 2206.00364, appendix B.3). A network of
    unlimited size and patience would learn it, and draw nothing but these images.

    The result is a callable ``(x_t, t) -> expected x_0``, same shape as ``x_t``. It needs memory
    for batch · n · pixels numbers, so ask about few images at a time with a large set.
    """
    flat_images = ops.reshape(as_float32(images), (len(images), -1))

    def denoise(x_t: Any, t: Any) -> Any:
        x_t = as_float32(x_t)
        flat = ops.reshape(x_t, (x_t.shape[0], -1))  # (batch, pixels)
        means = extract(schedule.sqrt_alphas_cumprod, t, 3) * flat_images  # (batch, n, pixels)
        distances = ops.sum(ops.square(flat[:, None, :] - means), axis=-1)  # (batch, n)
        noise_variance = extract(1.0 - schedule.alphas_cumprod, t, 2)
        weights = ops.softmax(-distances / (2.0 * noise_variance), axis=-1)
        return ops.reshape(ops.matmul(weights, flat_images), x_t.shape)

    return denoise


def patch_denoiser(
    images: Any, schedule: NoiseSchedule, size: int, anywhere: bool = True
) -> Callable[..., Any]:
    """Build the perfect denoise function for who sees ``size`` x ``size`` pixels at a time.

    Each pixel of x_0 is guessed from the square of x_t around it, as :func:`optimal_denoiser` does
    from the whole: by averaging the middles of all images' patches, weighted by how well a patch
    explains the square (Kamb and Ganguli 2024, arXiv 2412.20292). Pixels need not agree on an
    image, so that what is drawn is a mosaic of patches, and new.

    ``images`` are ``(n, height, width, channels)`` in [-1, 1]; ``size`` is odd. With ``anywhere``,
    patches come from all places where the border cuts them off alike, as for convolutions, which
    tell places apart by nothing else (the paper's equivariant local score, boundaries broken); else
    from the same place (its local score). Raises TypeError or ValueError for another size or shape.

    The result is a callable ``(x_t, t) -> guess of x_0``, same shape as ``x_t``. It needs memory
    for batch · n · height · width numbers.
    """
    if checks.integer("size", size, minimum=1) % 2 == 0:
        raise ValueError(f"size={size}: a patch needs a middle, so size is odd. Use {size + 1}.")
    shape = tuple((images := as_float32(images)).shape)
    if len(shape) != 4:
        raise ValueError(f"images have shape {shape}: must be (n, height, width, channels).")
    pixels = ops.reshape(images, (shape[0], -1, shape[-1]))
    table = [
        (places, squares, _cut_out(pixels, squares), _cut_out(pixels, places[:, None]))
        for places, squares in _places_alike(shape[1:3], size // 2, anywhere)
    ]

    def denoise(x_t: Any, t: Any) -> Any:
        x_t, a, b = map(as_float32, (x_t, *schedule.rates(t, 2)))  # a and b (batch, 1)
        shown, guesses = ops.reshape(x_t, (x_t.shape[0], -1, shape[-1])), {}
        for places, squares, patches, middles in table:
            for place, square in zip(places, squares, strict=True):
                seen = _cut_out(shown, square[None])  # (batch, numbers)
                # -|seen - a patch|² / 2, but for |seen|², which changes no weight.
                fit = a * ops.matmul(seen, ops.transpose(patches))
                fit = fit - a**2 / 2 * ops.sum(ops.square(patches), axis=1)
                guesses[place] = ops.matmul(ops.softmax(fit / b**2), middles)
        return ops.reshape(ops.stack([guesses[p] for p in sorted(guesses)], axis=1), x_t.shape)

    return denoise


def _cut_out(pixels: Any, squares: np.ndarray) -> Any:
    """From ``(batch, pixels, channels)`` what some squares see: ``(batch * squares, numbers)``."""
    cut = ops.take(pixels, squares.ravel(), axis=1)
    return ops.reshape(cut, (-1, squares.shape[1] * pixels.shape[-1]))


def _places_alike(sides: tuple[int, ...], reach: int, anywhere: bool) -> Any:
    """The places whose patches may stand for each other, and the squares of pixels around them."""
    grid, groups = np.arange(np.prod(sides)).reshape(sides), defaultdict(list)
    for at in np.ndindex(*sides):
        low, high = np.maximum(np.array(at) - reach, 0), np.minimum(np.add(at, reach + 1), sides)
        square = grid[low[0] : high[0], low[1] : high[1]].ravel()
        groups[(*(at - low), *(high - at)) if anywhere else at].append((grid[at], square))
    return [tuple(map(np.array, zip(*group, strict=True))) for group in groups.values()]


class MixtureDenoiser:
    """The perfect denoise function of numbers that are spread like a mixture of Gaussians."""

    def __init__(self, mixture: GaussianMixture, schedule: NoiseSchedule) -> None:
        """Put the two together."""
        self.mixture, self.schedule = mixture, schedule

    def __call__(self, x_t: Any, t: Any) -> Any:
        """E[x_0 | x_t] of each number by itself, float32, shaped like ``x_t``; t may be real."""
        x_t, t = _in_float64(x_t, t)
        return as_float32(self.mixture.expected_x_start(x_t, self.schedule.alpha_bar(t)))

    def with_variance(self, x_t: Any, t: Any) -> tuple[Any, Any]:
        """The same, and the exact log variance of the step back to t - 1.

        Two uncertainties add up: β̃, which is left even where x_0 is known, and what x_t leaves open
        about x_0, which comes in with the square of coef1 (Eq. 7).
        """
        x, step = _in_float64(x_t, t)
        left_open = self.mixture.x_start_variance(x, self.schedule.alphas_cumprod[step])
        share = self.schedule.posterior_mean_coef1[step] ** 2
        variance = self.schedule.posterior_variance[step] + share * left_open
        return self(x_t, t), as_float32(np.log(variance))


def _in_float64(x_t: Any, t: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, ``t`` with as many axes as ``x_t``."""
    x_t = np.asarray(ops.convert_to_numpy(x_t), dtype=np.float64)
    t = np.asarray(ops.convert_to_numpy(t))
    return x_t, t.reshape((-1,) + (1,) * (x_t.ndim - 1))
