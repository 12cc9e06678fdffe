"""Exercises of chapter 06: a step back, its cost and noise, its start; measures; mixing noise."""

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
    unanswered,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


def check_step_back(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(schedule, x_t, t, noise_guess, z)`` that takes one step back.

    It is called at t = 12 and at t = 0, with arrays ``(pixels,)``; σ² is to be β̃ ("fixed_small").
    """
    schedule = NoiseSchedule(make_betas("linear", 20))
    x_t, guess, z = np.random.default_rng(6).standard_normal((3, 5))
    answers = []
    for t in (12, 0):
        answer = call(attempt, schedule, x_t, t, guess, z)
        if isinstance(answer, Verdict) or unanswered(answer) or np.shape(answer) != x_t.shape:
            return mark(answer, x_t, [], "")
        answers.append(answer)
    right = "Guess the clean image, go a little towards it, add a little noise, but not at the end."
    expected = _both_steps(schedule, x_t, guess, z)
    parts = {"x_t": [x_t] * 2, "the guessed noise": [guess] * 2, "z": [z] * 2}
    hints = _step_back_hints(schedule, x_t, guess, z)
    return mark(answers, expected, hints, right, parts=parts, places=["t = 12", "t = 0"])


def _both_steps(
    schedule: NoiseSchedule,
    x_t: Any,
    guess: Any,
    z: Any,
    sigma: Callable[[int], float] | None = None,
    swapped: bool = False,
    divided: bool = True,
) -> list[Any]:
    """Steps back at t = 12 and t = 0, right by default, or with one mistake."""
    steps = []
    for t in (12, 0):
        alpha_bar = schedule.alphas_cumprod[t]
        x_start = x_t - np.sqrt(1 - alpha_bar) * guess
        if divided:
            x_start = x_start / np.sqrt(alpha_bar)
        weights = schedule.posterior_mean_coef1[t], schedule.posterior_mean_coef2[t]
        of_x_start, of_x_t = weights[::-1] if swapped else weights
        noise = np.sqrt(schedule.posterior_variance[t]) if sigma is None else sigma(t)
        steps.append(of_x_start * x_start + of_x_t * x_t + noise * z)
    return steps


def _step_back_hints(
    schedule: NoiseSchedule, x_t: Any, guess: Any, z: Any
) -> list[tuple[Any, str]]:
    def steps(**mistake: Any) -> list[Any]:
        return _both_steps(schedule, x_t, guess, z, **mistake)

    small, large = schedule.posterior_variance, schedule.betas
    clipped = np.exp(0.5 * schedule.posterior_log_variance_clipped)
    last = (
        "Noise is added at t = 0 too. After the last step nobody cleans up any more: there, z is 0."
    )
    root = "The variance stands where its root belongs: noise of variance σ² is σ times z."
    return [
        (steps(sigma=lambda t: clipped[t]), last),
        (steps(sigma=lambda t: np.sqrt(large[t])), last),
        (steps(sigma=lambda t: small[t]), root),
        (steps(sigma=lambda t: large[t] * (t > 0)), root),
        (steps(sigma=lambda t: 0.0), "No noise is added at all. Then every walker follows the "
         "mean, and all of them end in one place."),
        (steps(sigma=lambda t: np.sqrt(large[t]) * (t > 0)), "That is the other published choice, "
         "σ² = β. Asked for is β̃: posterior_variance."),
        (steps(swapped=True), "The two weights are exchanged: coef1 belongs to the guessed x_0, "
         "coef2 to x_t."),
        (steps(divided=False), "x_0 is not yet solved for: after taking the noise away, divide by "
         "√ᾱ, since the image had been shrunk by it."),
    ]  # fmt: skip


def solution_step_back(schedule: NoiseSchedule, x_t: Any, t: int, noise_guess: Any, z: Any) -> Any:
    """One step back: guess x_0 (Eq. 4 solved), then the posterior's mean and spread (Eq. 7)."""
    alpha_bar = schedule.alphas_cumprod[t]
    x_start = (x_t - np.sqrt(1 - alpha_bar) * noise_guess) / np.sqrt(alpha_bar)
    mean = schedule.posterior_mean_coef1[t] * x_start + schedule.posterior_mean_coef2[t] * x_t
    return mean + np.sqrt(schedule.posterior_variance[t]) * z  # the variance is 0 at t = 0


def check_network_calls(attempt: Any) -> Verdict:
    """Mark how often the network is called for 64 digits, T = 200, in batches of 16."""
    hints = [
        (200, "That is one batch of 64. In batches of 16, the whole way is walked four times."),
        (4, "That is the number of batches. Each of them walks all T steps, with one call a step."),
        (64, "Not one call for each digit: a digit needs one for every step of its way."),
        (64 * 200, "So many single images pass through the network, but a call takes 16 at once."),
        (4 * 199, "The last step only leaves out the added noise; the network is asked there too."),
        (4 * 201, "T steps need T calls: the noise at the start is drawn without the network."),
    ]  # fmt: skip
    right = (
        "4 batches times 200 steps. Training passes an image once for one loss; drawing it takes T "
        "passes, and that is why so many people look for shorter ways."
    )
    return mark(attempt, 800, hints, right, tolerance=1e-9)


solution_network_calls = 800
steps_network_calls = "how many batches there are, times the calls that one of them takes."


def check_why_noise(attempt: Any) -> Verdict:
    """Mark the letter of the reason why walking back to the mean, without noise, fails."""
    replies = {
        "a": "The denoise function was exact in one dimension, and the walkers still met in one "
        "place.",
        "b": "Both walks start from the same noise, and it has variance 1. It is lost on the way.",
        "c": "More steps do not help: each one pulls the walkers together, and with 1000 steps the "
        "result is no wider.",
    }
    message = (
        "The mean is the middle of the possible pasts. Either noise replaces what averaging takes "
        "away, or one does not average: DDIM keeps all of the guessed noise."
    )
    return mark_choice(attempt, right="d", message=message, replies=replies)


solution_why_noise = "d"


def check_same_z(attempt: Any) -> Verdict:
    """Mark the letter: what if each walker has one z for all its steps?"""
    replies = {
        "a": "Each single step is right, but the steps are no longer independent: a walker with "
        "z = 2 is pushed upwards two hundred times.",
        "b": "That happens with z = 0. Here z differs from walker to walker and pushes them apart.",
        "d": "Heaps are too narrow where noise is missing. Here each step has noise of the right "
        "size; it is the sum of all of them that is not right.",
    }
    message = (
        "Independent pushes mostly cancel, equal ones add up: a sum of n equal ones has n times "
        "the variance. The walkers end far too far apart."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_same_z = "c"


def check_impossible(attempt: Any) -> Verdict:
    """Mark the letter of what cannot happen in a walk without any noise on the way."""
    replies = {
        "a": "That must be so: nothing but the start decides.",
        "b": "That is how the heaps get their shares: each belongs to a range of starts.",
        "d": "In one dimension it is even always so: ways that are decided by where one stands "
        "cannot cross.",
    }
    message = (
        "Without noise on the way, a start has a single way. With noise, the same start leads to "
        "any heap."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_impossible = "c"


def check_what_is_missing(attempt: Any) -> Verdict:
    """Mark the letter of the model with precision 0.98, and coverage 0.30 where real has 0.92."""
    replies = {
        "a": "Then coverage would be high: copies reach every ball, each its own.",
        "b": "Then hardly a drawing would lie among the real ones, and precision would be low.",
        "d": "That is the other way round: high coverage and low precision.",
    }
    message = (
        "What it draws is good, and most of what is real it never draws. Of 64 pictures that all "
        "look fine nobody would see it."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_what_is_missing = "c"


def check_start(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(shape, rng)`` that draws the x_T from which sampling starts."""
    shape = (400, 8, 8, 1)
    answer = call(attempt, shape, np.random.default_rng(0))
    if isinstance(answer, Verdict):
        return answer
    if np.shape(answer) != shape or not same_numbers(answer, answer):  # NaN equals nothing
        return mark(answer, np.zeros(shape), [], "")
    problem = _what_is_wrong_with_noise(np.asarray(answer, dtype=np.float64))
    if problem:
        return Verdict(False, problem)
    return Verdict(True, "Independent, mean 0, variance 1 and bell-shaped: just what the last step "
                   "of the forward process leaves behind.")  # fmt: skip


def _what_is_wrong_with_noise(x: Any) -> str:
    """Name how 400 images of noise differ from standard normal ones; empty if they do not."""
    spread, tails = x.std(), np.mean((x - x.mean()) ** 4) / max(x.var() ** 2, 1e-12)
    if spread < 1e-6:
        return "Every value is the same. From one and the same start, only the added noise differs."
    if np.allclose(x[0], x[1]):
        return "All images start from the same noise. Each needs its own: draw the whole shape."
    if x.max() > 10:
        return (
            "Values beyond 10: are these pixel values? The network lives in a world of spread 1 "
            "around 0."
        )
    if x.min() >= 0:
        return "All values are positive. The forward process ends in noise of mean 0."
    if abs(spread - 1) > 0.03 and np.abs(x).max() <= 1:
        return (
            f"Values between −1 and 1 are what images have; the noise at the end of the forward "
            f"process is wider: standard deviation 1, not {spread:.2f}."
        )
    if abs(x.mean()) > 0.03 or abs(spread - 1) > 0.03:
        return f"Mean {x.mean():.2f} and standard deviation {spread:.2f}; they should be 0 and 1."
    if abs(tails - 3) > 0.2:
        return "Mean and spread are right, but the shape is not a bell. Draw normal numbers."
    return ""


def solution_start(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Standard normal noise, which is where the forward process ends."""
    return rng.standard_normal(shape)


def check_noise_mix(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(noise_1, noise_2, share)`` that mixes two noises and keeps the variance.

    Any mix is right that is of variance 1 for each share, begins with the first noise and ends
    with the second.
    """
    noise = np.random.default_rng(4).standard_normal((2, 40_000))
    # Exactly independent and of variance 1, so that no chance is left in the verdict.
    noise = np.linalg.qr(noise.T)[0].T * np.sqrt(noise.shape[1])
    shares = (0.0, 0.25, 0.5, 0.9, 1.0)
    answers = []
    for share in shares:
        answer = call(attempt, *noise, share)
        if isinstance(answer, Verdict) or unanswered(answer) or np.shape(answer) != noise[0].shape:
            return mark(answer, noise[0], [], "")
        if not same_numbers(answer, answer):  # NaN equals nothing, and text is no number
            return mark(answer, noise[0], [], "")
        answers.append(np.asarray(answer, dtype=np.float64))
    if problem := _what_is_wrong_with_the_mix(answers, shares, noise):
        return Verdict(False, problem)
    return Verdict(True, "Variance 1 throughout: what the network is told of the noise is true for "
                   "each share. The paper does without; then half-way images come out a little "
                   "tidier.")  # fmt: skip


def _what_is_wrong_with_the_mix(answers: list[Any], shares: tuple[float, ...], noise: Any) -> str:
    """Name the first mistake in mixes of two noises; empty if there is none."""
    variances = np.array([np.mean(answer**2) for answer in answers])
    linear = np.array([(1 - share) ** 2 + share**2 for share in shares])
    smaller = "You multiply by what should divide: half-way, the variance is even smaller than 0.5."
    hints = [
        (linear, "Half-way, its variance is only 0.5. Variances add with the squares of the "
         "factors, (1−λ)² + λ²: divide by the root of that."),
        (1 / linear, "You divide by the variance. To bring it to 1, divide by its root."),
        (linear**2, smaller),
        (linear**3, smaller),
        (2 * linear, "The factor √2 is right half-way only. At λ = 0 the variance is now 2."),
    ]  # fmt: skip
    for wrong, hint in hints:
        if same_numbers(variances, wrong, 1e-3):
            return hint
    if not same_numbers(variances, np.ones(len(shares)), 1e-3):
        return f"At λ = {shares[1]}, the variance is {variances[1]:.2f}; it should be 1 for each λ."
    if same_numbers(answers[0], noise[1], 1e-3):
        return "The two have changed places: λ = 0 should give the first noise, λ = 1 the second."
    if not same_numbers([answers[0], answers[-1]], noise, 1e-3):
        return "λ = 0 should give the first noise, and λ = 1 the second."
    return ""


def solution_noise_mix(noise_1: Any, noise_2: Any, share: float) -> Any:
    """Mix, and divide by the standard deviation of the mix."""
    mixed = (1 - share) * noise_1 + share * noise_2
    return mixed / np.sqrt((1 - share) ** 2 + share**2)
