"""Exercises of chapter 01: one step of noise, many steps, half-way, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
    show_solution as show_solution,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


def check_one_step(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_prev, beta, noise)`` that takes one step of noise (Eq. 2)."""
    x_prev, noise, beta = np.array([1.0, -0.5, 0.25]), np.array([0.3, -1.2, 2.0]), 0.19
    answer = call(attempt, x_prev, beta, noise)
    right = "Variance 1−β of the old plus variance β of the new: the total stays where it was."
    expected = solution_one_step(x_prev, beta, noise)
    parts = {"x_prev": x_prev, "the noise": noise}
    return mark(answer, expected, _one_step_hints(x_prev, beta, noise), right, parts=parts)


def _one_step_hints(x_prev: Any, beta: float, noise: Any) -> list[tuple[Any, str]]:
    shrunk, grain = np.sqrt(1 - beta) * x_prev, np.sqrt(beta) * noise
    not_shrunk = (
        "The image is not shrunk. Then the variance grows with every step; √(1−β) makes room for "
        "the noise that comes in."
    )
    return [
        (shrunk + beta * noise, "β is the variance of the noise. Noise of variance β is √β times "
         "standard noise; β itself would make it far too weak."),
        (x_prev + grain, not_shrunk),
        (x_prev + beta * noise, not_shrunk + " And is β the factor of the noise, or its variance?"),
        (x_prev + noise, not_shrunk + " And where is β?"),
        ((1 - beta) * x_prev + grain, "The image is shrunk by 1−β. That is what "
         "its variance is multiplied with, so the image itself takes √(1−β)."),
        ((1 - beta) * x_prev + beta * noise, "These weights add up to 1, but it is the variances "
         "that must: take the root of both weights."),
        (shrunk - grain, "The sign of the noise is turned. Noise is as often negative as positive, "
         "so nothing breaks; but Eq. 2 adds it, and so must whoever works it out again later."),
        (np.sqrt(beta) * x_prev + np.sqrt(1 - beta) * noise, "The two factors are exchanged: β is "
         "the share that is noise. How much of the image would a small β leave this way?"),
        (shrunk + noise, "The noise comes in at full strength. Which variance is it to have?"),
        (shrunk, "The image is shrunk, but no noise is added in its place."),
        (shrunk + np.sqrt(beta), "√β is the strength of the noise; the noise itself is missing."),
    ]  # fmt: skip


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
        (0.9, "That is the first step alone. The second shrinks what the first has left."),
        (0.8, "That is the second step alone. The first has shrunk the image before it."),
        (0.81, "That is what the first step keeps of the variance. What does the image itself "
         "keep, and what does the second step do to that?"),
        (0.64, "That is what the second step keeps of the variance. What does the image itself "
         "keep, and what had the first step done?"),
        (0.9 + 0.8, "The factors are added. The second step multiplies what the first has left."),
    ]  # fmt: skip
    right = "√0.81 · √0.64 = 0.9 · 0.8. Many steps are one step: their factors multiply."
    return mark(attempt, 0.72, hints, right, tolerance=2e-3)


solution_two_steps = 0.72
steps_two_steps = "√(1 − β) of the first step, times that of the second."


def check_jump(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_start, betas, t, noise)`` that jumps to step t (Eq. 4).

    ``x_start`` and ``noise`` are ``(batch, pixels)``, ``t`` is ``(batch,)``.
    """
    betas = make_betas("linear", 100)
    x_start, noise = np.random.default_rng(0).standard_normal((2, 3, 4))
    t = np.array([50, 3, 20])
    right = "From the clean image to any step in one go, each image of the batch at its own step."
    expected = solution_jump(x_start, betas, t, noise)
    answer = call(attempt, x_start, betas, t, noise)
    hints = _jump_hints(x_start, betas, t, noise)
    parts, places = {"x_start": x_start, "the noise": noise}, [f"t = {step}" for step in t]
    return mark(answer, expected, hints, right, parts=parts, places=places)


def _jump_hints(x_start: Any, betas: Any, t: Any, noise: Any) -> list[tuple[Any, str]]:
    cumprod = np.cumprod(1 - betas)

    def jump(share: Any) -> Any:
        column = np.asarray(share)[:, None]
        return np.sqrt(column) * x_start + np.sqrt(1 - column) * noise

    kept = cumprod[t][:, None]
    image, grain = np.sqrt(kept) * x_start, np.sqrt(1 - kept) * noise
    off_by_one = "ᾱ is off by one: index t already counts from 0, so ᾱ at t contains t + 1 factors."
    root = "ᾱ is a share of variance; the image takes its root."
    return [
        (jump(cumprod[t - 1]), off_by_one),
        (jump(cumprod[t + 1]), off_by_one),
        (jump((1 - betas)[t]), "α at t is a single step. Jumping needs the product of all the "
         "steps before it too: ᾱ, np.cumprod(1 - betas)."),
        (jump(betas[t]), "β at t is the noise of a single step. Jumping needs ᾱ, the product of "
         "1 − β over all steps so far."),
        (jump(np.cumprod(betas)[t]), "The product is to run over what is kept, 1 − β, not over β."),
        (jump(np.cumprod((1 - betas)[t])), "The product runs over the batch: it multiplies one "
         "image's α with another's. Take cumprod over all steps first, then look up t."),
        (image + (1 - kept) * noise, "1−ᾱ is the variance of the noise; the noise takes its root."),
        (kept * x_start + grain, root),
        (kept * x_start + (1 - kept) * noise, root + " So does the noise, of 1−ᾱ."),
        (x_start + grain, "The image has kept its full strength. Every step has shrunk it."),
        (image + np.sqrt(kept) * noise, "Image and noise have the same factor. What one loses, "
         "the other gains: the noise has variance 1−ᾱ."),
        (np.sqrt(1 - kept) * x_start + np.sqrt(kept) * noise, "The two factors are exchanged: ᾱ is "
         "the share of the image."),
        (image, "The image is shrunk, but no noise is added in its place."),
    ]  # fmt: skip


def solution_jump(x_start: Any, betas: Any, t: Any, noise: Any) -> Any:
    """Many steps of noise at once, Eq. 4."""
    alpha_bar = np.cumprod(1 - betas)[t][:, None]
    return np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise


def check_half_way(attempt: Any) -> Verdict:
    """Mark the first t at which half of the variance is noise (linear schedule, T = 1000)."""
    schedule = NoiseSchedule(make_betas("linear", 1000))
    half = int(np.argmax(schedule.alphas_cumprod <= 0.5))
    half_rate = int(np.argmax(schedule.sqrt_alphas_cumprod <= 0.5))
    half_noise = int(np.argmax(schedule.sqrt_one_minus_alphas_cumprod >= 0.5))
    added = int(np.argmax(np.cumsum(schedule.betas) >= 0.5))
    hints = [
        (500, "Half of the steps is not half of the noise: β grows, and what is kept multiplies. "
         "Look where ᾱ falls to 0.5."),
        (half_rate, "There √ᾱ is 0.5, half of the image's amplitude. Half of the variance is "
         "ᾱ = 0.5, earlier."),
        (half_noise, "There √(1−ᾱ), the noise's factor, reaches 0.5. Its variance is the square of "
         "that, a quarter. Look where 1−ᾱ itself reaches 0.5."),
        (added, "There the β sum up to 0.5. But later steps shrink the earlier noise too, so what "
         "multiplies is 1−β: look where ᾱ falls to 0.5."),
        (999, "There nearly all of it is noise. When is it half, for the first time?"),
        (half - 1, "Just before: ᾱ is still above 0.5 there."),
        (half + 1, "Just after: one step earlier, ᾱ is already at 0.5 or below. If you counted "
         "steps from 1, remember that t counts from 0."),
    ]  # fmt: skip
    ask = "Ask the table: at which index is it for the first time at 0.5 or below?"
    for t, alpha_bar in enumerate(schedule.alphas_cumprod):
        hints.append((t, f"At t = {t}, ᾱ is {alpha_bar:.3f}. {ask}"))
    right = "A quarter of the way, and noise already has the upper hand: nothing moves evenly here."
    return mark(attempt, half, hints, right, tolerance=1e-9)


def solution_half_way() -> int:
    """The first t with ᾱ of at most one half."""
    return int(np.argmax(NoiseSchedule(make_betas("linear", 1000)).alphas_cumprod <= 0.5))


def check_impossible_journey(attempt: Any) -> Verdict:
    """Mark which of the rows a to d cannot come from Eq. 4."""
    right = (
        "It fades to grey: the digit goes, and hardly any noise comes in its place. In Eq. 4 the "
        "squares of the two factors always sum to 1."
    )
    replies = {
        "a": "All its pictures have the same noise. Eq. 4 says from which bell noise is drawn, not "
        "that each picture needs its own; the slider at the top of the page shares one too.",
        "b": "Each picture has noise of its own, so that the grain jumps from one to the next. "
        "That is what five calls of q_sample give.",
        "d": "No digit is seen in it at any t. But a black picture is an image too, and Eq. 4 does "
        "not ask what the image shows. Look at how strong the noise gets in each row.",
    }
    return mark_choice(attempt, right="c", message=right, replies=replies)


solution_impossible_journey = "c"


def check_lost_root(attempt: Any) -> Verdict:
    """Mark where the variance goes if √β ε in Eq. 2 is written as β ε, with β = 0.02."""
    right = (
        "Each step brings 0.02² = 0.0004 and takes away 2 % of what is there. The two balance at "
        "0.02, and the picture ends nearly grey. No error is raised."
    )
    replies = {
        "a": "That is where Eq. 2 itself ends. Here each step brings the variance of β·ε, which is "
        "β². At which variance do 2 % of it make up for that?",
        "c": "That is what one step brings, 0.02². But noise of the steps before is still there, "
        "98 % of it. At which variance does the loss of 2 % equal the gain?",
        "d": "That happens without the shrinking. Here each step still takes away 2 % of the "
        "variance, whatever it is.",
    }
    return mark_choice(attempt, right="b", message=right, replies=replies)


solution_lost_root = "b"


def check_reversed(attempt: Any) -> Verdict:
    """Mark at which t a picture is as noisy as before when the β come in reverse order (Eq. 4)."""
    right = (
        "ᾱ at t = 999 is the product of all 1−β, and a product does not mind the order. Before "
        "that, the strong steps have already been taken, and ᾱ is smaller."
    )
    replies = {
        "a": "ᾱ at t is the product of the first t + 1 factors only. With the strong steps first, "
        "which factors are in it at t = 99?",
        "c": "At t = 0 one step has been taken: with 0.02 now, with 0.0001 before. Where have all "
        "the same steps been taken in either order?",
        "d": "There is one t at which all thousand factors are in the product ᾱ. Does their order "
        "matter there?",
    }
    return mark_choice(attempt, right="b", message=right, replies=replies)


solution_reversed = "b"


def check_first_step(attempt: Any) -> Verdict:
    """Mark where the step back from t = 0 leads (Eq. 7 with ᾱ = 1 one step earlier)."""
    right = (
        "The weight of x_t and the variance both hold the factor 1 − 1 = 0, and the weight of x₀ "
        "is β/β = 1. One step before the first lies the clean image itself."
    )
    replies = {
        "a": "The weight of x_t holds the factor 1−ᾱ of one step earlier. How much is that if "
        "nothing had been noised yet?",
        "b": "The mean is right: all the weight is on x₀. Now put ᾱ = 1 of one step earlier into "
        "β̃.",
        "d": "Eq. 7 divides by 1−ᾱ at t, which is β there, not 0. Only ᾱ one step earlier is 1.",
    }
    return mark_choice(attempt, right="c", message=right, replies=replies)


solution_first_step = "c"
