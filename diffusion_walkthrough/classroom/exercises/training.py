"""Exercises of chapter 05: counting steps, marking guesses, averaging weights, learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    show_solution as show_solution,
    unanswered,
)


def check_steps(attempt: Any) -> Verdict:
    """Mark the number of training steps: 1,500 images, batches of 64, 100 epochs."""
    hints = [
        (2300, "23 full batches use only 1,472 of the 1,500 images. The other 28 make a twenty-"
         "fourth, smaller batch: each epoch has 24 steps."),
        (round(1500 * 100 / 64), "Almost: the batches are counted anew in each epoch, and the "
         "last one of an epoch is smaller. Round up 1500 / 64 before multiplying."),
        (1500 * 100, "That is how many images it sees. A step takes a whole batch of them."),
        (24, "That is one epoch. There are 100."),
        (100, "An epoch is one pass through all images, and takes many steps."),
    ]  # fmt: skip
    right = "24 steps an epoch, 100 epochs: 2,400 times the network is asked up to 64 questions."
    return mark(attempt, 2400, hints, right, tolerance=1e-9)


solution_steps = 24 * 100


def check_training_loss(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_start, alpha_bar, noise, guess)`` that returns x_t and the loss.

    ``x_start`` and ``noise`` are ``(batch, pixels)``, ``alpha_bar`` is ``(batch,)``, and ``guess``
    is a function of x_t that returns the guessed noise.
    """
    x_start, noise = np.random.default_rng(3).standard_normal((2, 5, 4))
    alpha_bar = np.array([0.9, 0.7, 0.5, 0.3, 0.1])
    signal, noise_rate = np.sqrt(alpha_bar)[:, None], np.sqrt(1 - alpha_bar)[:, None]

    def guess(x_t: Any) -> Any:
        return 0.5 * np.asarray(x_t)

    answer = call(attempt, x_start, alpha_bar, noise, guess)
    if isinstance(answer, Verdict):
        return answer
    waiting = unanswered(answer)
    if waiting:
        return waiting
    if not isinstance(answer, tuple) or len(answer) != 2:
        return Verdict(False, "Return two things, x_t and the loss: return x_t, loss.")
    x_t = signal * x_start + noise_rate * noise
    noised = mark(answer[0], x_t, _noising_hints(x_start, alpha_bar, noise), "")
    if not noised.right:
        return noised
    error = noise - guess(x_t)
    hints = [
        (np.mean((x_start - guess(x_t)) ** 2), "The guess is compared with the clean image. The "
         "network was asked for the noise, so compare with the noise."),
        (np.mean(np.abs(error)), "That is the mean absolute error. Eq. 14 squares it."),
        (np.sum(error**2), "The squares are summed. Their mean does not depend on the number of "
         "pixels or images."),
        (np.mean(error) ** 2, "Square first, then average: otherwise errors of opposite sign "
         "cancel."),
        (np.mean((noise - guess(x_start)) ** 2), "The network was shown the clean image. It must "
         "find the noise in x_t."),
    ]  # fmt: skip
    right = "That is all there is to it: hide, ask, compare. The rest of training is bookkeeping."
    return mark(answer[1], np.mean(error**2), hints, right)


def _noising_hints(x_start: Any, alpha_bar: Any, noise: Any) -> list[tuple[Any, str]]:
    """Foreseen mistakes in hiding the images."""
    kept = alpha_bar[:, None]
    return [
        (kept * x_start + (1 - kept) * noise, "ᾱ and 1−ᾱ are shares of variance; image and noise "
         "take their roots."),
        (x_start + np.sqrt(1 - kept) * noise, "The image is not dimmed: multiply it by √ᾱ."),
        (np.sqrt(1 - kept) * x_start + np.sqrt(kept) * noise, "The two factors have changed "
         "places: ᾱ near 1 means hardly any noise."),
    ]  # fmt: skip


def solution_training_loss(x_start: Any, alpha_bar: Any, noise: Any, guess: Any) -> Any:
    """Hide, ask, compare."""
    kept = alpha_bar[:, None]
    x_t = np.sqrt(kept) * x_start + np.sqrt(1 - kept) * noise
    return x_t, np.mean((noise - guess(x_t)) ** 2)


def check_start_share(attempt: Any) -> Verdict:
    """Mark the share of the first weights in an average of momentum 0.999 after 500 steps."""
    hints = [
        (1 - 0.999**500, "That is the share of everything later. The start's share is the rest."),
        (0.999, "That is its share after one step. Each further step multiplies it again."),
        (1 - 0.001 * 500, "Each step takes a thousandth of what is left, not of the beginning: "
         "0.999 · 0.999 · … = 0.999⁵⁰⁰."),
        (0.001, "That is what the newest weights count. The start keeps 0.999 at every step."),
    ]  # fmt: skip
    right = ("Three fifths of the average are still the start. An average over thousands of steps "
             "is for runs of hundreds of thousands.")  # fmt: skip
    return mark(attempt, 0.999**500, hints, right, tolerance=5e-3)


solution_start_share = 0.999**500


def check_learning_rate(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(step)``: up to 0.006 in 100 steps, then half a cosine to 0 at 1080."""
    steps = np.array([0, 25, 50, 100, 345, 590, 835, 1080])
    answer = [call(attempt, int(step)) for step in steps]
    for value in answer:
        verdict = value if isinstance(value, Verdict) else unanswered(value)
        if verdict:
            return verdict
    rise = np.minimum(steps / 100, 1.0)

    def fall(begin: float, end: float, frequency: float = np.pi) -> Any:
        share = np.clip((steps - begin) / (end - begin), 0, 1)
        return np.where(steps < 100, 1.0, 0.5 * (1 + np.cos(frequency * share)))

    hints = [
        (0.006 * fall(100, 1080), "The warm-up is missing: the first 100 steps should rise evenly "
         "from 0, while Adam still learns how large gradients are."),
        (0.006 * rise * fall(0, 1080), "The fall begins before the rise is over: measure its "
         "progress from step 100 on, (step − 100) / (1080 − 100)."),
        (0.006 * rise * fall(100, 1080, 2 * np.pi), "That is a whole cosine: it comes back up. "
         "Half of one, cos(π · progress), ends at the bottom."),
        (0.006 * rise * np.where(steps < 100, 1, 1 - np.clip((steps - 100) / 860, 0, 1)),
         "That falls along a straight line. Half a cosine is (1 + cos(π · progress)) / 2."),
        (0.006 * rise, "It stays at the top. From step 100 on it should fall."),
    ]  # fmt: skip
    right = "Careful at first, bold in the middle, settling at the end."
    return mark(answer, 0.006 * rise * fall(100, 1080), hints, right)


def solution_learning_rate(step: int) -> float:
    """An even rise, then half a cosine."""
    if step < 100:
        return 0.006 * step / 100
    progress = (step - 100) / (1080 - 100)
    return 0.006 * (1 + np.cos(np.pi * progress)) / 2
