"""Perfect denoise functions, without any network: of a finite data set, and of one dimension.

Each says the average of all clean images (or numbers) that could lie behind what it is shown: what
training pulls every network towards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

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


class MixtureDenoiser:
    """The perfect denoise function of numbers that are spread like a mixture of Gaussians."""

    def __init__(self, mixture: GaussianMixture, schedule: NoiseSchedule) -> None:
        """Put the two together."""
        self.mixture, self.schedule = mixture, schedule

    def __call__(self, x_t: Any, t: Any) -> Any:
        """E[x_0 | x_t] of each number by itself, float32, of the shape of ``x_t``."""
        x_t, t = _in_float64(x_t, t)
        return as_float32(self.mixture.expected_x_start(x_t, self.schedule.alphas_cumprod[t]))

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
