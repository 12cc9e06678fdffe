"""Exercises of chapter 12: an instrument of one's own, and what a silent one proves."""

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
    unanswered,
)


def _jump(
    alpha_bar: Any,
    signal: Callable[[Any], Any] = np.sqrt,
    noise_rate: Callable[[Any], Any] = lambda share: np.sqrt(1 - share),
    table: Callable[[Any, Any], Any] = lambda alpha_bar, t: alpha_bar[t],
) -> Callable[..., Any]:
    """A function (x_0, t, noise) -> x_t, right or not; all of shape (batch, pixels) but t."""

    def jump(x_0: Any, t: Any, noise: Any) -> Any:
        share = np.asarray(table(alpha_bar, np.asarray(t)))[:, None]
        return signal(share) * np.asarray(x_0) + noise_rate(share) * np.asarray(noise)

    return jump


def _over_the_batch(alpha_bar: Any, t: Any) -> Any:
    alphas = alpha_bar / np.append(1.0, alpha_bar[:-1])
    return np.cumprod(alphas[t])


def _of_the_first(alpha_bar: Any, t: Any) -> Any:
    return np.full(len(t), alpha_bar[t[0]])


#: What may be wrong with a jump, and what to say to whose instrument does not see it.
SICK: dict[str, tuple[dict[str, Any], str]] = {
    "the noise without its root": (
        {"noise_rate": lambda share: 1 - share},
        "One program has 1 − ᾱ for the factor of the noise, and yours says it is well. Jump from 0 "
        "with noise of 1, at a t in the middle: what comes out is the factor.",
    ),
    "the image without its root": (
        {"signal": lambda share: share},
        "One program has ᾱ for the factor of the image, and yours says it is well. Jump without "
        "noise: what comes out is the factor.",
    ),
    "the table of the step before": (
        {"table": lambda alpha_bar, t: alpha_bar[np.maximum(t - 1, 0)]},
        "One program looks ᾱ up one step too early, and yours says it is well. Compare numbers, "
        "not only whether they fall; and not at t = 0 alone.",
    ),
    "a product over the batch": (
        {"table": _over_the_batch},
        "One program multiplies α up along the batch, and yours says it is well. With t = 0, 1, 2, "
        "… that looks right: ask in another order, or for one t far out.",
    ),
    "one t for all": (
        {"table": _of_the_first},
        "One program takes the t of the first image for all of them, and yours says it is well. "
        "Give each image a t of its own.",
    ),
}


def check_own_instrument(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(jump, alpha_bar)`` that says whether a jump is Eq. 4: True or False.

    ``jump(x_0, t, noise)`` gives x_t; ``x_0`` and ``noise`` are (batch, pixels), ``t`` is (batch,);
    ``alpha_bar`` has ᾱ of each of a hundred steps.
    """
    alpha_bar = np.cumprod(1 - np.linspace(0.001, 0.2, 100))
    said = call(attempt, _jump(alpha_bar), alpha_bar)
    if isinstance(said, Verdict):
        return said
    if waiting := unanswered(said):
        return waiting
    if not isinstance(said, bool | np.bool_):
        return Verdict(
            False, "True or False is expected, and for several images np.all says it of them all."
        )
    if not said:
        return Verdict(
            False,
            "Your instrument rings for the right program. Is the tolerance too narrow, or a root "
            "wrong in your own formula?",
        )
    for wrong, hint in SICK.values():
        answer = call(attempt, _jump(alpha_bar, **wrong), alpha_bar)
        if isinstance(answer, Verdict) or answer:
            return answer if isinstance(answer, Verdict) else Verdict(False, hint)
    return Verdict(True, "It lets the right one pass, and rings for each of the five sick ones.")


def solution_own_instrument(jump: Callable[..., Any], alpha_bar: Any) -> bool:
    """Compare with the law, at t in no order, with an image and noise that are told apart."""
    t = np.array([70, 3, 40, 3])
    x_0, noise = np.full((4, 2), 0.8), np.full((4, 2), -1.5)
    share = alpha_bar[t][:, None]
    expected = np.sqrt(share) * x_0 + np.sqrt(1 - share) * noise
    return bool(np.allclose(jump(x_0, t, noise), expected, atol=1e-4))


look_own_instrument = "what jump() of the page does, and in which order it asks."
steps_own_instrument = (
    "choose some t in no order, work out what Eq. 4 gives there, and return "
    "np.allclose(jump(…), …)."
)


def check_first_loss(attempt: Any) -> Verdict:
    """Mark which mistake a first loss of 1.0 rules out: "a" to "d"."""
    replies = {
        "a": "An answer of 0 stays 0 when it is clipped, and its loss is 1.0.",
        "b": "The last layer begins with zeros, so the first answer is 0 whatever the attention "
        "looks at.",
        "c": "The loss compares with the noise as it was drawn; what was mixed into the image "
        "does not come into it while the answer is 0.",
    }
    right = (
        "A fresh network answers 0, whatever it is shown, and 1.0 is the variance of the noise. "
        "That checks the noise and the last layer, and nothing else."
    )
    return mark_choice(attempt, "d", right, replies)


solution_first_loss = "d"


def check_only_ancestral(attempt: Any) -> Verdict:
    """Mark where the mistake lies if DDIM draws well and Algorithm 2 does not: "a" to "d"."""
    replies = {
        "a": "DDIM asks the same network.",
        "b": "DDIM looks up the same ᾱ.",
        "d": "All steps are taken, which is what Algorithm 2 was made for.",
    }
    right = (
        "What both share is well. The weights and the variance of Eq. 7 only Algorithm 2 looks up."
    )
    return mark_choice(attempt, "c", right, replies)


solution_only_ancestral = "c"


def check_signed_errors(attempt: Any) -> Verdict:
    """Mark what follows if the sum of all differences is 0: "a" to "d"."""
    replies = {
        "a": "1 and −1 add up to 0 as well.",
        "c": "Rounding makes differences, but this sum would not show large ones either.",
        "d": "That the mean is the same, at most: the images may differ as much as they like.",
    }
    right = "Hardly anything: errors of both signs cancel. Take squares, or the largest difference."
    return mark_choice(attempt, "b", right, replies)


solution_signed_errors = "b"


def check_share_of_start(attempt: Any) -> Verdict:
    """Mark which share of an average with momentum 0.999 is still the start after 511 steps."""
    start = 0.999**511
    hints = [
        (0.001**511, "Each step keeps 0.999 of the average, and adds 0.001 of the weight."),
        (0.999 * 511, "Each step multiplies what was left: a power, not a product."),
        (0.001 * 511, "Small losses multiply, as with interest: not 511 times 0.001."),
        (1 - 0.001 * 511, "Small losses multiply, as with interest: a power."),
        (0.999, "That is after a single step."),
        (511 * np.log(0.999), "That is the logarithm of it."),
        (0.9999**511, "The momentum is 0.999, with three nines."),
        (0.99**511, "The momentum is 0.999, with three nines."),
    ]
    right = "Three fifths: the samples are drawn with a network that is mostly chance."
    return mark(attempt, start, hints, right, tolerance=0.01)


solution_share_of_start = 0.999**511


def check_third_image(attempt: Any) -> Verdict:
    """Mark the factor of the third of four images at t = 999, with the product over the batch.

    β of the last step is 0.02.
    """
    kept = 0.98
    hints = [
        (kept**3, "That is ᾱ as this program has it. The factor of the image is its root."),
        (kept, "The product of α goes up to the third image, and then a root is taken."),
        (np.sqrt(kept), "That is the first image: along the batch, α is multiplied up."),
        (np.sqrt(kept**2), "The third image: three α are multiplied."),
        (np.sqrt(kept**4), "That is the fourth image."),
        (0.00635, "So it should be. This program multiplies only the α of the batch."),
        (np.sqrt(0.02**3), "α is 1 − β: what is kept."),
        (0.02**3, "α is 1 − β: what is kept. And the factor is a root."),
        (1 - kept**3, "That is the share of the noise, and before the root."),
        (np.sqrt(1 - kept**3), "That would be the factor of the noise."),
        (kept**999, "The product is over the batch, which has four images, not over the steps."),
    ]
    right = (
        "0.97, where 0.006 should be: what it takes for pure noise still is nearly the whole image."
    )
    return mark(attempt, float(np.sqrt(kept**3)), hints, right, tolerance=1e-3)


solution_third_image = float(np.sqrt(0.98**3))
