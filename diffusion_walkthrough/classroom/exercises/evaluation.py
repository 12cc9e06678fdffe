"""Exercises of chapter 07: a distance and a coverage by hand, the floor, and marks that mislead."""

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


def check_distance(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(a, b)``: the Fréchet distance of two crowds of numbers, each ``(n,)``."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(1.0, 2.0, 4000), rng.normal(2.5, 0.5, 3000)
    means, spreads = (a.mean() - b.mean()) ** 2, (a.std() - b.std()) ** 2
    answer = call(attempt, a, b)
    hints = [
        (np.sqrt(means + spreads), "That is its root. The Fréchet distance, and the FID, are given "
         "as the square: leave the root out."),
        (means + (a.var() - b.var()) ** 2, "The spreads are the standard deviations, and you took "
         "the variances: std, not var."),
        (means, "Only the middles are compared. Two crowds with the same middle may still be "
         "spread differently: add the square of the difference of the spreads."),
        (spreads, "Only the spreads are compared. Add the square of the difference of the means."),
        (means + abs(a.var() - b.var()), "A difference of variances is not yet the square of a "
         "difference of spreads: subtract the standard deviations, then square."),
        (means + a.var() + b.var(), "The variances are added. What counts is how far the spreads "
         "differ: equal ones cost nothing."),
        (abs(a.mean() - b.mean()) + abs(a.std() - b.std()), "Both differences are there, but "
         "neither is squared."),
        (means - spreads, "The two squares are added: nothing brings crowds nearer by spreading "
         "them differently."),
    ]  # fmt: skip
    right = (
        "The middles' difference squared plus the spreads' difference squared; FID is the same for "
        "many features at once, where spreads become matrices."
    )
    return mark(answer, means + spreads, hints, right, tolerance=2e-3)


def solution_distance(a: Any, b: Any) -> Any:
    """Both differences squared: that of the means, and that of the standard deviations."""
    of_means = (a.mean() - b.mean()) ** 2
    return of_means + (a.std() - b.std()) ** 2


def check_coverage(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(distances, radii)`` that returns the coverage, from 0 to 1.

    ``distances`` is (real, drawn), ``radii`` (real,): the share of balls of real images in which at
    least one drawn image lies.
    """
    rng = np.random.default_rng(3)
    distances, radii = rng.uniform(0.5, 4.0, (40, 25)), rng.uniform(0.3, 0.9, 40)
    inside = distances <= radii[:, np.newaxis]
    answer = call(attempt, distances, radii)
    hints = [
        (inside.any(axis=0).mean(), "That is precision: the share of *drawn* images in a ball. "
         "Asked is for the share of *balls* with a drawn image in them: the other axis."),
        (inside.mean(), "That is the share of all pairs. A ball counts once, however many drawn "
         "images lie in it: first any, then mean."),
        (inside.sum(axis=1).mean(), "That counts how many drawn images lie in a ball. A ball "
         "counts once: any in the place of sum."),
        (inside.any(axis=1).sum(), "That is the number of balls. A share: divide by how many real "
         "images there are."),
        (inside.all(axis=1).mean(), "A single drawn image in a ball is enough: any, not all."),
        ((distances.min(axis=0) <= radii[:25]).mean(), "The nearest was taken over the real "
         "images. Each ball asks for its nearest *drawn* image: the other axis."),
        ((~inside.any(axis=1)).mean(), "That is the share of balls that are missed: the rest of "
         "1."),
        (inside.any(axis=1), "True or False for each ball, and right so far. Asked is for the "
         "share: take the mean."),
    ]  # fmt: skip
    right = (
        "Balls of real images only: garbage has none of its own, so it cannot cover anything by "
        "being spread out."
    )
    return mark(answer, inside.any(axis=1).mean(), hints, right, tolerance=1e-9)


def solution_coverage(distances: Any, radii: Any) -> Any:
    """A ball is covered if the drawn image that is nearest to its middle lies in it."""
    nearest = distances.min(axis=1)
    return np.mean(nearest <= radii)


def check_floor(attempt: Any) -> Verdict:
    """Mark the floor of 800 images, if that of 200 (of each, real against real) is 1.4."""
    hints = [
        (0.7, "Errors of a mean fall like 1/√n. But the Fréchet distance is a square: it falls "
         "like 1/n."),
        (1.4, "More images settle mean and covariance better, so the floor falls: like 1/n."),
        (5.6, "The wrong way: with more images the floor is lower."),
        (0.0875, "Four times as many images on each side: divided by 4, not by 16."),
        (2.8, "The wrong way: with more images the floor is lower."),
        (0.0, "It is 0 only for infinitely many. It falls like 1/n."),
        (0.175, "Four times as many images, not eight times: 800 / 200."),
    ]  # fmt: skip
    right = (
        "A quarter of it. So a distance of 1.0 is poor for 800 images and splendid for 200: name n "
        "with every Fréchet distance."
    )
    return mark(attempt, 0.35, hints, right, tolerance=0.02)


solution_floor = 1.4 * 200 / 800
steps_floor = "the floor at 200, times how it falls with n, which is like 1/n."


def check_which_is_better(attempt: Any) -> Verdict:
    """Mark which of two models with distances of different n draws better."""
    replies = {
        "a": "0.24 is the smaller number, but 5,000 images make any distance smaller, that of real "
        "ones too.",
        "b": "500 images make a distance larger than it would be for more, but by how much depends "
        "on what is drawn. Do not correct it by feel: draw the same number.",
        "d": "Both numbers mean something, each beside real images of its own n; only not beside "
        "each other.",
    }
    message = (
        "Distances of different n cannot be compared. Draw as many with both, and put real images "
        "of the same number beside them."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_which_is_better = "c"


def check_dense(attempt: Any) -> Verdict:
    """Mark what a model draws that has a density of 1.6 and a coverage of 0.1."""
    replies = {
        "a": "Noise lies in no ball of a real image, and its density is 0.",
        "c": "Then the balls of all kinds would have a drawn image in them, and coverage would be "
        "as high as that of real images.",
        "d": "Copies of all training images would lie in nearly every ball: coverage near 1.",
    }
    message = (
        "Where many balls overlap, each drawn image counts for many of them; and most balls stay "
        "empty. Blurred images do the same. Density alone looks splendid."
    )
    return mark_choice(attempt, right="b", message=message, replies=replies)


solution_dense = "b"


def check_cannot_be(attempt: Any) -> Verdict:
    """Mark which pair of marks is impossible."""
    replies = {
        "a": "That is noise far out: its balls are huge, and every real image lies in one.",
        "b": "Those are the smudges: mean and covariance are right, and hardly one is a digit.",
        "d": "A few copies among hundreds of new images move the test little. Look at the pairs.",
    }
    message = (
        "If nine tenths of the balls have a drawn image in them, drawn images lie in balls, and "
        "density is more than 0. The other three were all on this page."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_cannot_be = "c"
