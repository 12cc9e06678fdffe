"""Exercises of chapter 09: DDIM's step, where to ask, what an order means, marks, disasters."""

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


def check_ddim_step(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_t, guess, a_t, b_t, a_s, b_s)`` that takes DDIM's step from t to s.

    ``x_t`` and ``guess``, the guess of the clean image, are arrays; the rest are numbers.
    """
    x, guess = np.random.default_rng(9).standard_normal((2, 5))
    a, b, a_s, b_s = 0.6, 0.8, 0.96, 0.28
    answer = call(attempt, x, guess, a, b, a_s, b_s)
    noise = (x - a * guess) / b
    hints = [
        (a_s * guess + b_s * x, "x_t is not the noise in it: take the image out of it first, as "
         "much as is in it, and divide by what the noise was multiplied with."),
        (a_s * guess + b_s * (x - a * guess), "What is left when the image is taken out is b_t "
         "times the noise. Divide by b_t before it is made weaker."),
        (a_s * guess + b_s * (x - guess) / b, "Of the image there is a_t in x_t, not all of it: "
         "take a_t times the guess out."),
        (a_s * guess + b_s * (x - guess), "Eq. 4 says x_t = a_t image + b_t noise. Solve it for "
         "the noise: both factors are missing."),
        (a_s * guess + b * noise, "That leaves as much noise as before. At s there is b_s of it."),
        (a * guess + b_s * noise, "At s there is more of the image than at t: a_s of it."),
        (guess + b_s * noise, "At s the image is not yet whole: there is a_s of it."),
        (a_s * guess + noise, "The noise is to be weaker at s: b_s times it."),
        (x, "That is x_t again: at s the factors are a_s and b_s."),
        (guess, "That is the leap to the clean image at once; only the last step is that."),
        (a * guess + b * (x - a_s * guess) / b_s, "t and s are exchanged: x_t is where you stand."),
        (a_s**2 * guess + b_s**2 * noise, "a and b are factors, not shares of the variance: they "
         "are not squared (nor is a root to be taken)."),
        (a_s * guess - b_s * noise, "The noise has the wrong sign: it stays, only weaker."),
        (a_s * guess, "Then the noise is gone at once, and the step ends nearer to 0 than any "
         "image at s is. Keep the noise, and make it weaker."),
    ]  # fmt: skip
    right = (
        "The image as strong as it is at s, and the same noise as before, as weak as it is at s."
    )
    expected = a_s * guess + b_s * noise
    return mark(answer, expected, hints, right, parts={"x_t": x, "the guess": guess})


def solution_ddim_step(x_t: Any, guess: Any, a_t: float, b_t: float, a_s: float, b_s: float) -> Any:
    """Solve Eq. 4 for the noise, and mix anew."""
    noise = (x_t - a_t * guess) / b_t
    return a_s * guess + b_s * noise


look_ddim_step = "the function ddim in “Three ways along it”; there all is divided by a."


def check_sigmas(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(first, last, steps)`` that spaces σ evenly in log SNR = -2 log σ.

    ``first`` is the largest σ, ``last`` the smallest; both belong to the ``steps`` asked for.
    """
    first, last, steps = 80.0, 0.05, 9
    answer = call(attempt, first, last, steps)
    expected = np.geomspace(first, last, steps)
    rising = "A walk goes from much noise to little: the first σ is the largest."
    logs = "These are logarithms, evenly spaced as they should be. Asked for are the σ themselves."
    hints = [
        (np.linspace(first, last, steps), "That is even in σ: all but the last two stops lie where "
         "there is hardly anything but noise. It is the logarithm that is to fall evenly."),
        (expected[::-1], rising),
        (np.linspace(last, first, steps), "That is even in σ, and the wrong way round. It is the "
         "logarithm that is to fall evenly."),
        (np.log(expected), logs),
        (-2 * np.log(expected), logs),
        (2 * np.log(expected), logs),
        (np.linspace(first ** (1 / 7), last ** (1 / 7), steps) ** 7, "That is Karras's spacing, "
         "even in the seventh root. Asked for is the logarithm."),
        (np.linspace(first**0.5, last**0.5, steps) ** 2, "Even in the root of σ; asked for is the "
         "logarithm."),
        (np.geomspace(first, last, steps + 1)[:-1], "The last σ is missing: it is one of them."),
        (np.geomspace(first, last, steps + 1)[1:], "The first σ is missing: it is one of them."),
        (expected**2, "These are squares: log SNR is -2 log σ, so σ = exp(-log SNR / 2)."),
        (expected**0.5, "These are roots: log SNR is -2 log σ, so σ = exp(-log SNR / 2)."),
        (np.exp(-np.linspace(first, last, steps)), "The logarithm is to run from that of the "
         "first σ to that of the last. Take it before you space evenly."),
        (np.exp(np.linspace(first, last, steps)), "The logarithm is to run from that of the "
         "first σ to that of the last. Take it before you space evenly."),
    ]  # fmt: skip
    if np.shape(answer) == (steps + 1,) and np.ravel(answer)[-1] == 0:
        return Verdict(False, "The 0 at the end is where the walk goes, not where it asks: it is "
                       "asked at steps many σ, from first to last.")  # fmt: skip
    right = "Each σ is the same fraction of the one before: the image comes up by equal ratios."
    return mark(answer, expected, hints, right, tolerance=1e-6)


def solution_sigmas(first: float, last: float, steps: int) -> Any:
    """Evenly in the logarithm; ``np.geomspace(first, last, steps)`` is the same."""
    return np.exp(np.linspace(np.log(first), np.log(last), steps))


def check_more_steps(attempt: Any) -> Verdict:
    """Mark how many steps of order 2 bring an error of 0.08 in 10 steps down to 0.005."""
    hints = [
        (160, "That would be so with order 1: 16 times as many steps, a sixteenth of the error. "
         "With order 2 the error falls with the square of the number of steps."),
        (20, "Twice as many steps leave a quarter of the error: 0.02. Go on."),
        (80, "8 times as many steps leave 1/64 of the error: 0.00125, more than was asked for. You "
         "may have halved the 16 where its root belongs."),
        (16, "The error is to fall to a sixteenth; that is not yet the number of steps."),
        (4, "The steps have to become 4 times as many. How many are that, if there were 10?"),
        (2560, "You squared where a root belongs: the error falls with the square of the number of "
         "steps, so the steps rise with the root of what is wanted."),
        (14, "4 more steps are not 4 times as many."),
        (30, "4 times as many steps in all, and not 4 times as many less 10."),
        (50, "4 times as many steps in all, not 4 times as many more."),
        (26, "16 more steps? Errors and steps go by ratios: what is the root of 16?"),
        (5, "Fewer steps make the error larger."),
        (2.5, "Fewer steps make the error larger: multiply where you divided."),
    ]  # fmt: skip
    right = (
        "The error is to be 16 times as small, and 16 is 4 squared: 4 times 10 steps. With order 1 "
        "it would be 160."
    )
    return mark(attempt, 40, hints, right, tolerance=1e-9)


solution_more_steps = 40
steps_more_steps = "the 10 steps, times the root of how many times smaller the error is to be."


def check_same_start(attempt: Any) -> Verdict:
    """Mark the letter: what do three kinds of step draw from one start, with very many steps?"""
    replies = {
        "a": "They differ in how they step, not in where they are going: all three follow the same "
        "curve, and the error of each goes to 0.",
        "c": "Kind and handwriting alike are decided by the start: one curve leads to one image.",
        "d": "None of the three uses the noise z that a step is handed (DDIM does with η above 0).",
    }
    message = (
        "The curve belongs to the network and the schedule, not to the kind of step. A better step "
        "needs fewer evaluations to get to the same end."
    )
    return mark_choice(attempt, right="b", message=message, replies=replies)


solution_same_start = "b"


def check_no_cure(attempt: Any) -> Verdict:
    """Mark the letter of what does not help against black and white rubbish."""
    replies = {
        "a": "It helps: the guess is worked out by dividing by a, about 1/2029, and clipping holds "
        "what comes of that within what images are.",
        "b": "It helps: there the guess is divided by about 1/80, and an error of the network "
        "grows 80 times, not 2,029 times.",
        "d": "It would help (if the network is trained anew): who is asked for the image divides "
        "by nothing.",
    }
    message = (
        "Of more steps, too, the first is asked at σ = 2029, and what it lets in is far outside of "
        "all that the network has ever seen."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_no_cure = "c"


def check_two_marks(attempt: Any) -> Verdict:
    """Mark the letter of what follows from two marks that disagree."""
    replies = {
        "a": "By the Fréchet distance, yes. Of single digits of A, fewer lie where real ones do.",
        "b": "By precision, yes. But its digits as a crowd are less spread than real ones are: "
        "the Fréchet distance sees it.",
        "d": "They can both be right: one looks at the crowd, the other at each digit by itself.",
    }
    message = (
        "The Fréchet distance compares two crowds by their mean and their spread, precision asks "
        "each digit whether it lies where real ones do. So say what the images are for."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_two_marks = "c"
