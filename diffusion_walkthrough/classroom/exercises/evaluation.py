"""Exercises of chapters 07 (marks by hand, and marks that mislead) and 07b (who sees how much)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import softmax

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


# 07b


def check_fewer(attempt: Any) -> Verdict:
    """Mark what the exact denoiser of half of the training digits draws."""
    replies = {
        "a": "It cannot make anything up: whatever it answers is an average of the digits it was "
        "given, and in the end of a single one.",
        "c": "An average is blurred while there is much noise. At the end of the walk one digit "
        "explains what is seen better than all others, and has all the weight.",
        "d": "A mosaic comes from not seeing the whole image. It still sees all of it; it only "
        "has fewer digits to compare with.",
    }
    message = (
        "To know less is not to see less. With one digit it would draw that one, with all digits "
        "of the world all of these: what is new comes from the window, not from the set."
    )
    return mark_choice(attempt, right="b", message=message, replies=replies)


solution_fewer = "b"


def check_one_pixel(attempt: Any) -> Verdict:
    """Mark what a window of a single pixel draws."""
    replies = {
        "a": "To make a digit, a pixel must know something of the others: this one knows nothing "
        "but itself.",
        "c": "All pixels grey is the best guess while there is much noise. On the way down each "
        "one settles for a value that pixels of digits have, most often black.",
        "d": "A copy needs the whole image to be compared. Here each pixel is compared by itself.",
    }
    message = (
        "Each pixel walks as in the one-dimensional world, where all pixels of all digits are the "
        "data. It takes a value that occurs, and its neighbours do not matter."
    )
    return mark_choice(attempt, right="b", message=message, replies=replies)


solution_one_pixel = "b"


def check_far(attempt: Any) -> Verdict:
    """Mark what is shown if all drawn images are far from all training images."""
    replies = {
        "a": "The 3 × 3 mosaics are the farthest of all on this page, and none of them is a digit. "
        "Novelty alone is no merit.",
        "b": "A network may have learned next to nothing and draw noise: that is far away, too.",
        "d": "It says something: no training image was copied as a whole.",
    }
    message = (
        "Far away are new digits, and far away is garbage. So ask for both: a distance that says "
        "nothing was copied, and a precision that says it looks like the real ones."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_far = "c"


def check_patches(attempt: Any) -> Verdict:
    """Mark with how many patches a 5 x 5 window in the middle is compared, of 1,500 8 x 8 images.

    Such a window fits into an image at 4 · 4 places.
    """
    hints = [
        (54_000, "That is the number for 3 × 3, which fit at 6 · 6 places. A larger window fits at "
         "fewer."),
        (96_000, "Not around each of the 64 pixels: near the border a window of 5 × 5 is cut off, "
         "and is compared with others that are cut off alike."),
        (1_500, "One patch of each image would be right if only the same place counted. Here they "
         "come from anywhere in the image."),
        (13_500, "Count the places along one side again: the window can begin at column 0, 1, 2 "
         "and 3."),
        (37_500, "25 is how many pixels a patch has. Asked is at how many places it fits."),
        (6_000, "That is along one side only. The window can move sideways and up and down."),
        (12_000, "The places along both sides are multiplied, not added."),
        (16, "That is in one image. There are 1,500 of them."),
    ]  # fmt: skip
    right = (
        "4 · 4 places in each of 1,500 images. The larger the window, the fewer patches there are, "
        "and the more alike two must be to explain it: in the end there is one, a copy."
    )
    return mark(attempt, 24_000, hints, right, tolerance=1e-6)


solution_patches = 1500 * (8 - 5 + 1) ** 2
look_patches = (
    "the cell that works one pixel out by hand: it prints the number for windows of 3 × 3."
)
steps_patches = "at how many places a window of 5 × 5 fits into 8 × 8 pixels, times 1,500 images."


def check_guess(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(seen, patches, a, b)``: the guess of a pixel from the window around it.

    ``seen`` is (9,), what the window shows of a noisy image, ``patches`` (n, 9), clean ones.
    """
    rng = np.random.default_rng(5)
    patches, a, b = rng.uniform(-1, 1, (30, 9)), 0.6, 0.8
    seen = a * patches[3] + b * rng.standard_normal(9)
    squares = ((seen - a * patches) ** 2).sum(axis=1)
    weights, middles = softmax(-squares / (2 * b**2)), patches[:, 4]
    answer = call(attempt, seen, patches, a, b)
    hints = [
        (softmax(-((seen - patches) ** 2).sum(axis=1) / (2 * b**2)) @ middles, "The noisy image "
         "holds a times the clean one: compare what is seen with a times each patch."),
        (softmax(-squares / (2 * b)) @ middles, "b is the size of the noise, and its square the "
         "variance: divide the squared distance by 2 b², not by 2 b."),
        (softmax(-squares / b**2) @ middles, "Nearly: a bell is e to the minus squared distance "
         "over *twice* the variance. Divide by 2 b²."),
        (softmax(-squares) @ middles, "How much a distance counts depends on the noise: divide "
         "the squared distances by 2 b²."),
        (softmax(squares / (2 * b**2)) @ middles, "The sign: the patches that fit *worst* have the "
         "largest weights. The exponent is minus the squared distance over 2 b²."),
        (softmax(-np.sqrt(squares) / (2 * b**2)) @ middles, "The exponent of a bell has the "
         "*squared* distance: leave the root out."),
        (middles[squares.argmin()], "That is the patch that fits best, alone. The best guess is "
         "an average of all, each weighted by how well it explains what is seen."),
        (middles.mean(), "All patches count alike there. Weight each by how well it explains what "
         "is seen."),
        (np.exp(-squares / (2 * b**2)) @ middles, "The weights must add up to 1: divide them by "
         "their sum."),
        (weights @ patches, "That is the guess of the whole patch. Asked is for its middle, number "
         "4 of nine."),
        (a * weights @ middles, "The patches are clean already: do not multiply the answer by a."),
        (seen[4], "That is the noisy pixel itself. The patches say what may lie behind it."),
    ]  # fmt: skip
    right = (
        "The same few lines for every pixel, and for windows of any size: with the whole image as "
        "the window they are the exact denoiser of chapter 06."
    )
    return mark(answer, weights @ middles, hints, right)


def solution_guess(seen: Any, patches: Any, a: Any, b: Any) -> Any:
    """The middles, averaged, each weighted by how well its patch explains what is seen."""
    squares = ((seen - a * patches) ** 2).sum(axis=1)
    weights = np.exp(-(squares - squares.min()) / (2 * b**2))
    return weights @ patches[:, 4] / weights.sum()


look_guess = "the cell that works one pixel out by hand."
steps_guess = "a weight for each patch, e to the minus (squared distance over 2 b²); then a mean."
