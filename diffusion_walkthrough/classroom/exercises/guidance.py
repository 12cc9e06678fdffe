"""Exercises of chapter 10: a guided answer, labels left out, what guidance costs and spoils."""

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


def check_guided(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(told, untold, scale)`` that guides an answer; a scale of 1 is off."""
    told, untold = np.random.default_rng(10).standard_normal((2, 5))
    scale = 2.5
    answer = call(attempt, told, untold, scale)
    way = told - untold
    hints = [
        (told + scale * way, "That is the other convention, off at 0: (1 + w) told - w untold. "
         "Here a scale of 1 is to give the told answer, and 0 the untold one."),
        (told - scale * way, "That leads away from the label: told and untold have changed places. "
         "What should come out at a scale of 1?"),
        (untold - scale * way, "The way is walked backwards: to the label it is told - untold."),
        (untold + (scale - 1) * way, "s - 1 belongs to a walk that begins at the told answer. "
         "Yours begins at the untold one."),
        (told - (scale - 1) * way, "The way is walked backwards: the label has moved the answer by "
         "told - untold."),
        (scale * way, "That is the way alone. From where does it lead?"),
        (way, "That is what the label changes. Go scale times as far, and from where?"),
        (scale * told, "Guidance does not make an answer larger, it goes on in a direction. The "
         "untold answer is missing."),
        (untold + scale * told, "Only what the label changes is to be taken scale times: told less "
         "untold."),
        (scale * told - untold, "The factors of told and untold add up to 1, at each scale."),
        (told, "That is the told answer, and guidance off, at each scale."),
        (untold, "That is the untold answer: nobody has asked for anything."),
        ((told + untold) / 2, "That is half-way to the label. Guidance goes beyond it."),
        ((scale * told + untold) / (scale + 1), "A weighted mean stays between the two answers. "
         "Guidance goes beyond the told one."),
    ]  # fmt: skip
    right = (
        "From the untold answer scale times as far as the label has moved it: 1 gets to the told "
        "answer, and more goes beyond."
    )
    parts = {"told": told, "untold": untold}
    return mark(answer, untold + scale * way, hints, right, parts=parts)


def solution_guided(told: Any, untold: Any, scale: float) -> Any:
    """Begin at the untold answer, and go scale times the way to the told one."""
    return untold + scale * (told - untold)


look_guided = (
    "the formula of “Further in the same direction”: what comes out at a scale of 0, and at 1?"
)


def check_paper_scale(attempt: Any) -> Verdict:
    """Mark the guidance_scale that is a paper's w = 3 in told + w (told - untold)."""
    turned = (
        "There is one number between the two, but which way? w = 0 is the told answer, and that "
        "is a scale of 1."
    )
    hints = [
        (3, "The paper's formula is off at w = 0, ours at a scale of 1: the same number is not the "
         "same guidance."),
        (2, turned),
        (5, "The told answer is once the way from the untold one, not twice."),
        (0, "A scale of 0 is the untold answer, to which nothing is added."),
        (1, "At 1 guidance is off, and at w = 3 it is not."),
        (-3, "A scale below 0 leads away from the label."),
        (-2, "A scale below 0 leads away from the label."),
        (6, "Count how often told - untold is gone from the untold answer on."),
        (9, "Count how often told - untold is gone from the untold answer on."),
        (1 / 3, "Neither divides: they differ by where they begin to count."),
        (0.75, "Neither divides: they differ by where they begin to count."),
    ]  # fmt: skip
    right = (
        "The told answer is already once the way, and 3 more are 4: s = w + 1. Who takes a paper's "
        "3 for a scale of 3 guides less than the paper did."
    )
    return mark(attempt, 4, hints, right, tolerance=1e-9)


solution_paper_scale = 4
steps_paper_scale = (
    "begin at the untold answer: to the told one it is once the way, and how often is it gone then?"
)


def check_drop(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(labels, random, share)`` that leaves out all labels of some images: -1.

    ``labels`` are (n, k), ``random`` is a Generator of NumPy; it is called with a hundred batches.
    """
    if unanswered(attempt) or not callable(attempt):
        return call(attempt)
    share, changed = 0.4, []

    def watched(labels: Any, *others: Any) -> Any:
        before = labels.copy()
        answer = attempt(labels, *others)
        changed.append(not np.array_equal(before, labels))
        return answer

    given, answers = np.random.default_rng(5).integers(0, 4, (100, 40, 3)), []
    for number, labels in enumerate(given):
        answer = call(watched, labels, np.random.default_rng([10, number]), share)
        if isinstance(answer, Verdict) or unanswered(answer):
            return mark(answer, labels, [], "")
        if problem := _what_is_wrong_with_labels(answer, labels):
            return Verdict(False, problem)
        if np.shape(answer) != labels.shape or not same_numbers(answer, answer):
            return mark(answer, labels, [], "")
        answers.append(np.asarray(answer))
    problem = _what_is_wrong_with_the_choice(np.array(answers) != given, share)
    if not problem and any(changed):
        problem = (
            "Right, but the array that it is given changes, too: the labels of the data set, more "
            "of which would be lost in each epoch. Make a new one."
        )
    if problem:
        return Verdict(False, problem)
    return Verdict(True, "One decision for each image, for all that is said of it: so the network "
                   "also learns to answer when it is told nothing at all.")  # fmt: skip


def _what_is_wrong_with_labels(answer: Any, labels: Any) -> str:
    """Name what is wrong with the labels of one batch; "" if some are -1 and the rest as given."""
    try:
        answer = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        return ""
    if answer.ndim == 2 and len(answer) < len(labels) and answer.shape[1] == labels.shape[1]:
        return "Images are missing. All of them stay; only what is said of them is left out."
    if answer.shape == labels.shape[:1]:
        return "One number for each image: is that the decision? Asked for are the labels, (n, k)."
    if answer.shape != labels.shape:
        return ""
    new = answer[(answer != labels) & (answer != -1)]
    if np.isnan(new).any():
        return "What is not said is -1 here: a whole number, as a table of labels can hold."
    if new.size and not new.any():
        return "0 is the first class, and the network would be told that. What is not said is -1."
    if new.size:
        return f"Some labels have become {new[0]:g}. They stay as they are, or are left out: -1."
    return ""


def _what_is_wrong_with_the_choice(lost: Any, share: float) -> str:
    """Name what is wrong with which labels are left out, (batches, n, k); "" if nothing is."""
    images = lost.any(axis=2)
    found, counts = images.mean(), images.sum(axis=1)
    if not lost.any():
        return "No label is left out in a hundred batches."
    if lost.all():
        return "All labels are left out. The share says how many images lose theirs."
    if (lost == lost[:, :1]).all():
        return (
            "All images of a batch are treated alike: some batches lose what others keep. Decide "
            "for each image."
        )
    if (images[:, :, None] != lost).any():
        return (
            "Some images lose one label and keep another: with a decision for each label, all of "
            "them are hardly ever left out together. Decide once for an image."
        )
    if (images == images[0]).all():
        return "In each batch the same places are left out. Draw from random, which goes on."
    if (counts == counts[0]).all():
        return (
            "In each batch equally many images lose their labels. Where that number rounds to 0, "
            "none ever does: decide for each image by itself."
        )
    if abs(found - (1 - share)) < 0.04:
        return "That is the share of images that should keep their labels: turn the comparison."
    if abs(found - share) > 0.04:
        return f"Of the images {found:.2f} lose their labels; it should be {share} of them."
    return ""


def solution_drop(labels: Any, random: np.random.Generator, share: float) -> Any:
    """Decide for each image, and stretch the decision over all of its labels."""
    left_out = random.random(len(labels)) < share
    return np.where(left_out[:, None], -1, labels)


look_drop = "the Check of “Told, and untold”: how many decisions are there for an image?"


def check_dropped_apart(attempt: Any) -> Verdict:
    """Mark the share of images without any of 5 labels, each dropped for itself with 0.1."""
    all_there, one = 0.9**5, 5 * 0.1 * 0.9**4
    exactly_one = "That is the share of images that lack just one label."
    some = "That is the share of images that lack at least one label. Here all 5 are to be missing."
    none = "That is the share of images that keep all 5 labels. Here all 5 are to be missing."
    hints = [
        (0.1, "So often one label is missing. With one decision for all, it would be the answer; "
         "here all 5 have to be dropped at once."),
        (0.5, "0.1 five times over is how many labels an image lacks on average. That all 5 are "
         "missing is a product."),
        (all_there, none), (0.59, none), (0.6, none),
        (1 - all_there, some), (0.41, some), (0.4, some),
        (one, exactly_one), (0.33, exactly_one), (0.328, exactly_one),
        (0.1 / 5, "Not divided among them: each is dropped with 0.1, and all 5 are to be."),
        (0.1**4, "That is four of them. There are 5."),
        (0.1**6, "That would be six. There are 5."),
        (5 * 0.1**5, "There is only one way of dropping all 5."),
        (0.2**5, "Each is dropped with 0.1."),
        (0.9, "So often one label is kept."),
        (0.1 * 0.9**4, "That is one given label dropped and four kept."),
        (0, "Hardly ever, but not never."),
    ]  # fmt: skip
    right = (
        "One image in 100,000. Guidance asks about nothing else in half of its questions, and "
        "this network has hardly ever been shown it: one decision for all labels."
    )
    return mark(attempt, 1e-5, hints, right, tolerance=1e-9)


solution_dropped_apart = 1e-5
steps_dropped_apart = "the shares of decisions that are made apart are multiplied."


def check_evaluations(attempt: Any) -> Verdict:
    """Mark how many answers 50 steps take, of which half are guided, if none is asked in vain."""
    hints = [
        (50, "That is the told answer of each step. Where it is guided the untold one is needed as "
         "well."),
        (100, "That is with guidance everywhere. Outside the interval the untold answer is not "
         "needed."),
        (25, "Outside the interval the image goes on as well, with the told answer."),
        (150, "That would be three answers a step. A guided one takes two, and the others one."),
        (125, "Inside the interval there are two answers a step, told and untold, and outside one: "
         "no step needs more."),
        (1.5, "That is for a step on average. There are 50."),
        (37.5, "There are 50 steps, and none asks for less than one answer."),
        (200, "No step asks for more than two answers."),
        (51, "DDIM asks in each of its steps, and not once more."),
        (49, "DDIM asks in each of its steps, the last one too."),
        (2, "That is for one guided step."),
    ]  # fmt: skip
    right = (
        "50 told and 25 untold answers: the interval saves a quarter. This package does without "
        "that saving: it asks for both in each step, in one call of twice as many images."
    )
    return mark(attempt, 75, hints, right, tolerance=1e-9)


solution_evaluations = 75
steps_evaluations = "the steps inside the interval times 2, and those outside times 1."


def check_too_alike(attempt: Any) -> Verdict:
    """Mark the letter of what is true of images guided so far that they are all alike."""
    replies = {
        "a": "More steps follow the guided way more closely, and it is the way that leads there.",
        "b": "So it is often said. But noise does not go into a product factor by factor: what is "
        "drawn is something else, as the world of one dimension shows.",
        "d": "Then nobody has ever shown it an image without a label, and there is no untold "
        "answer to guide by, however long it is trained.",
    }
    message = (
        "Where nearly all is noise, guidance decides what is drawn, and drives all images the same "
        "way. Switched on later, it finds them spread out, and still leads each to its label."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_too_alike = "c"


def check_replace(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(drawn, image, known, alpha_bar_t, alpha_bar_s, z)`` that inpaints.

    After a step from t to s, ``drawn`` is at s. The known part of the clean ``image`` is to be put
    into its place; ``known`` is True where it is.
    """
    drawn, image, z = np.random.default_rng(13).standard_normal((3, 6))
    known = np.array([True, False, True, True, False, False])
    t, s = 0.5, 0.8
    answer = call(attempt, drawn, image, known, t, s, z)
    noisy = np.sqrt(s) * image + np.sqrt(1 - s) * z
    hints = [
        *((np.where(known, p, drawn), hint) for p, hint in _put_in_their_place(image, t, s, z)),
        (np.where(known, drawn, noisy), TURNED),
        (np.where(known, drawn, image), TURNED),
        (noisy, "That is the whole image, and nothing of what was drawn. Only the known part."),
        (drawn, "Nothing has been put in: the known part is still as the network drew it."),
        (known * noisy, "The part that was drawn is gone. It stays where nothing is known."),
        (drawn + known * noisy, "In the place of what was drawn, not on top of it."),
    ]
    right = (
        "The known part under the noise of s, as all around it: what the network is asked about "
        "next is one image at one noise level."
    )
    return mark(answer, np.where(known, noisy, drawn), hints, right)


TURNED = "The mask is inverted: what is known is replaced, and the rest stays as drawn."


def _put_in_their_place(image: Any, t: float, s: float, z: Any) -> list[tuple[Any, str]]:
    """What may stand in the place of the known part, and should not."""
    roots = "ᾱ is a share of the variance: the factors of image and noise are roots (Eq. 4)."
    both = "The image of one step and the noise of another: both factors belong to s."
    return [
        (image, "That is the clean image, in the midst of noise: the network has never seen "
         "half an image without any. Put it under the noise of s."),
        (np.sqrt(t) * image + np.sqrt(1 - t) * z, "That is the noise of t, where the step began. "
         "It has ended at s, and all around has only the noise of s."),
        (np.sqrt(s) * image + np.sqrt(1 - t) * z, both),
        (np.sqrt(t) * image + np.sqrt(1 - s) * z, both),
        (np.sqrt(s) * image, "The known part is as strong as at s, but has no noise."),
        (image + np.sqrt(1 - s) * z, "At s the image is weaker: √ᾱ times itself."),
        (image + z, "Eq. 4 has a factor before the image, and one before the noise."),
        (np.sqrt(s) * image + z, "The noise is too strong: at s it has a factor, too."),
        (np.sqrt(s) * image - np.sqrt(1 - s) * z, "The noise is added, not taken away."),
        (s * image + (1 - s) * z, roots),
        (s * image + np.sqrt(1 - s) * z, roots),
        (np.sqrt(s) * image + (1 - s) * z, roots),
        (np.sqrt(1 - s) * image + np.sqrt(s) * z, "ᾱ is what is kept of the image: its two "
         "factors have changed places."),
    ]  # fmt: skip


def solution_replace(
    drawn: Any, image: Any, known: Any, alpha_bar_t: float, alpha_bar_s: float, z: Any
) -> Any:
    """Eq. 4 at s, where the step has ended, and only where the image is known."""
    at_s = np.sqrt(alpha_bar_s) * image + np.sqrt(1 - alpha_bar_s) * z
    return np.where(known, at_s, drawn)


look_replace = "the first way of “Fill in”: at which step is the rest of the image by now?"


def check_autoguidance(attempt: Any) -> Verdict:
    """Mark the letter of the other network in autoguidance."""
    replies = {
        "a": "Guidance goes from the other answer to ours and beyond: away from a better one would "
        "be away from what is good.",
        "c": "That is classifier-free guidance: from all images towards those of the label, and so "
        "to less variety.",
        "d": "Then the two differ by their data, and that is where guidance would lead: away from "
        "the other data, and not away from mistakes.",
    }
    message = (
        "Both have the same weaknesses, the worse one more of them. From it to ours and beyond "
        "leads away from these, and not towards less variety."
    )
    return mark_choice(attempt, right="b", message=message, replies=replies)


solution_autoguidance = "b"
