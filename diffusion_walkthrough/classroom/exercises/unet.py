"""Exercises of chapter 03: counting, shapes, waves of time, and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
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


def check_bottom_shape(attempt: Any) -> Verdict:
    """Mark the shape at the bottom of a U for 28×28 images, base width 32, multipliers 1-2-2.

    The answer is (height, width, channels).
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
    ]  # fmt: skip
    right = (
        "28, 14, 7: two halvings, and 7 cannot be halved again. 784 pixels of one number each "
        "have become 49 pixels of 64."
    )
    return mark(attempt, (7, 7, 64), hints, right, tolerance=1e-9)


solution_bottom_shape = (7, 7, 64)


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
        "One side for each level. Any other would be silently without attention if nobody "
        "checked, which is what several published programs do."
    )
    if len(sizes) != 4 and not any(same_numbers(sizes, wrong) for wrong, _ in hints):
        return Verdict(
            False, f"{len(sizes)} different sides, but four levels. Start at 32 and halve."
        )
    return mark(sizes, (32, 16, 8, 4), hints, right, tolerance=1e-9)


solution_attention_sizes = (32, 16, 8, 4)


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
    return mark(answer, in_halves(right_angles), hints, right)


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


def solution_attention_weights(queries: Any, keys: Any) -> Any:
    """Attention weights, softmax(q·k / √C)."""
    scores = queries @ keys.T / np.sqrt(queries.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _softmax(scores: Any, axis: int = -1) -> Any:
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)
