"""What a network is trained for: guessing the noise, or the whole variational bound.

From the simple loss (Eq. 14) by way of the distance of two bells to all that the bound is made of
(Eqs. 5, 12, 13), and at the end :func:`mark`, which marks answers in training. Equation numbers
are those of Ho et al. 2020 (arXiv 2006.11239). ``t`` is int32 ``(batch,)`` in 0 … T-1. A *denoise
function* is any callable ``(x_t, t) -> x_start``, such as a model's ``denoise``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.backward_sampling import BackwardStep, Denoiser, p_mean_variance
from diffusion_walkthrough.checks import integer
from diffusion_walkthrough.engine.labels import telling
from diffusion_walkthrough.engine.noise import BLOCK, NoiseInBlocks
from diffusion_walkthrough.forward_diffusion import (
    as_float32,
    q_mean_variance,
    q_posterior_mean_variance,
    q_sample,
    same_shape,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, extract
from diffusion_walkthrough.parameters import MOST_PIXEL_LEVELS, DiffusionParameters
from diffusion_walkthrough.predictions import (
    PREDICTIONS,
    predict_noise_from_x_start as predict_noise_from_x_start,
    predict_x_start_from_noise as predict_x_start_from_noise,
    predict_x_start_from_x_prev as predict_x_start_from_x_prev,
)

#: Nats in a bit.
LN_2 = math.log(2.0)

#: No probability is counted as less, or one pixel would make a loss of infinity. Where that cuts
#: something off, as for a model that is sure of a wrong level, the bound of Eq. 5 is none any more.
SMALLEST_PROBABILITY = 1e-12


def noise_prediction_loss(
    guess_noise: Any, schedule: NoiseSchedule, x_start: Any, t: Any, noise: Any
) -> Any:
    """Compute the mean squared error of the guessed noise, for each image (Eq. 14).

    The guess is compared as it is: clipping it, or the image it implies, would hide errors from
    the training.

    Args:
        guess_noise: callable ``(x_t, t) -> noise``: a network, such as a model's ``denoise.ask``.
        schedule: the noise schedule.
        x_start: clean images in [-1, 1], ``(batch, …)``.
        t: the step of each.
        noise: the noise to hide the images under, same shape as ``x_start``.

    Returns:
        float32 ``(batch,)``; about 1 for a network that always answers 0. Raises ValueError if the
        guess has another shape than the noise.
    """
    return squared_error(guess_noise(q_sample(schedule, x_start, t, noise), t), noise)


def squared_error(answer: Any, target: Any) -> Any:
    """Average the squared error over each image: two ``(batch, …)`` to ``(batch,)``.

    Raises:
        ValueError: if the two differ in shape: broadcasting would compare pixels with others.
    """
    answer, target = as_float32(answer), as_float32(target)
    if not same_shape(answer, target):
        raise ValueError(
            f"the answer has shape {tuple(answer.shape)}, but what was asked for has shape "
            f"{tuple(target.shape)}; they must be equal, or broadcasting would compare pixels with "
            "other pixels. Let the network return one number for each pixel of x_t."
        )
    return mean_per_image(ops.square(target - answer))


def mean_per_image(x: Any) -> Any:
    """Average over every axis but the first: ``(batch, …)`` to ``(batch,)``."""
    return ops.mean(x, axis=tuple(range(1, len(x.shape))))


def normal_kl(mean_1: Any, log_variance_1: Any, mean_2: Any, log_variance_2: Any) -> Any:
    """Compute the KL divergence from one Gaussian to another, for each pixel, in nats.

    KL(N_1 ‖ N_2) = ½ (log σ²_2 - log σ²_1 + (σ²_1 + (μ_1-μ_2)²) / σ²_2 - 1), where N_1 is the true
    bell and N_2 the believed one; logarithms are natural. Each term L_{t-1} of the variational
    bound is one of these (Eq. 5). Never negative, but for rounding.

    Returns float32, of the shape to which the four tensors, arrays or numbers broadcast.
    """
    mean_1, log_variance_1 = as_float32(mean_1), as_float32(log_variance_1)
    mean_2, log_variance_2 = as_float32(mean_2), as_float32(log_variance_2)
    log_ratio = log_variance_1 - log_variance_2
    squared_distance = ops.square(mean_1 - mean_2) * ops.exp(-log_variance_2)
    # exp(r) - 1 as one function: near r = 0, float32 would lose its digits in the difference.
    return 0.5 * (-log_ratio + ops.expm1(log_ratio) + squared_distance)


def variational_weight(schedule: NoiseSchedule, t: Any) -> Any:
    """Compute what the bound multiplies the squared noise error with, for each t (Eq. 12).

    β² / (2 σ² α (1-ᾱ)) with σ² = β̃ (its value of t = 1 standing in at t = 0); Eq. 14 sets it to 1.

    Returns:
        float32 ``(batch,)``, in nats per unit of squared error.
    """
    variance = ops.exp(extract(schedule.posterior_log_variance_clipped, t, 1))
    weight = schedule.betas**2 / (2 * schedule.alphas * (1 - schedule.alphas_cumprod))
    return extract(weight, t, 1) / variance


def discretized_gaussian_log_likelihood(
    x: Any, mean: Any, log_scale: Any, levels: int = 256
) -> Any:
    """Compute the log probability that a Gaussian gives to each pixel's grey level (Eq. 13).

    A pixel with one of ``levels`` values has a share of the Gaussian's area: the bin from half a
    level below to half a level above. The outermost bins reach to infinity.

    Args:
        x: images in [-1, 1] whose values are levels -1, …, 1 with equal steps between.
        mean: of the Gaussian, a tensor that broadcasts against ``x``.
        log_scale: the logarithm of its standard deviation (half the log variance), likewise.
        levels: how many values a pixel can have: 256 for photographs, 17 for the 8×8 digits.

    Returns:
        float32, the shape of ``x``, in nats; never below log(1e-12). The probability itself is
        right to 5e-7, as float32 goes: what is much rarer than that comes out coarse.
    """
    x, mean = as_float32(x), as_float32(mean)
    half_bin = 1.0 / (levels - 1)
    # Folded to the left side, so that a level costs the same on either side of the mean.
    distance = -ops.abs(x - mean)
    inverse_scale = ops.exp(-as_float32(log_scale))
    upper = _normal_cdf((distance + half_bin) * inverse_scale)
    lower = _normal_cdf((distance - half_bin) * inverse_scale)
    probability = upper - lower
    lowest = _normal_cdf((x + half_bin - mean) * inverse_scale)
    highest = _normal_cdf((mean - x + half_bin) * inverse_scale)
    probability = ops.where(x < -1 + half_bin, lowest, probability)
    probability = ops.where(x > 1 - half_bin, highest, probability)
    return ops.log(ops.maximum(probability, SMALLEST_PROBABILITY))


def _normal_cdf(x: Any) -> Any:
    return 0.5 * (1.0 + ops.erf(x / math.sqrt(2.0)))


def variational_bound_terms(
    schedule: NoiseSchedule, x_start: Any, x_t: Any, t: Any, step: BackwardStep, levels: int = 256
) -> Any:
    """Compute the term of the variational bound that belongs to t, for each image (Eq. 5).

    For t > 0 it is the KL divergence from the true step back, q(x_{t-1} | x_t, x_0), to the
    model's, p(x_{t-1} | x_t); for t = 0 minus the log probability that the model gives to x_0.

    Args:
        schedule: the noise schedule.
        x_start: clean images in [-1, 1], ``(batch, …)``.
        x_t: noisy images, same shape.
        t: the step at which they stand.
        step: the model's step back from ``x_t``, from :func:`backward_sampling.p_mean_variance`.
        levels: how many values a pixel can have.

    Returns:
        float32 ``(batch,)``, in bits per dimension (per pixel and channel).
    """
    x_start = as_float32(x_start)
    true_mean, _, true_log_variance = q_posterior_mean_variance(schedule, x_start, x_t, t)
    kl = normal_kl(true_mean, true_log_variance, step.mean, step.log_variance)
    log_likelihood = discretized_gaussian_log_likelihood(
        x_start, step.mean, 0.5 * step.log_variance, levels
    )
    at_last_step = ops.convert_to_tensor(t) == 0
    return ops.where(at_last_step, -mean_per_image(log_likelihood), mean_per_image(kl)) / LN_2


def prior_bits_per_dim(schedule: NoiseSchedule, x_start: Any) -> Any:
    """Compute what it costs that x_T is not quite pure noise: L_T, a KL divergence (Eq. 5).

    Returns float32 ``(batch,)``, in bits per dimension. No network has a part in it.
    """
    x_start = as_float32(x_start)
    last = np.full(x_start.shape[0], len(schedule) - 1, dtype="int32")
    mean, _ = q_mean_variance(schedule, x_start, last)
    log_variance = float(np.log1p(-schedule.alphas_cumprod[-1]))  # float32 has too few digits
    return mean_per_image(normal_kl(mean, log_variance, 0.0, 0.0)) / LN_2


class BitsPerDim(NamedTuple):
    """The variational bound of some images, in bits per dimension; float32 NumPy arrays."""

    total: np.ndarray  # (n,), prior and all terms together
    terms: np.ndarray  # (n, T), L_t for each t
    prior: np.ndarray  # (n,), L_T
    x_start_errors: np.ndarray  # (n, T), mean squared error of the guessed clean image for each t


def bits_per_dim(
    denoise: Any,
    schedule: NoiseSchedule,
    images: Any,
    *,
    seed: Any = None,
    batch_size: int = BLOCK,
    levels: int = 256,
    progress: bool = False,
    variance: str | None = None,
    labels: Any = None,
) -> BitsPerDim:
    """Bound how many bits the model needs to store each image: all terms of Eq. 5, added up.

    One noisy version is drawn for each image and t. Below SMALLEST_PROBABILITY, L_0 is cut off.

    Args:
        denoise, schedule: whether clean images are clipped is the denoise function's own affair.
        images: clean images in [-1, 1], ``(n, …)``, whose values lie on ``levels`` levels.
        seed: makes the result repeatable.
        batch_size: how many images at a time, which changes nothing but the memory it takes.
        levels, progress: how many values a pixel can have; whether to show a bar.
        variance: as for ``p_mean_variance``: None takes the denoise function's own.
        labels: what ``denoise`` is told of each image, ``(n, …)``; None for nothing.

    Raises TypeError or ValueError if a pixel is on none of the levels, or a number cannot be.
    """
    levels = integer("levels", levels, 2, MOST_PIXEL_LEVELS)
    images, batch_size = _checked_levels(images, levels), integer("batch_size", batch_size, 1)
    told, starts = _checked_labels(labels, images), range(0, len(images), batch_size)
    bar = keras.utils.Progbar(len(starts) * len(schedule)) if progress else None
    noise = NoiseInBlocks(len(images), len(schedule), seed)
    parts = []
    for start in starts:
        batch, columns = images[start : start + batch_size], []
        drawn = (noise.draw(t, start, batch.shape) for t in range(len(schedule)))
        asked = telling(denoise, [x[start : start + batch_size] for x in told])
        for column in _terms_and_errors(asked, schedule, batch, drawn, levels, variance):
            columns.append(column)
            if bar:
                bar.add(1)
        terms, errors = np.stack(columns, axis=-1)  # each (batch, T)
        parts.append((terms, ops.convert_to_numpy(prior_bits_per_dim(schedule, batch)), errors))
    terms, prior, errors = (np.concatenate(part) for part in zip(*parts, strict=True))
    return BitsPerDim(prior + terms.sum(axis=1), terms, prior, errors)


def _terms_and_errors(
    denoise: Any, schedule: NoiseSchedule, x_start: Any, noises: Any, levels: int, variance: Any
) -> Iterator[np.ndarray]:
    """For t = 0, 1, … L_t and the error of the guessed clean image, each ``(2, batch)``."""
    for t, noise in enumerate(noises):
        step = np.full(len(x_start), t, dtype="int32")
        x_t = q_sample(schedule, x_start, step, noise)
        back = p_mean_variance(denoise, schedule, x_t, step, variance)
        term = variational_bound_terms(schedule, x_start, x_t, step, back, levels)
        both = ops.stack([term, squared_error(back.x_start, x_start)])
        yield ops.convert_to_numpy(ops.stop_gradient(both))


def _checked_labels(labels: Any, images: np.ndarray) -> list[Any]:
    """What a denoise function is told of the images, if anything."""
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"there are {len(labels)} labels of {len(images)} images. Pass one each.")
    return [] if labels is None else [labels]


def _checked_levels(images: Any, levels: int) -> np.ndarray:
    images = np.asarray(ops.convert_to_numpy(images))
    if not images.size or images.dtype.kind not in "fiu":
        raise ValueError(
            f"images have shape {images.shape} and are of type {images.dtype}: there must be at "
            "least one image, of float32 numbers."
        )
    images = images.astype("float32", copy=False)
    for start in range(0, len(images), BLOCK):
        some = images[start : start + BLOCK]
        steps = (some + 1) / 2 * (levels - 1)
        wrong = some[~(np.abs(steps - np.round(steps)) < 0.01) | (np.abs(some) > 1 + 1e-6)]
        if wrong.size:
            raise ValueError(
                f"a pixel has the value {wrong[0]}, which is none of the {levels} levels from -1 "
                "to 1; bits count how likely a level is. Pass the images as they were stored, "
                "scaled but not resized, and their number of levels: levels=256 for photographs, "
                "17 for the digits."
            )
    return images


def mark(
    answer: Any,
    schedule: NoiseSchedule,
    x_start: Any,
    x_t: Any,
    t: Any,
    noise: Any,
    rules: DiffusionParameters,
) -> Any:
    """Mark what a network has answered, for each image: Eq. 14, or a term of the bound (Eq. 5).

    Args:
        answer: what the network predicts, ``(batch, …)``; with twice the channels where the
            variance is learned.
        schedule: the noise schedule.
        x_start: the clean images in [-1, 1], ``(batch, …)``.
        x_t: the noisy images, same shape.
        t: int32 ``(batch,)``.
        noise: the noise in them, same shape.
        rules: their ``prediction`` says what was asked for; ``loss`` whether it is marked by the
            mean squared error (``"mse"``) or by L_t in bits (``"kl"``), with their ``variance`` and
            ``pixel_levels``.

    Returns:
        float32 ``(batch,)``; nothing is clipped.

    Raises:
        ValueError: if the answer has another shape than what was asked for.
    """
    if rules.loss == "mse":
        target = PREDICTIONS[rules.prediction].target(schedule, x_start, noise, x_t, t)
        return squared_error(answer, target)

    def already_answered(*shown: Any, training: bool = False) -> Any:
        return answer

    reading = schedule, rules.prediction, rules.variance
    step = p_mean_variance(Denoiser(already_answered, *reading, clip=False), schedule, x_t, t)
    return variational_bound_terms(schedule, x_start, x_t, t, step, rules.pixel_levels)
