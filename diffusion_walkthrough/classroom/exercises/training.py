"""Exercises of chapter 05: steps, marks of one's own, what a changed line does, averages, rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
    show_solution as show_solution,
    unanswered,
)
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.training import DiffusionModel


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


def check_one_t(attempt: Any) -> Verdict:
    """Mark the letter: what if all images of a batch get the same t, another one at each step?"""
    replies = {
        "b": "The t is drawn anew for each batch. In a thousand steps the network meets them all.",
        "c": "Nothing gets easier: at each t the answers that nobody can know stay unknown.",
        "d": "fit only sees numbers of the right shape; 128 equal ones are as good as any.",
    }  # fmt: skip
    message = (
        "On average over the batches the gradient is the same. But each knows a single strength of "
        "noise, and the next one another: the weights are pulled to and fro."
    )
    return mark_choice(attempt, right="a", message=message, replies=replies)


solution_one_t = "a"


def check_own_marking(attempt: Any) -> Verdict:
    """Mark a kind of ``DiffusionModel`` whose ``compute_loss`` is the mean absolute error.

    It is called with six images of 8x8 pixels and made-up answers, not with a network's.
    """
    if waiting := unanswered(attempt):
        return waiting
    if not (isinstance(attempt, type) and issubclass(attempt, DiffusionModel)):
        return Verdict(
            False, "Hand in the class itself, a kind of DiffusionModel, without calling it."
        )
    if "compute_loss" not in vars(attempt):
        return Verdict(
            False,
            "Your class still marks as DiffusionModel does: give it a compute_loss of its own.",
        )
    random = np.random.default_rng(5)
    x_t, x_start, noise, answer = random.standard_normal((4, 6, 8, 8, 1)).astype("float32")
    shown = ops.convert_to_tensor(x_t), ops.convert_to_tensor(np.arange(6, dtype="int32"))
    loss = call(_loss_of, attempt, shown, {"x_start": x_start, "noise": noise}, answer)
    if no_number := _no_number(loss):
        return no_number
    right = (
        "A network that answers 0 now begins at 0.8, the mean size of the noise, and not at 1: "
        "losses that are marked in different ways cannot be compared."
    )
    hints = _marking_hints(x_t, x_start, noise, answer)
    return mark(loss, np.mean(np.abs(noise - answer)), hints, right, tolerance=1e-3)


def _no_number(loss: Any) -> Verdict | None:
    """What is wrong with a mark that is not one number, if that can be said."""
    if isinstance(loss, Verdict):
        if "x_start" in loss.message:
            return Verdict(
                False, "y is a dictionary of what was done to the images: take y['noise']."
            )
        return None
    if np.shape(loss) == (6,):
        return Verdict(
            False, "That is one number for each image. The weights have one direction to go: take "
            "the mean over the images too."
        )  # fmt: skip
    return None


def _marking_hints(x_t: Any, x_start: Any, noise: Any, answer: Any) -> list[tuple[Any, str]]:
    """Foreseen mistakes in marking the answers."""
    off = noise - answer
    return [
        (np.mean(off**2), "That is still the mean squared error: replace the square by ops.abs."),
        (np.sqrt(np.mean(off**2)), "The root of the mean square weighs large errors as the mean "
         "square does. Take the absolute value of each error, then the mean."),
        (np.sum(np.abs(off)), "The errors are summed. Their mean does not grow with the number of "
         "images and pixels."),
        (np.mean(off), "Without ops.abs, errors of opposite sign cancel."),
        (-np.mean(off), "Without ops.abs, errors of opposite sign cancel."),
        (np.abs(np.mean(off)), "Absolute values first, then the mean: else errors of opposite sign "
         "cancel."),
        (np.mean(np.abs(x_start - answer)), "The answer is compared with the clean image. The "
         "network was asked for the noise: y['noise']."),
        (np.mean(np.abs(x_t - answer)), "The answer is compared with what was shown. What was done "
         "to the images stands in y: y['noise']."),
    ]  # fmt: skip


def _loss_of(kind: type[DiffusionModel], shown: Any, made_of: Any, answer: Any) -> Any:
    """What a kind of model says of an answer; the three dots are handed through."""
    model = kind(DiffusionParameters.digits(), seed=0)
    made_of = {name: ops.convert_to_tensor(value) for name, value in made_of.items()}
    loss = model.compute_loss(x=shown, y=made_of, y_pred=ops.convert_to_tensor(answer))
    return ops.convert_to_numpy(loss) if ops.is_tensor(loss) else loss


class solution_own_marking(DiffusionModel):
    """Marked with the mean absolute error of the noise."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Take the mean size of all errors."""
        return ops.mean(ops.abs(y["noise"] - y_pred))


def check_changed_line(attempt: Any) -> Verdict:
    """Mark the letter: what is drawn if the answers are compared with the clean images?"""
    replies = {
        "a": "They can be worked out from each other, but somebody has to do it. The parameters "
        "still say that the answer is noise.",
        "b": "fit does not know what an answer means. It makes the loss small, whatever it is.",
        "d": "Nearly: the sampler takes each guessed image away, so that pictures turn out bright "
        "where digits are dark. But noise is left in them, and no digit.",
    }  # fmt: skip
    message = (
        "The network guesses digits, and the sampler takes each guess for noise and takes it away. "
        "The loss cannot tell: it measures the question that you asked. DiffusionParameters("
        "prediction='x_start') changes question and drawing together."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_changed_line = "c"


def check_which_run(attempt: Any) -> Verdict:
    """Mark the letter of the run that learns its training images by heart."""
    replies = {
        "a": "A few thousandths are what the chance of t and noise makes.",
        "c": "Both are high: that run has learned little, and nothing by heart.",
        "d": "Here the held-out images are the easier ones. By heart, they would be harder.",
    }  # fmt: skip
    message = (
        "It gets better on what it has seen and worse on what it has not. The training loss alone "
        "would have praised it as the best of the four."
    )
    return mark_choice(attempt, right="b", message=message, replies=replies)


solution_which_run = "b"


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
        (0.006 * rise * np.where(steps < 100, 1, 1 - np.clip((steps - 100) / 980, 0, 1)),
         "That falls along a straight line. Half a cosine is (1 + cos(π · progress)) / 2."),
        (0.006 * rise, "It stays at the top. From step 100 on it should fall."),
    ]  # fmt: skip
    right = "Careful at first, bold in the middle, settling at the end."
    places = [f"step {step}" for step in steps]
    return mark(answer, 0.006 * rise * fall(100, 1080), hints, right, places=places)


def solution_learning_rate(step: int) -> float:
    """An even rise, then half a cosine."""
    if step < 100:
        return 0.006 * step / 100
    progress = (step - 100) / (1080 - 100)
    return 0.006 * (1 + np.cos(np.pi * progress)) / 2
