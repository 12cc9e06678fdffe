"""Exercises of chapter 02: ᾱ, the signal left, β for few steps, β̃, and β from a wanted ᾱ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    show_solution as show_solution,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


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


def check_signal_left(attempt: Any) -> Verdict:
    """Mark the signal left after 100 steps with β from 0.0001 to 0.02, not scaled."""
    raw = NoiseSchedule(make_betas("linear", 100, scaled=False))
    hints = [
        (raw.alphas_cumprod[-1], "That is ᾱ, the share of the variance. The image itself is "
         "multiplied by its root."),
        (NoiseSchedule(make_betas("linear", 100)).signal_left, "That is left by the scaled "
         "schedule, or by a thousand steps. This person did not scale: pass scaled=False to "
         "make_betas."),
        (raw.sqrt_one_minus_alphas_cumprod[-1], "That is the factor of the noise at the last "
         "step, √(1−ᾱ). The question is about the image, √ᾱ."),
        (np.sqrt(1 - 0.02), "That is what the last step alone keeps. The steps before it count "
         "too: their factors multiply."),
    ]  # fmt: skip
    right = "Six tenths of the image are still in what should be pure noise."
    return mark(attempt, raw.signal_left, hints, right, tolerance=2.5e-3)


solution_signal_left = 0.603


def check_linear_betas(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(timesteps)`` that computes the scaled, clipped linear β, shape (T,)."""
    steps = 16  # few enough for the last β to need clipping
    raw = np.linspace(1e-4, 0.02, steps)
    scale = 1000 / steps
    expected = np.minimum(scale * raw, 0.999)
    hints = [
        (raw, "Not scaled: in a sixtieth of the steps this adds a sixtieth of the noise. Each "
         "step must add 1000/T times as much."),
        (raw / scale, "Scaled the wrong way round: fewer steps must each add more, so multiply "
         "by 1000/T."),
        (scale * raw, "Scaled rightly, but with few steps the last β reaches 1 and more, and a "
         "variance above 1 cannot be made room for. Clip with np.minimum(…, 0.999)."),
        (np.linspace(1e-4, min(scale * 0.02, 0.999), steps), "Only the end is scaled. The sum of "
         "all β must stay, so scale the start as well."),
        (np.linspace(scale * 1e-4, 0.999, steps), "Here the end was clipped before the line was "
         "drawn, so all β in between are too small. Draw the line first, and clip then."),
        (np.minimum(np.sqrt(scale) * raw, 0.999), "β is a variance already: its sum counts, so "
         "scale it by 1000/T and not by the root."),
    ]  # fmt: skip
    right = "The sum of all β stays the same, and so does the end, down to some twenty steps."
    return mark(call(attempt, steps), expected, hints, right)


def solution_linear_betas(timesteps: int) -> Any:
    """Compute linear β that add the same noise in all, whatever the number of steps."""
    return np.minimum(1000 / timesteps * np.linspace(0.0001, 0.02, timesteps), 0.999)


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
        "Any falling curve becomes a schedule. An even fall to 0 gives 1/T, 1/(T−1), …, 1, the jsd "
        "schedule; the squared cosine gives Nichol and Dhariwal's."
    )
    with np.errstate(all="ignore"):  # a slip may divide by zero: the hint says more
        return mark(call(attempt, kept), betas, hints, right)


def solution_betas_from_alpha_bar(alpha_bar: Any) -> Any:
    """Compute the variance that each step must add, so that the wanted ᾱ comes out."""
    before = np.append(1.0, alpha_bar[:-1])
    return 1 - alpha_bar / before
