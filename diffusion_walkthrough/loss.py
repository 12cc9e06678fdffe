"""What the network is trained for: guessing the noise.

Equation numbers are those of Ho et al. 2020 (arXiv 2006.11239). A *denoise function* is any
callable ``(x_t, t) -> predicted noise``; ``t`` is int32 ``(batch,)`` in 0 … T-1.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from diffusion_walkthrough.forward_diffusion import as_float32, q_sample, same_shape
from diffusion_walkthrough.noise_schedule import NoiseSchedule, extract


def predict_x_start_from_noise(schedule: NoiseSchedule, x_t: Any, t: Any, noise: Any) -> Any:
    """Solve Eq. 4 for the clean image: x_0 = √(1/ᾱ) x_t - √(1/ᾱ - 1) ε.

    Args:
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: int32 ``(batch,)``.
        noise: the noise in ``x_t``, or a guess of it, same shape.

    Returns:
        The clean image that this noise implies, same shape; not clipped.
    """
    x_t, noise = as_float32(x_t), as_float32(noise)
    ndim = len(x_t.shape)
    return (
        extract(schedule.sqrt_recip_alphas_cumprod, t, ndim) * x_t
        - extract(schedule.sqrt_recipm1_alphas_cumprod, t, ndim) * noise
    )


def predict_noise_from_x_start(schedule: NoiseSchedule, x_t: Any, t: Any, x_start: Any) -> Any:
    """Solve Eq. 4 for the noise: ε = (x_t √(1/ᾱ) - x_0) / √(1/ᾱ - 1).

    The inverse of :func:`predict_x_start_from_noise`, with the same shapes.
    """
    x_t, x_start = as_float32(x_t), as_float32(x_start)
    ndim = len(x_t.shape)
    scaled = extract(schedule.sqrt_recip_alphas_cumprod, t, ndim) * x_t
    return (scaled - x_start) / extract(schedule.sqrt_recipm1_alphas_cumprod, t, ndim)


def noise_prediction_loss(
    denoise_fn: Any, schedule: NoiseSchedule, x_start: Any, t: Any, noise: Any
) -> Any:
    """Compute the mean squared error of the guessed noise, for each image (Eq. 14).

    The guess is compared as it is: clipping it, or the image it implies, would hide errors from
    the training.

    Args:
        denoise_fn: callable ``(x_t, t) -> predicted noise``.
        schedule: the noise schedule.
        x_start: clean images in [-1, 1], ``(batch, …)``.
        t: int32 ``(batch,)``.
        noise: the noise to hide the images under, same shape as ``x_start``.

    Returns:
        float32 ``(batch,)``; about 1 for a network that always answers 0.

    Raises:
        ValueError: if the guess has another shape than the noise.
    """
    noise = as_float32(noise)
    guess = as_float32(denoise_fn(q_sample(schedule, x_start, t, noise), t))
    if not same_shape(guess, noise):
        raise ValueError(
            f"denoise_fn answered with shape {tuple(guess.shape)}, but the noise has shape "
            f"{tuple(noise.shape)}; they must be equal, or broadcasting would compare pixels with "
            "other pixels. Let it return one number for each pixel of x_t."
        )
    return mean_per_image(ops.square(noise - guess))


def mean_per_image(x: Any) -> Any:
    """Average over every axis but the first: ``(batch, …)`` to ``(batch,)``."""
    return ops.mean(x, axis=tuple(range(1, len(x.shape))))


def normal_kl(mean_1: Any, log_variance_1: Any, mean_2: Any, log_variance_2: Any) -> Any:
    """Compute the KL divergence from one Gaussian to another, for each pixel, in nats.

    KL(N_1 ‖ N_2) = ½ (log σ²_2 - log σ²_1 + (σ²_1 + (μ_1-μ_2)²) / σ²_2 - 1). Each term L_{t-1} of
    the variational bound is one of these (Eq. 5). Never negative.

    Args:
        mean_1: of the true bell; a tensor, array or number, as are the other three.
        log_variance_1: the natural logarithm of its variance.
        mean_2: of the believed bell.
        log_variance_2: likewise.

    Returns:
        float32, of the shape to which the four broadcast.
    """
    mean_1, log_variance_1 = as_float32(mean_1), as_float32(log_variance_1)
    mean_2, log_variance_2 = as_float32(mean_2), as_float32(log_variance_2)
    log_ratio = log_variance_1 - log_variance_2
    squared_distance = ops.square(mean_1 - mean_2) * ops.exp(-log_variance_2)
    return 0.5 * (-log_ratio + ops.exp(log_ratio) + squared_distance - 1.0)


def variational_weight(schedule: NoiseSchedule, t: Any) -> Any:
    """Compute what the bound multiplies the squared noise error with, for each t (Eq. 12).

    β² / (2 σ² α (1-ᾱ)) with σ² = β̃ (its value of t = 1 standing in at t = 0); Eq. 14 sets it to 1.

    Returns:
        float32 ``(batch,)``, in nats per unit of squared error.
    """
    variance = ops.exp(extract(schedule.posterior_log_variance_clipped, t, 1))
    weight = schedule.betas**2 / (2 * schedule.alphas * (1 - schedule.alphas_cumprod))
    return extract(weight, t, 1) / variance
