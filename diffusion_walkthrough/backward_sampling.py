"""Backward sampling: from pure noise to an image, one small step at a time.

Equation and algorithm numbers are those of Ho et al. 2020 (arXiv 2006.11239). Everything here
takes a *denoise function*, any callable ``(x_t, t) -> predicted noise``: a network, a trained
model's ``denoise``, or the exact :func:`optimal_denoiser` of a finite data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.forward_diffusion import as_float32, q_posterior_mean_variance
from diffusion_walkthrough.loss import predict_noise_from_x_start, predict_x_start_from_noise
from diffusion_walkthrough.noise_schedule import NoiseSchedule, extract
from diffusion_walkthrough.parameters import VARIANCE_NAMES

DenoiseFn = Callable[[Any, Any], Any]


class BackwardStep(NamedTuple):
    """What the denoise function implies for one step back, p(x_{t-1} | x_t)."""

    mean: Any  # (batch, …)
    variance: Any  # (batch, 1, …, 1)
    log_variance: Any  # (batch, 1, …, 1)
    x_start: Any  # (batch, …), the guess of the clean image


def fixed_variance(schedule: NoiseSchedule, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Look up the tables of variance and log variance, each float64 ``(T,)``.

    ``"fixed_small"`` is β̃ of Eq. 7, right if the data were a single image; ``"fixed_large"`` is
    β, right if the data were standard normal noise. Both take the log of β̃ at t = 1 for t = 0.

    Raises:
        ValueError: if ``variance`` is neither.
    """
    if variance == "fixed_small":
        return schedule.posterior_variance, schedule.posterior_log_variance_clipped
    if variance == "fixed_large":
        first = np.exp(schedule.posterior_log_variance_clipped[0])
        return schedule.betas, np.log(np.append(first, schedule.betas[1:]))
    raise ValueError(
        f"variance = {variance!r} must be one of {VARIANCE_NAMES}: choose 'fixed_small' for few "
        "steps or small images, 'fixed_large' to repeat the paper on CIFAR-10."
    )


def p_mean_variance(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    x_t: Any,
    t: Any,
    variance: str = "fixed_small",
    clip: bool = True,
) -> BackwardStep:
    """Work out p(x_{t-1} | x_t): guess the noise, hence x_0, hence the posterior mean (Eq. 11).

    Args:
        denoise_fn: callable ``(x_t, t) -> predicted noise``.
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: int32 ``(batch,)``.
        variance: ``"fixed_small"`` or ``"fixed_large"``.
        clip: whether to hold the guessed x_0 within [-1, 1]; turn it off for data that are not
            images.

    Returns:
        Mean, variance, log variance and the guessed x_0.
    """
    predicted_noise = denoise_fn(x_t, t)
    x_start = predict_x_start_from_noise(schedule, x_t, t, predicted_noise)
    if clip:
        x_start = ops.clip(x_start, -1.0, 1.0)
    mean, _, _ = q_posterior_mean_variance(schedule, x_start, x_t, t)
    variances, log_variances = fixed_variance(schedule, variance)
    ndim = len(x_t.shape)
    return BackwardStep(mean, extract(variances, t, ndim), extract(log_variances, t, ndim), x_start)


def p_sample(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    x_t: Any,
    t: Any,
    noise: Any,
    variance: str = "fixed_small",
    clip: bool = True,
) -> Any:
    """Take one step back: x_{t-1} = mean + σ z (Algorithm 2), with z = 0 at the last step.

    Args:
        denoise_fn: callable ``(x_t, t) -> predicted noise``.
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: int32 ``(batch,)``; images at t = 0 get no new noise.
        noise: standard normal, same shape as ``x_t``: the z of Algorithm 2.
        variance: ``"fixed_small"`` or ``"fixed_large"``.
        clip: whether to hold the guessed x_0 within [-1, 1].

    Returns:
        x_{t-1}, same shape as ``x_t``.
    """
    x_t, noise = as_float32(x_t), as_float32(noise)
    step = p_mean_variance(denoise_fn, schedule, x_t, t, variance, clip)
    not_last = ops.reshape(ops.cast(t > 0, "float32"), (-1,) + (1,) * (len(x_t.shape) - 1))
    return step.mean + not_last * ops.exp(0.5 * step.log_variance) * noise


def p_sample_loop_progressive(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    *,
    seed: int | None = None,
    x_T: Any = None,
    variance: str = "fixed_small",
    clip: bool = True,
) -> Iterator[tuple[int, Any]]:
    """Walk from noise to images and hand out every stop on the way (Algorithm 2).

    Args:
        denoise_fn: callable ``(x_t, t) -> predicted noise``.
        schedule: the noise schedule.
        shape: shape of the result, ``(batch, height, width, channels)`` or any ``(batch, …)``.
        seed: makes the result repeatable; None draws a new one each time.
        x_T: noise to start from, drawn if None.
        variance: ``"fixed_small"`` or ``"fixed_large"``.
        clip: whether to hold each guessed x_0 within [-1, 1].

    Yields:
        ``(steps_left, x)``: first ``(T, noise)``, then after each step, last ``(0, images)``.
    """
    fixed_variance(schedule, variance)  # refuse a wrong name before any work
    generator = keras.random.SeedGenerator(seed)
    x = keras.random.normal(shape, seed=generator) if x_T is None else _as_noise(x_T, shape)
    yield len(schedule), x
    for step in reversed(range(len(schedule))):
        t = ops.full((shape[0],), step, dtype="int32")
        noise = keras.random.normal(shape, seed=generator)
        x = p_sample(denoise_fn, schedule, x, t, noise, variance, clip)
        x = ops.stop_gradient(x)  # or PyTorch keeps the whole way in memory
        yield step, x


def _as_noise(x_T: Any, shape: tuple[int, ...]) -> Any:
    if tuple(x_T.shape) != tuple(shape):
        raise ValueError(
            f"x_T has shape {tuple(x_T.shape)}, but shape = {tuple(shape)} is asked for; "
            "pass shape=x_T.shape."
        )
    return as_float32(x_T)


def p_sample_loop(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    *,
    progress: bool = False,
    **options: Any,
) -> Any:
    """Walk all the way from noise to images (Algorithm 2).

    Args:
        denoise_fn: callable ``(x_t, t) -> predicted noise``.
        schedule: the noise schedule.
        shape: shape of the result, ``(batch, height, width, channels)`` or any ``(batch, …)``.
        progress: whether to show a progress bar.
        **options: as for :func:`p_sample_loop_progressive`.

    Returns:
        float32 tensor of that shape; images lie in [-1, 1].
    """
    bar = keras.utils.Progbar(len(schedule), unit_name="step") if progress else None
    images = None
    for steps_left, x in p_sample_loop_progressive(denoise_fn, schedule, shape, **options):
        images = x
        if bar:
            bar.update(len(schedule) - steps_left)
    return images


def p_sample_loop_trajectory(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    *,
    stops: int = 11,
    **options: Any,
) -> tuple[list[int], np.ndarray]:
    """Walk from noise to images and keep evenly spaced pictures of the journey.

    Args:
        denoise_fn: callable ``(x_t, t) -> predicted noise``.
        schedule: the noise schedule.
        shape: shape of the result, ``(batch, …)``.
        stops: how many pictures to keep, at least 2: the first is the noise, the last the image.
        **options: as for :func:`p_sample_loop_progressive`.

    Returns:
        The number of steps left at each stop, from T to 0, and the pictures, float32 NumPy
        ``(stops, batch, …)``.

    Raises:
        ValueError: if ``stops`` is not between 2 and T + 1.
    """
    T = len(schedule)
    if not 2 <= stops <= T + 1:
        raise ValueError(
            f"stops = {stops} must lie between 2 and {T + 1}, the number of pictures that "
            f"a journey of {T} steps has."
        )
    wanted = {round(T * (1 - i / (stops - 1))) for i in range(stops)}
    journey = p_sample_loop_progressive(denoise_fn, schedule, shape, **options)
    kept = [(left, ops.convert_to_numpy(x)) for left, x in journey if left in wanted]
    return [left for left, _ in kept], np.stack([x for _, x in kept])


def optimal_denoiser(images: Any, schedule: NoiseSchedule) -> DenoiseFn:
    """Build the perfect denoise function of a finite data set, without any network.

    If the data are exactly ``images``, each equally likely, Bayes's rule gives E[ε | x_t] in
    closed form: average the images, each weighted by how well it explains x_t. It is what a
    network of unlimited size and patience would learn, and it draws nothing but its own images.

    Args:
        images: the whole data set, ``(n, …)`` in [-1, 1].
        schedule: the noise schedule.

    Returns:
        Callable ``(x_t, t) -> expected noise``, same shape as ``x_t``. It needs memory for
        batch · n · pixels numbers, so draw few images at a time from a large set.

    Source: Bayes's rule on Eq. 4; see also Karras et al. 2022 (arXiv 2206.00364), appendix B.3.
    """
    flat_images = ops.reshape(as_float32(images), (len(images), -1))

    def denoise(x_t: Any, t: Any) -> Any:
        x_t = as_float32(x_t)
        flat = ops.reshape(x_t, (x_t.shape[0], -1))  # (batch, pixels)
        means = extract(schedule.sqrt_alphas_cumprod, t, 3) * flat_images  # (batch, n, pixels)
        distances = ops.sum(ops.square(flat[:, None, :] - means), axis=-1)  # (batch, n)
        noise_variance = extract(1.0 - schedule.alphas_cumprod, t, 2)
        weights = ops.softmax(-distances / (2.0 * noise_variance), axis=-1)
        x_start = ops.reshape(ops.matmul(weights, flat_images), x_t.shape)
        return predict_noise_from_x_start(schedule, x_t, t, x_start)

    return denoise
