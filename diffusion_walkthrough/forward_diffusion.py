"""Forward diffusion: destroying an image with noise, one step and many steps at once.

Equation numbers are those of Ho et al. 2020 (arXiv 2006.11239). Images are float32 tensors of
shape ``(batch, height, width, channels)`` in [-1, 1]; any other shape ``(batch, …)`` works too.
``t`` is an int32 tensor of shape ``(batch,)`` in 0 … T-1.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from diffusion_walkthrough.noise_schedule import NoiseSchedule, extract

OWN_NOISE = "each pixel needs its own noise, so draw it with that shape"


def add_noise(x_prev: Any, beta: Any, noise: Any) -> Any:
    """Take one step of noise: x_t = √(1-β) x_{t-1} + √β ε (Eq. 2).

    Args:
        x_prev: the image one step earlier, ``(batch, …)``.
        beta: the variance of the noise, a number in (0, 1) or a tensor that broadcasts.
        noise: standard normal, same shape as ``x_prev``.

    Returns:
        x_t, same shape as ``x_prev``.

    Raises:
        ValueError: if ``noise`` and ``x_prev`` differ in shape.
    """
    x_prev, beta, noise = as_float32(x_prev), as_float32(beta), as_float32(noise)
    check_same_shape(noise, x_prev, "noise", "x_prev", OWN_NOISE)
    return ops.sqrt(1.0 - beta) * x_prev + ops.sqrt(beta) * noise


def q_mean_variance(schedule: NoiseSchedule, x_start: Any, t: Any) -> tuple[Any, Any]:
    """Compute mean and variance of q(x_t | x_0): √ᾱ x_0 and 1-ᾱ (Eq. 4).

    Returns:
        The mean, ``(batch, …)``, and the variance, ``(batch, 1, …, 1)``.
    """
    x_start = as_float32(x_start)
    ndim = len(x_start.shape)
    mean = extract(schedule.sqrt_alphas_cumprod, t, ndim) * x_start
    variance = extract(1.0 - schedule.alphas_cumprod, t, ndim)
    return mean, variance


def q_sample(schedule: NoiseSchedule, x_start: Any, t: Any, noise: Any) -> Any:
    """Jump straight to step t: x_t = √ᾱ x_0 + √(1-ᾱ) ε (Eq. 4).

    Args:
        schedule: the noise schedule.
        x_start: clean images, ``(batch, …)`` in [-1, 1].
        t: which step, int32 ``(batch,)`` in 0 … T-1.
        noise: standard normal, same shape as ``x_start``.

    Returns:
        x_t, same shape as ``x_start``.

    Raises:
        ValueError: if ``noise`` and ``x_start`` differ in shape.
    """
    x_start, noise = as_float32(x_start), as_float32(noise)
    check_same_shape(noise, x_start, "noise", "x_start", OWN_NOISE)
    ndim = len(x_start.shape)
    signal_rate = extract(schedule.sqrt_alphas_cumprod, t, ndim)
    noise_rate = extract(schedule.sqrt_one_minus_alphas_cumprod, t, ndim)
    return signal_rate * x_start + noise_rate * noise


def q_posterior_mean_variance(
    schedule: NoiseSchedule, x_start: Any, x_t: Any, t: Any
) -> tuple[Any, Any, Any]:
    """Compute q(x_{t-1} | x_t, x_0), where one backward step leads if x_0 is known (Eqs. 6, 7).

    Args:
        schedule: the noise schedule.
        x_start: the clean image, or a guess of it, ``(batch, …)``.
        x_t: the noisy image, same shape.
        t: int32 ``(batch,)``.

    Returns:
        Mean ``(batch, …)``, variance and log variance ``(batch, 1, …, 1)``; the log variance at
        t = 0 is the value of t = 1, because the variance itself is 0 there.

    Raises:
        ValueError: if ``x_start`` and ``x_t`` differ in shape.
    """
    x_start, x_t = as_float32(x_start), as_float32(x_t)
    check_same_shape(x_start, x_t, "x_start", "x_t", "they must be the same images")
    ndim = len(x_t.shape)
    mean = (
        extract(schedule.posterior_mean_coef1, t, ndim) * x_start
        + extract(schedule.posterior_mean_coef2, t, ndim) * x_t
    )
    variance = extract(schedule.posterior_variance, t, ndim)
    log_variance = extract(schedule.posterior_log_variance_clipped, t, ndim)
    return mean, variance, log_variance


def as_float32(values: Any) -> Any:
    """Make a tensor, so that every backend computes the same from NumPy's float64."""
    return ops.convert_to_tensor(values, dtype="float32")


def same_shape(x: Any, other: Any) -> bool:
    """Whether two tensors are equally shaped, as far as is known: None fits any length."""
    pairs = zip(x.shape, other.shape, strict=False)
    known = all(a == b for a, b in pairs if None not in (a, b))
    return known and len(x.shape) == len(other.shape)


def check_same_shape(x: Any, other: Any, name: str, other_name: str, reason: str) -> None:
    """Refuse what would broadcast to nonsense."""
    if not same_shape(x, other):
        shapes = f"{name} has shape {tuple(x.shape)} and {other_name} has {tuple(other.shape)}"
        raise ValueError(f"{shapes}; {reason}.")
