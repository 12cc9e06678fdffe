"""Exercises of chapter 04: from noise to image, the loss, two bells, a lazy network, bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    show_solution as show_solution,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


def check_image_from_noise(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_t, alpha_bar, noise)`` that solves Eq. 4 for x_0."""
    x_start, noise = np.array([0.9, -0.4, 0.1]), np.array([0.5, -1.5, 2.0])
    alpha_bar = 0.64
    x_t = np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise
    without_noise = x_t - np.sqrt(1 - alpha_bar) * noise
    hints = [
        (without_noise, "The noise is gone, but the image is still shrunk: Eq. 4 multiplied it by "
         "√ᾱ, so divide by √ᾱ."),
        (x_t - noise, "The noise stands in x_t with the factor √(1−ᾱ), and the image with √ᾱ. "
         "Undo both."),
        ((x_t - (1 - alpha_bar) * noise) / np.sqrt(alpha_bar), "1−ᾱ is the variance of the noise "
         "in x_t; its size is the root, √(1−ᾱ)."),
        (without_noise / alpha_bar, "ᾱ is a share of variance. The image was multiplied by √ᾱ, so "
         "divide by the root."),
        ((x_t + np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar), "The noise was added on the "
         "way there, so it is subtracted on the way back."),
        (x_t / np.sqrt(alpha_bar) - np.sqrt(1 - alpha_bar) * noise, "Subtract first and divide "
         "then: the division by √ᾱ also takes in the noise, so brackets are needed."),
    ]  # fmt: skip
    right = "Whoever guesses the noise has guessed the image: two sides of one equation."
    return mark(call(attempt, x_t, alpha_bar, noise), x_start, hints, right)


def solution_image_from_noise(x_t: Any, alpha_bar: float, noise: Any) -> Any:
    """The clean image that the noise implies, Eq. 4 turned round."""
    return (x_t - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)


def check_simple_loss(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(guess_noise, x_start, alpha_bar, t, noise)`` that computes Eq. 14.

    ``x_start`` and ``noise`` are ``(batch, pixels)``, ``alpha_bar`` is the table ``(T,)``, ``t`` is
    ``(batch,)``; the answer is one number for each image.
    """
    alpha_bar = NoiseSchedule(make_betas("linear", 100)).alphas_cumprod
    x_start, noise = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4)) * [[[1.0]], [[2.5]]]
    t = np.array([20, 3, 50])
    signal, variance = np.sqrt(alpha_bar[t])[:, None], (1 - alpha_bar[t])[:, None]
    x_t = signal * x_start + np.sqrt(variance) * noise
    guess = _some_guess(x_t, t)
    error = noise - guess
    bare = noise - _some_guess(signal * x_start + noise, t)
    wide = noise - _some_guess(signal * x_start + variance * noise, t)
    hints = [
        (np.abs(error).mean(axis=1), "That is the mean absolute error. Its best answer is not the "
         "average but the median; Eq. 14 squares."),
        ((error**2).sum(axis=1), "That is the sum over the pixels, so a larger image would weigh "
         "more. Take the mean: then answering 0 costs 1, at any size."),
        ((error**2).mean(), "All images were averaged too. Here one number for each image is "
         "asked for: average over the pixels only, axis=1."),
        (np.sqrt((error**2).mean(axis=1)), "There is no root in Eq. 14: the mean of the squares "
         "is all."),
        (((x_start - guess) ** 2).mean(axis=1), "The guess was compared with the clean image, but "
         "the question was: which noise?"),
        (((x_t - guess) ** 2).mean(axis=1), "The guess was compared with the noisy image, but the "
         "question was: which noise?"),
        (((noise - np.clip(guess, -1, 1)) ** 2).mean(axis=1), "The guess was clipped. A third of "
         "all noise lies beyond −1 and 1, and a clipped guess gives the training nothing to learn "
         "from there."),
        ((bare**2).mean(axis=1), "The noise is too strong: in x_t it has the factor √(1−ᾱ) "
         "(Eq. 4)."),
        ((wide**2).mean(axis=1), "1−ᾱ is the variance of the noise; in x_t it has the factor "
         "√(1−ᾱ), with the root."),
    ]  # fmt: skip
    right = "Add noise, ask which noise it was, average the squares. This is all of the training."
    answer = call(attempt, _some_guess, x_start, alpha_bar, t, noise)
    return mark(answer, (error**2).mean(axis=1), hints, right)


def _some_guess(x_t: Any, t: Any) -> Any:
    """A guess of the noise that is wrong in a way no other formula imitates."""
    return 1.7 * np.asarray(x_t) - 0.01 * np.asarray(t)[:, None]


def solution_simple_loss(guess_noise: Any, x_start: Any, alpha_bar: Any, t: Any, noise: Any) -> Any:
    """The mean squared error of the guessed noise for each image, Eq. 14."""
    share = alpha_bar[t][:, None]
    x_t = np.sqrt(share) * x_start + np.sqrt(1 - share) * noise
    return ((noise - guess_noise(x_t, t)) ** 2).mean(axis=1)


def check_two_bells(attempt: Any) -> Verdict:
    """Mark KL(bell 1 ‖ bell 2): mean 1, standard deviation 2, against mean 0, deviation 1."""
    hints = [
        (_kl(0, 1, 1, 4), "The two bells changed places. KL is not symmetric: the first one is "
         "true, and its variance stands in the numerator."),
        (0.5 * (np.log(4) + 4 + 1 - 1), "The logarithm has the wrong sign: log σ²₂ − log σ²₁. With "
         "it turned, two equal bells still give 0, but others can come out negative."),
        (_kl(1, 2, 0, 1), "2 is the standard deviation. The formula wants variances: 4 and 1."),
        (2 * _kl(1, 4, 0, 1), "The factor ½ in front of the bracket is missing."),
        (0.5 * (np.log(1 / 4) + 4 + 1), "The −1 at the end is missing. Without it, two equal bells "
         "would not have distance 0."),
        (0.5 * (2 * np.log(1 / 4) + 4 + 1 - 1), "The logarithm was taken twice over: log σ² is "
         "already 2 log σ."),
        (_kl(1, 4, 0, 1) / np.log(2), "That is in bits. The course counts in nats, with the "
         "natural logarithm."),
    ]  # fmt: skip
    right = "½ (log ¼ + (4 + 1) / 1 − 1). A bell believed too narrow is expensive: see the 4."
    return mark(attempt, _kl(1, 4, 0, 1), hints, right, tolerance=4e-3)


def _kl(mean_1: float, variance_1: float, mean_2: float, variance_2: float) -> float:
    ratio = variance_1 / variance_2
    return 0.5 * (-np.log(ratio) + ratio + (mean_1 - mean_2) ** 2 / variance_2 - 1)


def solution_two_bells() -> float:
    """KL(N(1, 2²) ‖ N(0, 1)) in nats."""
    return 0.5 * (np.log(1) - np.log(4) + (4 + (1 - 0) ** 2) / 1 - 1)


def check_lazy_network(attempt: Any) -> Verdict:
    """Mark the loss of a network that answers x_t itself, where ᾱ = 0.36 and E[x_0²] = 0.5."""
    hints = [
        (1.0, "That is the loss of answering 0. This network answers x_t, which does hold the "
         "noise, with the factor √(1−ᾱ) = 0.8."),
        (0.18, "That is what the image in the answer costs, ᾱ · 0.5. But the noise is in the "
         "answer with the factor 0.8 only: 0.2 of it is still missing."),
        (0.04, "That is what is missing of the noise, (1 − 0.8)². The image that stands in the "
         "answer is wrong too, and costs ᾱ · 0.5."),
        (0.18 + 0.64, "0.8 is what the answer holds of the noise. What is wrong is the rest, "
         "1 − 0.8."),
        (0.18 + 0.2, "What is missing of the noise is 0.2 of it, and its square counts."),
        (0.6 * 0.5 + 0.04, "The image has the factor √ᾱ = 0.6 in x_t, and its square counts: "
         "0.36 · 0.5."),
        (0.36 + 0.04, "The image has a mean square of 0.5, not 1."),
        (0.18 + 0.64**2, "The factor of the noise is √(1−ᾱ) = 0.8, not 1−ᾱ = 0.64."),
        (0.18 + 0.36**2, "The factor of the noise is √(1−ᾱ) = 0.8, not 1−ᾱ = 0.64."),
    ]  # fmt: skip
    right = (
        "0.36 · 0.5 + 0.2². Nothing was learned and the loss looks fine: at large t, x_t almost "
        "is the noise. So judge a loss against a baseline at the same t."
    )
    return mark(attempt, 0.22, hints, right, tolerance=2e-3)


solution_lazy_network = 0.22


def check_level_probabilities(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(levels, mean, spread, area)`` that computes Eq. 13 for each level.

    ``levels`` are evenly spaced from -1 to 1, ``area(z)`` is the area under the standard bell to
    the left of z; the answer is the probability of each level.
    """
    levels, mean, spread, half = np.linspace(-1, 1, 9), 0.4, 0.5, 0.125
    expected, bounded = _bins(levels, mean, spread, half)
    density = np.exp(-(((levels - mean) / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi))
    hints = [
        (bounded, "All bins in between are right. The two outermost reach to infinity, or what "
         "lies beyond −1 and 1 would belong to no level and the sum would be below 1."),
        (density * 2 * half, "Density times width is only nearly the area, and worse the narrower "
         "the bell. Take the area left of the upper edge minus that left of the lower one."),
        (density, "That is the density. A probability is an area: from half a step below the level "
         "to half a step above."),
        (ndtr((levels + half - mean) / spread), "That is the area to the left of the bin's upper "
         "edge. Subtract what lies to the left of its lower edge."),
        (-expected, "The two areas are subtracted the wrong way round: a probability is positive."),
        (np.log(expected), "That is the logarithm already. Here the probability itself is asked "
         "for."),
    ]  # fmt: skip
    slips = [
        ((spread, 2 * half), "The bins overlap: each reaches a whole step to both sides. It is "
         "half a step."),
        ((spread**2, half), "Divided by the variance: area(z) wants distances in units of the "
         "spread."),
        ((1.0, half), "The edges must be divided by the spread: area(z) belongs to a bell of "
         "spread 1."),
    ]  # fmt: skip
    for slip, hint in slips:
        ends_right, ends_wrong = _bins(levels, mean, *slip)
        both = hint + " And the outermost bins reach to infinity."
        hints += [(ends_right, hint), (ends_wrong, both)]
    right = "They add up to 1: an image made of levels has a probability, and so it has bits."
    return mark(call(attempt, levels, mean, spread, ndtr), expected, hints, right)


def _bins(levels: Any, mean: float, spread: float, half: float) -> tuple[Any, Any]:
    """The area of each level's bin: with the outermost reaching to infinity, and without."""
    upper, lower = ndtr((levels + half - mean) / spread), ndtr((levels - half - mean) / spread)
    bounded = upper - lower
    endless = bounded.copy()
    endless[0], endless[-1] = upper[0], 1 - lower[-1]
    return endless, bounded


def solution_level_probabilities(levels: Any, mean: float, spread: float, area: Any) -> Any:
    """The probability that a bell gives to each level, Eq. 13."""
    half = (levels[1] - levels[0]) / 2
    left_of_upper_edge = area((levels + half - mean) / spread)
    left_of_upper_edge[-1] = 1.0  # the last bin reaches to infinity
    return np.diff(left_of_upper_edge, prepend=0.0)  # and so does the first


def check_bits(attempt: Any) -> Verdict:
    """Mark 150 nats for an image of 8 by 8 pixels, in bits per dimension."""
    hints = [
        (150 / 64, "That is nats per pixel. A bit is log 2 = 0.693 nats, so there are more bits "
         "than nats."),
        (150 / 64 * np.log(2), "Multiplied in the place of divided: a nat is 1.44 bits, so there "
         "are more bits than nats."),
        (150 / np.log(2), "These are the bits of the whole image. Per dimension means for each of "
         "its 64 pixels."),
        (150 / 8 / np.log(2), "An image of 8 by 8 has 64 pixels, not 8."),
        (150 / 64 / np.log(10), "That is the logarithm to base 10. Bits count in powers of 2."),
        (150 / 64 / np.log(17), "The number of levels does not enter: a bit is a bit, whatever the "
         "pixel can hold. It only says what knowing nothing costs, log₂ 17."),
    ]  # fmt: skip
    right = "150 / 64 / log 2. Less than the 4.09 of knowing nothing, so something was learned."
    return mark(attempt, 150 / 64 / np.log(2), hints, right, tolerance=2e-3)


def solution_bits() -> float:
    """150 nats for 64 pixels, in bits per dimension."""
    return 150 / 64 / np.log(2)
