"""Exercises of chapter 01: one step of noise, many steps, and half-way."""

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


def check_one_step(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_prev, beta, noise)`` that takes one step of noise (Eq. 2)."""
    x_prev, noise, beta = np.array([1.0, -0.5, 0.25]), np.array([0.3, -1.2, 2.0]), 0.19
    answer = call(attempt, x_prev, beta, noise)
    shrunk = np.sqrt(1 - beta) * x_prev
    hints = [
        (shrunk + beta * noise, "β is the variance of the noise. Noise of variance β is √β times "
         "standard noise; β itself would make it far too weak."),
        (x_prev + np.sqrt(beta) * noise, "The image is not shrunk. Then the variance grows with "
         "every step; √(1−β) makes room for the noise that comes in."),
        ((1 - beta) * x_prev + np.sqrt(beta) * noise, "The image is shrunk by 1−β. That is what "
         "its variance is multiplied with, so the image itself takes √(1−β)."),
        ((1 - beta) * x_prev + beta * noise, "These weights add up to 1, but it is the variances "
         "that must: take the root of both weights."),
    ]  # fmt: skip
    right = "Variance 1−β of the old plus variance β of the new: the total stays where it was."
    return mark(answer, shrunk + np.sqrt(beta) * noise, hints, right)


def solution_one_step(x_prev: Any, beta: float, noise: Any) -> Any:
    """One step of noise, Eq. 2."""
    return np.sqrt(1 - beta) * x_prev + np.sqrt(beta) * noise


def check_two_steps(attempt: Any) -> Verdict:
    """Mark the factor of the image that is left after two steps, β = 0.19 and then 0.36."""
    hints = [
        (0.81 * 0.64, "That is ᾱ, what is left of the variance. The image itself is multiplied "
         "by its root."),
        (1 - (0.19 + 0.36), "The shares of noise do not add up: the second step also covers part "
         "of the first one's noise. Multiply what is kept."),
        (np.sqrt(1 - (0.19 + 0.36)), "The shares of noise do not add up: multiply what each step "
         "keeps, 1−β, and then take the root."),
        (np.sqrt(1 - 0.81 * 0.64), "That is the factor of the noise. The question is about the "
         "image."),
    ]  # fmt: skip
    right = "√0.81 · √0.64 = 0.9 · 0.8. Many steps are one step: their factors multiply."
    return mark(attempt, 0.72, hints, right, tolerance=2e-3)


solution_two_steps = 0.72


def check_jump(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_start, betas, t, noise)`` that jumps to step t (Eq. 4).

    ``x_start`` and ``noise`` are ``(batch, pixels)``, ``t`` is ``(batch,)``.
    """
    betas = make_betas("linear", 100)
    x_start, noise = np.random.default_rng(0).standard_normal((2, 3, 4))
    t = np.array([50, 3, 20])
    cumprod = NoiseSchedule(betas).alphas_cumprod

    def jump(alpha_bar: Any) -> Any:
        alpha_bar = np.asarray(alpha_bar)[:, None]
        return np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise

    alpha_bar = cumprod[t][:, None]
    hints = [
        (jump(cumprod[t - 1]), "ᾱ is off by one: index t already counts from 0, so ᾱ at t "
         "contains t + 1 factors."),
        (jump((1 - betas)[t]), "α at t is a single step. Jumping needs the product of all the "
         "steps before it too: ᾱ, np.cumprod(1 - betas)."),
        (jump(np.cumprod((1 - betas)[t])), "The product runs over the batch: it multiplies one "
         "image's α with another's. Take cumprod over all steps first, then look up t."),
        (np.sqrt(alpha_bar) * x_start + (1 - alpha_bar) * noise, "1−ᾱ is the variance of the "
         "noise; the noise takes its root."),
    ]  # fmt: skip
    right = "From the clean image to any step in one go, each image of the batch at its own step."
    return mark(call(attempt, x_start, betas, t, noise), jump(cumprod[t]), hints, right)


def solution_jump(x_start: Any, betas: Any, t: Any, noise: Any) -> Any:
    """Many steps of noise at once, Eq. 4."""
    alpha_bar = np.cumprod(1 - betas)[t][:, None]
    return np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise


def check_half_way(attempt: Any) -> Verdict:
    """Mark the first t at which half of the variance is noise (linear schedule, T = 1000)."""
    schedule = NoiseSchedule(make_betas("linear", 1000))
    half = int(np.argmax(schedule.alphas_cumprod <= 0.5))
    half_rate = int(np.argmax(schedule.sqrt_alphas_cumprod <= 0.5))
    hints = [
        (500, "Half of the steps is not half of the noise: β grows, and what is kept multiplies. "
         "Look where ᾱ falls to 0.5."),
        (half_rate, "There √ᾱ is 0.5, half of the image's amplitude. Half of the variance is "
         "ᾱ = 0.5, earlier."),
        (half - 1, "Just before: ᾱ is still above 0.5 there."),
        (half + 1, "Just after: one step earlier, ᾱ is already at 0.5 or below. If you counted "
         "steps from 1, remember that t counts from 0."),
    ]  # fmt: skip
    right = "A quarter of the way, and noise already has the upper hand: no slider moves evenly."
    return mark(attempt, half, hints, right, tolerance=1e-9)


def solution_half_way() -> int:
    """The first t with ᾱ of at most one half."""
    return int(np.argmax(NoiseSchedule(make_betas("linear", 1000)).alphas_cumprod <= 0.5))
