"""Exercises of chapter 02: what a list of β can do, and β from a wanted ᾱ.

Those from :func:`check_posterior_variance` on belong to page 02b, which goes deeper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
    same_numbers,
    show_solution as show_solution,
)
from diffusion_walkthrough.noise_schedule import LARGEST_BETA


def check_alpha_bar(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(betas)`` that computes ᾱ at every step, both of shape (T,)."""
    betas = np.array([0.1, 0.2, 0.15, 0.4, 0.3])
    kept = np.cumprod(1 - betas)
    hints = [
        (np.cumprod(betas), "That multiplies what each step adds. What is left of the image is "
         "the product of what each step keeps, 1 − β."),
        (1 - betas, "That is α, what each step keeps on its own. ᾱ is the product of all α so "
         "far."),
        (1 - np.cumsum(betas), "The shares do not add up: each step takes its share of what is "
         "still there. Multiply instead of adding."),
        (1 - np.cumprod(betas), "The product must be over 1 − β: take 1 − β first, and multiply "
         "then."),
        (np.append(1.0, kept[:-1]), "That is ᾱ one step earlier. At index 0, one step of noise "
         "has already been added."),
        (np.sqrt(kept), "That is √ᾱ, the factor of the image. ᾱ itself is the share of its "
         "variance."),
        (1 - kept, "That is the share of the noise. ᾱ is the share of the image."),
        (np.prod(1 - betas), "That is ᾱ after the last step only. np.cumprod keeps the product "
         "at every step on its way."),
    ]  # fmt: skip
    right = "One line, and every other table follows from it."
    return mark(call(attempt, betas), kept, hints, right)


def solution_alpha_bar(betas: Any) -> Any:
    """Compute ᾱ, the share of the image's variance left after each step."""
    return np.cumprod(1 - betas)


def check_impossible_strip(attempt: Any) -> Verdict:
    """Mark which of the strips a to d no schedule can make (ᾱ is a product of α, Eq. 4)."""
    right = (
        "Each step multiplies ᾱ by a number below 1, so the digit can only fade. Strip b has less "
        "of it at the third place than at the fourth."
    )
    replies = {
        "a": "That is what one huge β at the start does: the digit is lost at once, and the "
        "rest only stirs. "
        "Wasteful, but a schedule. Ask what ᾱ can never do from one place to the next.",
        "c": "This one never gets to noise: few steps with β meant for many. A poor schedule is "
        "still one. Ask what ᾱ can never do from one place to the next.",
        "d": "That is the cosine schedule, which fades slowly and ends in noise. Ask what ᾱ can "
        "never do from one place to the next.",
    }
    return mark_choice(attempt, right="b", message=right, replies=replies)


solution_impossible_strip = "b"


def check_quarter_of_the_steps(attempt: Any) -> Verdict:
    """Mark what becomes of the signal left, 0.006, with 250 steps in place of 1000."""
    right = (
        "A quarter of the β sum up to a quarter, and e^(−sum/2) with a quarter of the exponent is "
        "the fourth root: 0.0064 becomes 0.28."
    )
    replies = {
        "a": "β ends in the same place, but what counts is how much all steps add up to, and "
        "there are fewer of them. What happens to the sum of β?",
        "b": "The sum of β is indeed a quarter. But it stands in an exponent, e^(−sum/2): a "
        "quarter of the exponent is not four times the number.",
        "d": "Fewer steps with the same β add less noise, not more, so more of the image must be "
        "left.",
    }
    return mark_choice(attempt, right="c", message=right, replies=replies)


solution_quarter_of_the_steps = "c"


def check_colour_batch(attempt: Any) -> Verdict:
    """Mark what factors of shape (3,) do to a batch of shape (3, 32, 32, 3)."""
    right = (
        "The factors of the three images meet the three colours, since NumPy lines up the last "
        "axes. The shape is right, so nothing warns you: with 4 photographs it would be an error. "
        "extract makes the shape (3, 1, 1, 1)."
    )
    replies = {
        "a": "An error needs two lengths that do not fit. Which axis of the batch does NumPy "
        "compare with the 3 factors, the first or the last?",
        "b": "That is what we want. But NumPy lines up the last axes first; which axis is that "
        "here?",
        "c": "That happened with grey images, whose last axis has length 1 and is stretched. How "
        "long is the last axis here?",
    }
    return mark_choice(attempt, right="d", message=right, replies=replies)


solution_colour_batch = "d"


def check_betas_from_alpha_bar(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(alpha_bar)`` that computes the β that lead to it, both of shape (T,)."""
    betas = np.array([0.1, 0.2, 0.15, 0.4, 1.0])  # the last deletes the image, as in jsd
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    hints = [
        (betas[1:], "One β is missing, that of the first step: before it, ᾱ is 1. Put the 1 in "
         "front of the table with np.append(1, …)."),
        (kept / before, "That is α, what each step keeps. β is what is missing to 1."),
        (1 - kept, "That is the noise of all steps so far. A single step keeps the ratio of two "
         "neighbours."),
        (before - kept, "That is the share of the *first* image that the step takes away. β is "
         "its share of what is still there: divide by ᾱ one step earlier."),
        (np.append(0.0, betas[1:]), "The first step adds noise too: before it, ᾱ is 1, not ᾱ "
         "of the first step."),
        (np.append(betas[1:], 0.0), "Off by one: β at t leads from ᾱ at t − 1 to ᾱ at t, and "
         "before the first step ᾱ is 1."),
        (1 - np.sqrt(kept / before), "β is a variance, and so is ᾱ: no root is needed."),
    ]  # fmt: skip
    right = (
        "Any falling curve becomes a schedule: the squared cosine gives Nichol and Dhariwal's, an "
        "even fall to 0 gives 1/T, 1/(T−1), …, 1, the schedule jsd of page 02b."
    )
    with np.errstate(all="ignore"):  # a slip may divide by zero: the hint says more
        answer = call(attempt, kept)
    clipped = np.minimum(betas, LARGEST_BETA)  # as make_betas does with the cosine schedule
    expected = clipped if same_numbers(answer, clipped) else betas
    return mark(answer, expected, hints, right)


def solution_betas_from_alpha_bar(alpha_bar: Any) -> Any:
    """Compute the variance that each step must add, so that the wanted ᾱ comes out."""
    before = np.append(1.0, alpha_bar[:-1])
    return 1 - alpha_bar / before


def check_posterior_variance(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(betas)`` that computes β̃ at every step (Eq. 7), both of shape (T,)."""
    betas = np.array([0.1, 0.2, 0.15, 0.4, 0.3])
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    expected = betas * (1 - before) / (1 - kept)
    hints = [
        (np.sqrt(expected), "That is the standard deviation of the step back. Its variance is "
         "the square of it."),
        (betas, "That is the noise of the step forward. With x_0 known, less is open: β is "
         "multiplied with (1 − ᾱ one step earlier) / (1 − ᾱ)."),
        (betas * (1 - kept) / (1 - np.append(kept[1:], kept[-1])), "Off by one: the numerator "
         "has ᾱ one step earlier than t, the denominator has ᾱ at t."),
        (betas * before / kept, "The shares of noise belong there, 1 − ᾱ, not those of the "
         "image."),
        (betas * np.sqrt((1 - before) / (1 - kept)), "These are variances: their ratio takes no "
         "root."),
        (np.append(betas[0], expected[1:]), "The first entry is not β: at t = 0, x_0 is known and "
         "is where the step leads, so nothing is open and the variance is 0."),
    ]  # fmt: skip
    right = "Zero at the first step, and nearly β far out, where x_0 tells little."
    with np.errstate(all="ignore"):  # a slip may divide by zero: the hint says more
        return mark(call(attempt, betas), expected, hints, right)


def solution_posterior_variance(betas: Any) -> Any:
    """Compute β̃, the variance of one step back when x_0 is known, Eq. 7."""
    alpha_bar = np.cumprod(1 - betas)
    before = np.append(1.0, alpha_bar[:-1])
    return betas * (1 - before) / (1 - alpha_bar)


def check_block_log_snr(attempt: Any) -> Verdict:
    """Mark by how much log SNR rises from a pixel to the mean of a block of 16 by 16 pixels."""
    hints = [
        (256, "That is how many noises are averaged, and by how much their variance falls. log SNR "
         "is a logarithm."),
        (16, "By 16 the *spread* of the noise falls. SNR is a ratio of variances, and log SNR its "
         "logarithm."),
        (np.log(16), "You took the logarithm of 16, by which the spread falls. SNR is a ratio of "
         "variances."),
        (np.log(64), "That is for blocks of 8 by 8, as on the page. How many pixels has a block of "
         "16 by 16?"),
        (-np.log(256), "The right size. But averaging takes noise away: does the ratio of signal "
         "to noise rise or fall?"),
        (8, "That is the logarithm to base 2. log SNR is the natural one: each unit is a factor of "
         "e."),
        (np.log10(256), "That is the logarithm to base 10. log SNR is the natural one: each unit "
         "is a factor of e."),
    ]  # fmt: skip
    right = (
        "Each doubling of width and height is worth log 4 ≈ 1.4. To hide as much as in a picture "
        "of 16 by 16, one of 256 by 256 needs a log SNR that is lower by 5.5."
    )
    return mark(attempt, np.log(256), hints, right, tolerance=1.2e-2)


solution_block_log_snr = 5.545
steps_block_log_snr = "how many pixels are averaged; by what their noise's variance falls; its log."


def check_trace(attempt: Any) -> Verdict:
    """Mark what mends a model that was trained with a signal of 0.78 left at T."""
    right = (
        "The network is right about what it was shown. What it was shown at T was never pure "
        "noise, so the schedule has to change, before the training."
    )
    replies = {
        "a": "A network trained for longer comes closer to the best guess. The best guess itself "
        "used the trace in our experiment.",
        "b": "A larger network comes closer to the best guess. The best guess itself used the "
        "trace in our experiment.",
        "d": "Other seeds are other draws from the same bell. None of them holds a trace of an "
        "image, as all last steps in the training did.",
    }
    return mark_choice(attempt, right="c", message=right, replies=replies)


solution_trace = "c"


def check_back_from_nothing(attempt: Any) -> Verdict:
    """Mark which answer leads back from ᾱ = 0 (Eq. 4 with √ᾱ = 0)."""
    right = (
        "There the noisy image *is* the noise: to name it is easy and says nothing. The best guess "
        "of the image is the mean of all images, which is at least a place to go on from."
    )
    replies = {
        "a": "With ᾱ = 0, Eq. 4 says that x_t is the noise, so to name it is easy. How would you "
        "work out the image from it? Solve Eq. 4 for x_0 and look what you divide by.",
        "c": "From one answer the other follows by Eq. 4, as long as √ᾱ is not 0. What if it is?",
        "d": "x_t says nothing about the image there. But there still is a best guess if nothing "
        "is known: which?",
    }
    return mark_choice(attempt, right="b", message=right, replies=replies)


solution_back_from_nothing = "b"
