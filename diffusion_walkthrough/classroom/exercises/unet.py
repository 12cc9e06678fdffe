"""Exercises of chapters 03 and 03b: windows, shapes, skips, waves of time, and attention."""

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


def check_convolution(attempt: Any) -> Verdict:
    """Mark the number of parameters of a 3×3 convolution from 64 to 128 channels."""
    hints = [
        (9 * 64 * 128, "Nearly: those are the weights. Each of the 128 new channels also has one "
         "bias, a number added at the end."),
        (9 * 64 * 128 + 64, "Biases belong to what comes out, not to what goes in: there are as "
         "many as new channels."),
        (64 * 128 + 128, "That is a dense layer, which looks at one pixel. A 3×3 convolution "
         "looks at nine."),
        (3 * 64 * 128 + 128, "The window is 3 high and 3 wide: nine pixels, not three."),
        (64 * 128, "That is a window of one pixel. This one is 3 high and 3 wide, and each new "
         "channel also has a bias."),
        (9 * 64, "Those are the weights of a single new channel. There are 128 of them, and each "
         "has a bias too."),
        (9 * 128, "One window for each new channel is not enough: it has separate weights for each "
         "of the 64 old channels too. And there are biases."),
        (9 * 128 + 128, "One window for each new channel is not enough: it has separate weights "
         "for each of the 64 old channels too."),
        (9 * 64 + 128, "These windows would be shared by all new channels, which would then all "
         "be the same. Each of the 128 has its own."),
    ]  # fmt: skip
    right = (
        "3·3·64·128 weights and 128 biases. Height and width of the image do not occur: the same "
        "window slides over all of it, so a larger image costs time, not parameters."
    )
    return mark(attempt, 9 * 64 * 128 + 128, hints, right, tolerance=1e-9)


solution_convolution = 3 * 3 * 64 * 128 + 128
look_convolution = (
    "Look at chapter 03, “Two kinds of layer”: every new channel has a window on every old one."
)


def check_bottom_shape(attempt: Any) -> Verdict:
    """Mark the shape at the bottom of a U for 28×28 images, base width 32, multipliers 1-2-2.

    The answer is (height, width, channels); with the None of the batch, as Keras prints it, too.
    """
    hints = [
        ((3, 3, 64), "Three levels mean two halvings: the image is not halved after the last "
         "level, since there is nothing below it."),
        ((4, 4, 64), "Three levels mean two halvings: the image is not halved after the last "
         "level, since there is nothing below it."),
        ((14, 14, 64), "That is the middle level. There is one more halving below it."),
        ((7, 7, 128), "Each multiplier counts from the base width, not from the level above: the "
         "last level has 2 · 32 channels."),
        ((7, 7, 32), "The halvings are right. The last level is 2 base widths wide."),
        ((7, 7, 2), "The halvings are right. A multiplier of 2 means 2 base widths of 32 "
         "channels."),
        ((64, 7, 7), "The right numbers, but images are (height, width, channels) here: channels "
         "come last."),
        ((28, 28, 64), "Each level halves height and width of the one above."),
        ((7, 7), "Height and width are right. How many channels has the last level?"),
    ]  # fmt: skip
    right = (
        "28, 14, 7: two halvings, and 7 cannot be halved again. 784 pixels of one number each "
        "have become 49 pixels of 64."
    )
    return mark(attempt, (7, 7, 64), hints, right, tolerance=1e-9)


solution_bottom_shape = (7, 7, 64)
steps_bottom_shape = (
    "28 is halved between levels, twice; the width is 32 times the last multiplier."
)
look_bottom_shape = "Look at the picture of the U in chapter 03, “The whole U”: where is it halved?"


def check_shift_window(attempt: Any) -> Verdict:
    """Mark a window of 3×3 weights that moves everything in an image one pixel to the right."""
    zeros = np.zeros((3, 3))

    def with_one(row: int, column: int) -> Any:
        window = zeros.copy()
        window[row, column] = 1
        return window

    hints = [
        (with_one(1, 2), "With this window each new pixel copies its right neighbour. Which way "
         "does the picture move?"),
        (with_one(1, 1), "With this window each new pixel copies the pixel in its own place: "
         "nothing moves."),
        (with_one(0, 1), "Each new pixel copies the one above it, so the picture moves down."),
        (with_one(2, 1), "Each new pixel copies the one below it, so the picture moves up."),
        (with_one(0, 0), "Each new pixel copies the one above on its left: the picture moves to "
         "the right, but down as well."),
        (with_one(2, 0), "Each new pixel copies the one below on its left: the picture moves to "
         "the right, but up as well."),
        ([1, 0, 0], "The right idea for one row. The window has three rows; what do the other two "
         "weigh?"),
        ([[1, 0, 0]] * 3, "That adds up three pixels on the left, one below the other: the picture "
         "moves, and gets blurred."),
        ([[-1, 0, 1]] * 3, "That is the page's window, which finds where it gets lighter. Here "
         "nothing is to be subtracted."),
        ([[1, -1, 0]] * 3, "Differences find edges. To move a picture, copy."),
        (np.full((3, 3), 1 / 9), "That averages nine pixels: a blur. To move a picture, copy one."),
        (np.ones((3, 3)), "That adds up nine pixels. To move a picture, copy one."),
        (zeros, "All weights 0 give an image of zeros."),
    ]  # fmt: skip
    right = (
        "Each new pixel copies its left neighbour, so everything moves right, and at the left rim "
        "a column of the imagined zeros comes in. A dense layer, which sees one pixel at a time, "
        "cannot move anything."
    )
    return mark(attempt, with_one(1, 0), hints, right)


solution_shift_window = [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
look_shift_window = "Look at “Two kinds of layer”: what does the window multiply for one new pixel?"


def check_larger_image(attempt: Any) -> Verdict:
    """Mark how the parameters grow with the image: (c), they do not."""
    convolution = (
        "A convolution's window has nine weights for each pair of old and new channel. Where would "
        "the number of pixels come in?"
    )
    return mark_choice(
        attempt,
        right="c",
        message=(
            "Windows slide, dense layers look at one pixel at a time, and attention is made of "
            "dense layers: none of them knows how many pixels there are. What grows is the work, "
            "fourfold for convolutions, sixteenfold for the pairs of attention."
        ),
        replies={
            "a": f"Four times as many pixels, that is true. {convolution}",
            "b": f"Twice the side, that is true. {convolution}",
            "d": "There are sixteen times as many pairs, that is true. But the weights of a pair "
            "are computed from queries and keys; what is learned is how to make these.",
        },
    )


solution_larger_image = "c"
look_larger_image = (
    "Look at “Two kinds of layer” again: what is a layer's number of weights made of?"
)


def check_no_skip(attempt: Any) -> Verdict:
    """Mark what happens to a U whose finest level gets no skip: (b), detail has to squeeze by."""
    return mark_choice(
        attempt,
        right="b",
        message=(
            "A block takes any number of channels, so nothing complains. But all that the way up "
            "knows of the 64 pixels has come through 16 places, and doubling copies each of them "
            "to four pixels alike. Training can learn to unpack some of it; with a skip it need "
            "not."
        ),
        replies={
            "a": "A residual block takes any number of old channels: if they are not as many as "
            "the new ones, its shortcut gets a dense layer.",
            "c": "What h holds has come up from side 4, each pixel repeated four times. What tells "
            "those four apart again?",
            "d": "Time goes into every block by itself, not through the skips.",
        },
    )


solution_no_skip = "b"
look_no_skip = "Look at “Down, up, and across”: what does doubling do to a small pixel?"


def check_zero_queries(attempt: Any) -> Verdict:
    """Mark what attention gives if all queries are 0: (c), the average of all values."""
    return mark_choice(
        attempt,
        right="c",
        message=(
            "All scores are 0, e⁰ is 1, and 1 divided by the number of pixels is the weight of "
            "each: whoever asks for nothing in particular hears the average of all."
        ),
        replies={
            "a": "The scores are 0. But the softmax turns scores into weights that sum to 1; what "
            "is e⁰?",
            "b": "Nothing prefers the pixel itself: attention has no idea of position, and all "
            "scores are equal.",
            "d": "Nothing is divided by 0 here: the softmax divides by a sum of e⁰ = 1 over all "
            "pixels.",
        },
    )


solution_zero_queries = "c"
look_zero_queries = "Look at the equation of the softmax: what is each term if all scores are 0?"


def check_attention_sizes(attempt: Any) -> Verdict:
    """Mark all the sides that attention_sizes may name: 32×32 images, multipliers 1-2-2-2."""
    waiting = unanswered(attempt)
    if waiting:
        return waiting
    try:
        sizes = sorted({int(size) for size in attempt}, reverse=True)
    except (TypeError, ValueError):
        return Verdict(False, "Give all the sides together, as a tuple of whole numbers.")
    hints = [
        ((3, 2, 1, 0), "Those are the numbers of the levels. attention_sizes names sides in "
         "pixels, which stay true when a level is added on top."),
        ((4, 3, 2, 1), "Those are the numbers of the levels. attention_sizes names sides in "
         "pixels, which stay true when a level is added on top."),
        ((32, 16, 8, 4, 2), "Four levels, so three halvings: no level has side 2."),
        ((16, 8, 4), "The finest level counts too, though attention there is costly: 1,024 "
         "pixels look at 1,024."),
        ((256, 128), "Those are widths, numbers of channels. The question is about sides in "
         "pixels."),
        ((16,), "That is what the paper chose. Which others could it have chosen?"),
    ]  # fmt: skip
    right = (
        "One side for each level. A program that asks at each level whether this is the side "
        "would build a network without attention for any other, and say nothing."
    )
    if len(sizes) != 4 and not any(same_numbers(sizes, wrong) for wrong, _ in hints):
        return Verdict(
            False, f"{len(sizes)} different sides, but four levels. Start at 32 and halve."
        )
    return mark(sizes, (32, 16, 8, 4), hints, right, tolerance=1e-9)


solution_attention_sizes = (32, 16, 8, 4)
steps_attention_sizes = "32, its half, and so on, until there is one side for each level."
look_attention_sizes = "Look at “Three traps”: which sides do the levels have?"


def check_timestep_embedding(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(t, width)`` from steps ``(batch,)`` to waves ``(batch, width)``."""
    t, width = np.array([0, 1, 7, 450, 999]), 8
    answer = call(attempt, t, width)
    half = width // 2
    k = np.arange(half)

    def angles(frequencies: Any) -> Any:
        return t[:, None] * frequencies

    def in_halves(a: Any) -> Any:
        return np.concatenate([np.sin(a), np.cos(a)], axis=-1)

    right_angles = angles(10_000.0 ** (-k / (half - 1)))
    interleaved = np.stack([np.sin(right_angles), np.cos(right_angles)], -1).reshape(len(t), width)
    too_fast = angles(10_000.0 ** (-k / half))
    hints = [
        (in_halves(too_fast), "The exponent runs over k / (half − 1), so that the slowest wave is "
         "exactly 10,000 times slower than the fastest; with k / half it stops short of that."),
        (interleaved, "Sine and cosine take turns here. That carries the same information, but "
         "weights trained with all sines first would read the wrong numbers."),
        (np.concatenate([np.cos(right_angles), np.sin(right_angles)], -1), "Cosines stand first. "
         "The sines come first here; weights depend on the order."),
        (in_halves(angles(10_000.0 ** (k / (half - 1)))), "The frequencies grow up to 10,000. "
         "They should fall from 1 to 1/10,000: the exponent is negative."),
        (np.sin(angles(10_000.0 ** (-np.arange(width) / (width - 1)))), "All sines: then a step "
         "and its mirror image on a wave look alike. Half of the width is for cosines."),
        (right_angles, "These are the angles, which grow with t. Take their sines and cosines, "
         "which stay within −1 and 1."),
    ]  # fmt: skip
    right = "Fast waves tell neighbours apart, slow ones tell early from late: a clock with hands."
    places = [f"t = {step}" for step in t]
    return mark(answer, in_halves(right_angles), hints, right, places=places)


look_timestep_embedding = (
    "Look at the picture of the waves in chapter 03: sines above, cosines below."
)


def solution_timestep_embedding(t: Any, width: int) -> Any:
    """Waves of time, all sines first."""
    half = width // 2
    frequencies = 10_000.0 ** (-np.arange(half) / (half - 1))
    angles = np.asarray(t)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def check_attention_weights(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(queries, keys)``, both ``(pixels, channels)``, that returns the weights.

    Row i of the result says how much pixel i looks at each of the others.
    """
    queries, keys = np.random.default_rng(0).standard_normal((2, 5, 9))
    answer = call(attempt, queries, keys)
    scores = queries @ keys.T
    hints = [
        (_softmax(scores), "The scores are not divided by √C. With many channels they spread so "
         "widely that one pixel takes nearly all the attention."),
        (_softmax(scores / 9), "Divided by C, the number of channels. A sum of C products of "
         "standard size spreads by √C, so √C brings it back to 1; C makes all weights alike."),
        (_softmax(scores / np.sqrt(5)), "Divided by the root of the number of pixels. The sum in "
         "q·k runs over the channels: take √C."),
        (_softmax(scores / 3, axis=0), "The softmax runs over the wrong axis: the columns sum to "
         "1. Each row is one pixel's attention and has to sum to 1."),
        (_softmax(scores.T / 3), "Queries and keys are exchanged: entry (i, j) is the product of "
         "query i and key j."),
        (scores / 3, "Those are the scores. The softmax turns each row into positive weights that "
         "sum to 1."),
        (np.exp(scores / 3), "Positive, but the rows do not sum to 1: divide each by its sum."),
    ]  # fmt: skip
    right = "Each row is positive and sums to 1: a weighted average over all pixels, near and far."
    return mark(answer, _softmax(scores / 3), hints, right)


look_attention_weights = "Look at the cell of chapter 03 that computes scores and weights."


def solution_attention_weights(queries: Any, keys: Any) -> Any:
    """Attention weights, softmax(q·k / √C)."""
    scores = queries @ keys.T / np.sqrt(queries.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def check_time_after_norm(attempt: Any) -> Verdict:
    """Mark whether a block hears the time that is added after its last normalization: (b)."""
    return mark_choice(
        attempt,
        right="b",
        message=(
            "Only a normalization takes a channel's mean away, and behind the second there is "
            "none in this block. (A stack of such blocks still works: the first normalization of "
            "the next one sees the bent, convolved sum, not the bare number.)"
        ),
        replies={
            "a": "What is subtracted is the mean at the moment of normalizing. What was added "
            "afterwards is not in it.",
            "c": "The shortcut carries x around the whole block and never held the time of this "
            "block.",
            "d": "A bend that is not a straight line makes the result depend on what was added.",
        },
    )


solution_time_after_norm = "b"
look_time_after_norm = "Look at “Deaf to time”: what takes the time away there?"


def check_instead_of_root(attempt: Any) -> Verdict:
    """Mark what does the same as dividing scores over 64 channels by √64, at the start: (a)."""
    return mark_choice(
        attempt,
        right="a",
        message=(
            "A score is a product of a query and a key, so queries an eighth as large make scores "
            "an eighth as large. The package divides the queries, too, before the product: small "
            "numbers cannot leave the range of half precision."
        ),
        replies={
            "b": "Values are averaged after the weights are decided. Smaller ones change what "
            "arrives, not who is looked at.",
            "c": "The spread of a score comes from the number of channels summed in it, not from "
            "how many pixels there are.",
            "d": "That makes the scores 64 times smaller, since both factors shrink: all weights "
            "nearly alike. By how much has the product to shrink?",
        },
    )


solution_instead_of_root = "a"
look_instead_of_root = "Look at “Why √C?”: what is summed in a score?"


def check_unpacking(attempt: Any) -> Verdict:
    """Mark what a small image explains if each of its pixels writes four: (b)."""
    return mark_choice(
        attempt,
        right="b",
        message=(
            "The four copies differ now, so what the 64 channels know of four pixels can go back "
            "to its place. What no reading of the small image finds is lost all the same; the "
            "skip brings the rest, and spares the learning."
        ),
        replies={
            "a": "Then the small image would have lost it. But the same least squares, reading "
            "that image directly, explained far more.",
            "c": "Not more than can be read from the small image, from which everything is "
            "written here.",
            "d": "The weights differ from copy to copy, not from image to image: they are learned "
            "like all others.",
        },
    )


solution_unpacking = "b"
look_unpacking = "Look at the three shares under “What skips are worth”."


def _softmax(scores: Any, axis: int = -1) -> Any:
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)
