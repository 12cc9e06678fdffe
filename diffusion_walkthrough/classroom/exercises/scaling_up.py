"""Exercises of chapters 08 and 08b: what grows how fast, where float16 ends, plans and parts."""

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


def check_growth(attempt: Any) -> Verdict:
    """Mark (convolution, scores): how many times as much each costs at four times the side."""
    hints = [
        ((4, 16), "Four times the side is four times the height and four times the width: sixteen "
         "times the pixels. Start from there."),
        ((4, 4), "Four times the side is four times the height and four times the width: sixteen "
         "times the pixels. Start from there."),
        ((16, 16), "Right for the convolution. But a score belongs to a pair of pixels, and pairs "
         "grow as the square of the pixels."),
        ((16, 32), "Right for the convolution. Sixteen times as many pixels look, and each at "
         "sixteen times as many: multiply."),
        ((16, 64), "Right for the convolution. Pairs of pixels: sixteen times the pixels, and each "
         "has sixteen times as many partners."),
        ((64, 256), "There are two directions, height and width, and no third: sixteen times the "
         "pixels."),
        ((64, 4096), "These are the factors for eight times the side, as in the attempt. Here it "
         "is four times."),
        ((256, 16), "The right numbers in the wrong order: convolution first, then scores."),
    ]  # fmt: skip
    right = (
        "16 and 16² = 256. A convolution pays for pixels, attention for pairs of them; so large "
        "images have attention on their coarse levels only."
    )
    return mark(attempt, (16, 256), hints, right, tolerance=1e-9)


solution_growth = (4**2, (4**2) ** 2)
steps_growth = "how many times as many pixels there are; and how many times as many pairs of them."


def check_epoch_hours(attempt: Any) -> Verdict:
    """Mark the hours of an epoch: 1e9 multiply-adds an image, 60,000 images, 1e11 operations/s."""
    hours = 2 * 3 * 1e9 * 60_000 / 1e11 / 3600
    hints = [
        (hours / 3, "That is the way forward only. Training also goes back, which costs twice "
         "as much again."),
        (hours / 2, "A multiply-add is two operations, a multiplication and an addition."),
        (hours / 6, "Two factors are missing: a multiply-add is two operations, and training "
         "costs three times the forward pass."),
        (hours * 2 / 3, "Training is one way forward and one back, and the way back computes two "
         "gradients for each layer: three times, not two."),
        (hours * 3600, "Those are seconds."),
        (hours * 60, "Those are minutes."),
    ]  # fmt: skip
    right = (
        "One hour: 6 · 10⁹ · 60,000 operations at 10¹¹ a second. Two minutes of arithmetic "
        "before a run can save days of it."
    )
    return mark(attempt, hours, hints, right, tolerance=2e-3)


solution_epoch_hours = 2 * 3 * 1e9 * 60_000 / 1e11 / 3600
steps_epoch_hours = (
    "operations of one pass over one image, times the passes that training costs, times the "
    "images; then divide by the speed, and make hours of seconds."
)


def check_safe_scores(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(queries, keys)``, float16 ``(pixels, channels)``, that returns q·k / √C.

    The products go beyond 65,504; the scores do not.
    """
    rng = np.random.default_rng(0)
    queries, keys = (rng.normal(100, 20, (2, 6, 16))).astype(np.float16)
    answer = call(attempt, queries, keys)
    q, k = queries.astype(np.float64), keys.astype(np.float64)
    hints = [
        (np.full((6, 6), np.inf), "The scores are infinite: q·k has left float16 before anything "
         "was divided, and ∞ / √C is ∞. Divide the queries (or the keys) first."),
        (q @ k.T, "Not divided by √C. In float16 these numbers would all be infinite."),
        (q @ k.T / 16, "Divided by C = 16. It is √C = 4: if both queries and keys were divided by "
         "√C, one of them is enough."),
        (q.T @ k / 4, "Here channels are compared with channels. Each pixel's query goes with each "
         "pixel's key: transpose the keys."),
    ]  # fmt: skip
    right = (
        "These scores are finite. Divided first, or computed in float32, nothing on the way leaves "
        "the range. attention_weights in unet.py divides first, and stays in float16."
    )
    return mark(answer, q @ k.T / 4, hints, right, tolerance=0.02)  # float16 rounds each sum


def solution_safe_scores(queries: Any, keys: Any) -> Any:
    """Scores of attention that stay finite in float16."""
    scale = np.float16(1 / np.sqrt(queries.shape[-1]))
    return (queries * scale) @ keys.T


def check_first_pass(attempt: Any) -> Verdict:
    """Mark which remedy helps if the loss is NaN in the very first forward pass."""
    replies = {
        "a": "A smaller learning rate makes smaller steps. The NaN was there before any step.",
        "b": "Loss scaling multiplies the loss, and NaN times anything is NaN. It helps against "
        "gradients that become 0 on the way back, not against infinities on the way forward.",
        "c": "Clipping shortens gradients. There is none yet; and the length of NaN is NaN.",
    }
    message = (
        "What overflows on the way forward is mended on the way forward: look at the range of "
        "the images and at every product of two computed numbers."
    )
    return mark_choice(attempt, right="d", message=message, replies=replies)


solution_first_pass = "d"


def check_standstill(attempt: Any) -> Verdict:
    """Mark why a loss stops falling in float16, without NaN, where float32 goes on."""
    replies = {
        "a": "Then scores leave float16 at its large end, and that shows as NaN at once, not "
        "as a loss that stops falling.",
        "b": "Then float32 has no attention either, and its loss goes on falling.",
        "d": "Too large a step is too large in float32 as well: the weights, which it changes, "
        "are in float32 in both runs.",
    }
    message = (
        "Small errors give small gradients, and the better the network, the more of them round "
        "to 0. Multiply the loss, and divide the gradients of the weights."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_standstill = "c"


def check_larger_images(attempt: Any) -> Verdict:
    """Mark what becomes of the gradient of a weight, in float32, if images are enlarged."""
    replies = {
        "a": "Right for the gradient of each guess. But the weight is used at sixteen times as "
        "many places, and its gradient is the sum over all of them.",
        "c": "It is used at sixteen times as many places, that is right. But the loss is a mean: "
        "each place has a sixteenth of the say.",
        "d": "That can happen in float16, if all terms of the sum are rounded to 0 first. The "
        "question is of float32.",
    }
    message = (
        "Sixteen times as many terms, each a sixteenth as large. Only what is rounded before it "
        "is added suffers from large images."
    )
    return mark_choice(attempt, right="b", message=message, replies=replies)


solution_larger_images = "b"


def check_scaled_step(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(weight, scaled_gradient, scale, rate)`` that returns the new weight.

    The gradient is that of the loss times ``scale``; if it is not finite, the step is skipped.
    """
    weight, gradient, scale, rate = 1.5, 640.0, 1024.0, 0.4
    answer = call(attempt, weight, gradient, scale, rate)
    hints = [
        (weight - rate * gradient, "The gradient is still that of the scaled loss, 1,024 times too "
         "large. Divide it by the scale before the step."),
        (weight - rate * gradient * scale, "Multiplied by the scale once more. The loss has been "
         "multiplied already; divide now."),
        (weight + rate * gradient / scale, "Uphill: a step against the gradient has a minus."),
        (weight - gradient / scale, "The learning rate is missing."),
        (rate * gradient / scale, "That is the step. Subtract it from the weight."),
    ]  # fmt: skip
    right = (
        "Divide, look whether all is finite, then step. Keras's LossScaleOptimizer does this, and "
        "halves the scale after each step that it skips."
    )
    verdict = mark(answer, weight - rate * gradient / scale, hints, right)
    if not verdict.right:
        return verdict
    for broken in (np.inf, -np.inf, np.nan):
        kept = call(attempt, weight, broken, scale, rate)
        if isinstance(kept, Verdict):
            return kept
        if not same_numbers(kept, weight):
            return Verdict(
                False,
                f"Right for a finite gradient. For one of {broken} the weight became {kept}; skip "
                "that step and return the weight as it was.",
            )
    return verdict


def solution_scaled_step(weight: Any, scaled_gradient: Any, scale: Any, rate: Any) -> Any:
    """One step of gradient descent with a scaled loss."""
    gradient = scaled_gradient / scale
    if not np.isfinite(gradient):
        return weight
    return weight - rate * gradient


def check_parts(attempt: Any) -> Verdict:
    """Mark the fewest equal parts for 128 images: 4.2 GB, 1.5 GB of them taken, 60 MB an image."""
    hints = [
        (1, "All at once: 128 images of 60 MB are 7.7 GB, and the program and the weights come on "
         "top."),
        (2, "64 images take 3.8 GB, which fits 4.2 GB only if nothing else is there. The program, "
         "the weights and what the optimizer keeps take 1.5 GB of it."),
        (3, "45 images fit at a time, and three times 45 is more than 128: well reckoned. But 128 "
         "cannot be divided by three, and the parts have to be equal."),
        (32, "32 images fit at a time, so that is the size of a part. How many parts are there?"),
        (45, "That many images fit at a time. How many equal parts does that make of 128?"),
        (8, "That fits, but each part costs a little: overhead, and small products that fill the "
         "machine less well. Fewer will do."),
        (16, "That fits, but each part costs a little: overhead, and small products that fill the "
         "machine less well. Fewer will do."),
        (128, "That fits, one image at a time, and is slow. Far fewer parts will do."),
    ]  # fmt: skip
    right = (
        "2.7 GB are left for the images, enough for 45 of them; the largest part that divides 128 "
        "is 32. TrainingParameters(gradient_accumulation_steps=4) does it."
    )
    return mark(attempt, 4, hints, right, tolerance=1e-9)


solution_parts = 128 // 32


def check_whole_gradient(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(gradients, sizes)``: from those of the parts to that of the whole batch.

    Each row of ``gradients`` is the gradient of the mean loss over one part; ``sizes`` are the
    numbers of images in the parts, which may differ.
    """
    rng = np.random.default_rng(0)
    sizes = np.array([4, 4, 2])
    images = rng.normal(1, 1, (10, 3)).round(2)  # the gradient of each image's loss
    parts = np.split(images, np.cumsum(sizes)[:-1])
    gradients = np.array([part.mean(axis=0) for part in parts])
    weighted = sizes[:, None] * gradients
    hints = [
        (gradients.sum(axis=0), "The sum is as many times too large as there are parts: the loss "
         "is a mean over the images, not a sum."),
        (gradients.mean(axis=0), "Right if all parts are equal. Here the last has two images and "
         "the others four, so an image in it would count twice as much."),
        (weighted.sum(axis=0), "That is the sum over all images. The loss is their mean: divide by "
         "how many there are."),
        (weighted.mean(axis=0), "Weighed rightly, but divided by the number of parts. Divide by "
         "the number of images."),
        (gradients[-1], "That is the last part's alone; the work on the others would be lost."),
    ]  # fmt: skip
    right = (
        "A mean of means, each weighed by its images, is the mean of all: the same gradient, with "
        "one part in memory at a time. Equal parts need no weights, so a batch is cut into those."
    )
    return mark(call(attempt, gradients, sizes), images.mean(axis=0), hints, right)


def solution_whole_gradient(gradients: Any, sizes: Any) -> Any:
    """The gradient of the mean loss over all images."""
    return sizes @ gradients / sizes.sum()


def check_same_run(attempt: Any) -> Verdict:
    """Mark which remedy makes a run fit and leaves network, step and digits as they are."""
    replies = {
        "a": "It fits. But steps of 64 images are another run: twice as many in an epoch, each "
        "along a gradient that hangs more on chance.",
        "b": "It fits, with a network that has little more than half the weights: another one.",
        "c": "It may fit, and often learns as well. But the layers then compute with two digits.",
    }
    message = (
        "The mean of the parts' gradients is the gradient of the batch: the same steps, and only "
        "half the results in memory at a time."
    )
    return mark_choice(attempt, right="d", message=message, replies=replies)


solution_same_run = "d"


def check_weights_only(attempt: Any) -> Verdict:
    """Mark what is lost if a killed run goes on from its weights alone."""
    replies = {
        "b": "A step is made of more than weights. What does Adam remember from one step to the "
        "next, and what tells it how large the learning rate is by now?",
        "c": "The weights are the network, and they were saved.",
        "d": "Here they follow from the seed and the number of the epoch, so they can be drawn "
        "again. Something else is lost for good.",
    }
    message = (
        "The learning rate would warm up a second time, and Adam's averages begin at 0: the run "
        "goes on, but along another path. ResumeTraining saves them with the weights."
    )
    return mark_choice(attempt, right="a", message=message, replies=replies)


solution_weights_only = "a"


def check_slow_card(attempt: Any) -> Verdict:
    """Mark why a card with a high peak is no faster for one small image at a time."""
    replies = {
        "a": "Faster arithmetic helps where arithmetic takes the time. How much of it is there "
        "in one digit of 8×8?",
        "b": "64 numbers are sent in no time, and the weights stay on the card.",
        "d": "Then it would stop with an error, not run slowly.",
    }
    message = (
        "A card starts an operation no sooner than a processor does. Give it many digits at "
        "once, and a wide network, and its peak begins to count."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_slow_card = "c"
