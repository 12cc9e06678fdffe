"""Exercises of chapters 04 (what to ask, how to mark it) and 04b (bells, the bound, bits)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
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
    parts = {"x_t": x_t, "the noise": noise}
    return mark(call(attempt, x_t, alpha_bar, noise), x_start, hints, right, parts=parts)


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
        *_mixing_hints(x_start, noise, t, signal, variance),
        ((wide**2).mean(axis=1), "1−ᾱ is the variance of the noise; in x_t it has the factor "
         "√(1−ᾱ), with the root."),
    ]  # fmt: skip
    right = "Add noise, ask which noise it was, average the squares. This is all of the training."
    answer = call(attempt, _some_guess, x_start, alpha_bar, t, noise)
    return mark(answer, (error**2).mean(axis=1), hints, right)


def _mixing_hints(
    x_start: Any, noise: Any, t: Any, signal: Any, variance: Any
) -> list[tuple[Any, str]]:
    """Foreseen mistakes in the noisy image that is shown, and in the sign of the guess."""
    rate = np.sqrt(variance)
    shown = [
        (x_start + rate * noise, "The image is not dimmed: in x_t it has the factor √ᾱ (Eq. 4)."),
        (signal**2 * x_start + rate * noise, "ᾱ is a share of variance: in x_t the image has the "
         "factor √ᾱ, with the root."),
        (signal**2 * x_start + variance * noise, "ᾱ and 1−ᾱ are shares of variance: in x_t image "
         "and noise take their roots."),
        (rate * x_start + signal * noise, "The two factors have changed places: ᾱ near 1 means "
         "hardly any noise."),
        (x_start, "The network was shown the clean image. It has to find the noise in x_t."),
    ]  # fmt: skip
    hints = [(((noise - _some_guess(x, t)) ** 2).mean(axis=1), hint) for x, hint in shown]
    guess = _some_guess(signal * x_start + rate * noise, t)
    return [
        *hints,
        (((noise + guess) ** 2).mean(axis=1), "The guess is added. How far it is from the noise is "
         "their difference."),
        ((noise - guess).mean(axis=1) ** 2, "Square first, then average: otherwise errors of "
         "opposite sign cancel."),
    ]  # fmt: skip


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
        (2.0, "The logarithm of the two variances is missing: ½ (4 + 1 − 1) is what is left."),
        (_kl(0, 4, 0, 1), "The distance of the two means is missing: its square counts too."),
        (0.5 * (np.log10(1 / 4) + 4 + 1 - 1), "That is the logarithm to base 10. The course counts "
         "in nats, with the natural logarithm."),
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
steps_lazy_network = (
    "what the image in the answer costs, ᾱ · 0.5, and what is missing of the noise, squared."
)


def check_other_noise(attempt: Any) -> Verdict:
    """Mark the letter: what is learned if Eq. 14 compares with fresh noise, not that in x_t?"""
    replies = {
        "a": "Nothing rewards that any more: a perfect guess of the noise in x_t would now cost 2, "
        "its own mean square and that of the fresh noise.",
        "c": "Such answers cost 2: their mean square and that of the noise add up. A single answer "
        "that lies in the middle of all noises is cheaper.",
        "d": "Whatever the answer, the variance of the fresh noise is left over, and it is 1.",
    }
    message = (
        "What it sees says nothing about fresh noise, so the best guess is the average of all "
        "noise, 0. The program runs without an error, and the loss stands at 1."
    )
    return mark_choice(attempt, "b", message, replies)


solution_other_noise = "b"


def check_nothing_to_remove(attempt: Any) -> Verdict:
    """Mark the letter: where does one stand if the best guess of the noise is 0?"""
    replies = {
        "a": "Look at the arrows again: in the middle between two heaps, far from every clean "
        "number, the guess is 0 too.",
        "c": "Far out the density is low, but its logarithm is steep: what stands there was "
        "carried there by much noise, and the guess says so.",
        "d": "There is noise in x_t, but it may have come from either side. The guess is an "
        "average, and an average can be 0.",
    }
    message = (
        "The guess is the slope of log q, up to a factor, and a top or the bottom of a valley is "
        "level. On the top one would stay; in the valley the next bit of noise decides."
    )
    return mark_choice(attempt, "b", message, replies)


solution_nothing_to_remove = "b"


def check_which_network(attempt: Any) -> Verdict:
    """Mark the letter: of two trainings, which one draws digits that nobody wrote?"""
    replies = {
        "a": "A is good on what it has seen and nearly as bad as silence on what it has not: it "
        "is learning its images by heart.",
        "c": "B guesses new images as well as old ones, so it does not know its images one by one.",
        "d": "It would show it too, only fainter, since at large t all of them are good. What is "
        "given here is enough.",
    }
    message = (
        "B has the higher loss on the training images, and is the better model: what it knows also "
        "holds for images that it never saw."
    )
    return mark_choice(attempt, "b", message, replies)


solution_which_network = "b"


def check_true_bell(attempt: Any) -> Verdict:
    """Mark the letter: when is the true step back exactly a bell, whatever the data?"""
    replies = {
        "a": "The step forward is a bell. Backwards it also counts where noisy numbers are found "
        "at all, and these form heaps: with ten steps you saw it.",
        "b": "Then it is nearly one: the distance from a bell sank with T, but not to 0.",
        "d": "It is one if the clean number is known as well: Eqs. 6 and 7 multiply two bells.",
    }
    message = (
        "That is why the terms of the bound are easy: with x_0 given, the true step is a bell, "
        "and two bells are compared."
    )
    return mark_choice(attempt, "c", message, replies)


solution_true_bell = "c"


def check_gap(attempt: Any) -> Verdict:
    """Mark the letter: what brings a bound with perfect guesses and widths nearer to the truth?"""
    replies = {
        "a": "No network guesses better than the exact average, which is used here already.",
        "b": "Nothing is trained here: the guesses come from a formula, and they are perfect.",
        "d": "The exact width is the best that a bell can have. β is the width for other data.",
    }
    message = (
        "With short steps the true step back is nearly a bell. What is left over is what a bell "
        "cannot be: two humps."
    )
    return mark_choice(attempt, "c", message, replies)


solution_gap = "c"


def check_better_bits(attempt: Any) -> Verdict:
    """Mark the letter: of two models, do bits per dimension say whose pictures look better?"""
    replies = {
        "a": "Two fifths of the bits pay for the last grey levels, which no eye sees. A may be "
        "ahead there and nowhere else.",
        "b": "More bits are no merit either. B may have lost them where one sees it.",
        "d": "The same T makes the bounds alike, but the bits are still spent on what no eye sees.",
    }
    message = (
        "Bits judge every last grey level, an eye judges shapes. A table of grey levels has nearly "
        "the network's bits and cannot draw, and the memorizer has excellent bits on what it has "
        "seen."
    )
    return mark_choice(attempt, "c", message, replies)


solution_better_bits = "c"


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
        ((1 / spread, half), "Multiplied by the spread: a distance in units of the spread is "
         "divided by it."),
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
    return mark(attempt, 150 / 64 / np.log(2), hints, right, tolerance=4.5e-3)  # so 3.4 is right


def solution_bits() -> float:
    """150 nats for 64 pixels, in bits per dimension."""
    return 150 / 64 / np.log(2)
