"""Exercises of chapters 08 and 08b: solutions are right, foreseen mistakes get their own hint."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffusion_walkthrough.classroom.exercises import scaling_up as ask

CHECKS = [
    ask.check_growth,
    ask.check_epoch_hours,
    ask.check_first_pass,
    ask.check_safe_scores,
    ask.check_parts,
    ask.check_scaled_step,
    ask.check_whole_gradient,
    ask.check_standstill,
    ask.check_larger_images,
    ask.check_same_run,
    ask.check_weights_only,
    ask.check_slow_card,
]
FUNCTIONS = [ask.check_safe_scores, ask.check_scaled_step, ask.check_whole_gradient]


def root(x):
    return np.float16(np.sqrt(x.shape[-1]))


def in_float32(x):
    return x.astype(np.float32)


def without_skipping(weight, gradient, scale, rate):
    return weight - rate * gradient / scale


def skipping_nan_only(weight, gradient, scale, rate):
    return weight if math.isnan(gradient) else weight - rate * gradient / scale


def stopping_at_infinity(weight, gradient, scale, rate):
    return weight - rate * int(gradient) / scale


WRONG = [
    (ask.check_growth, (4, 16), "sixteen times the pixels. Start"),
    (ask.check_growth, (4, 4), "sixteen times the pixels. Start"),
    (ask.check_growth, (16, 16), "a pair of pixels"),
    (ask.check_growth, (16, 32), "Sixteen times as many pixels look"),
    (ask.check_growth, (16, 64), "as many partners"),
    (ask.check_growth, (64, 256), "no third"),
    (ask.check_growth, [64, 4096], "eight times the side"),
    (ask.check_growth, (256, 16), "wrong order"),
    (ask.check_epoch_hours, 1 / 3, "way forward only"),
    (ask.check_epoch_hours, 1 / 2, "two operations, a multiplication"),
    (ask.check_epoch_hours, 1 / 6, "Two factors are missing"),
    (ask.check_epoch_hours, 2 / 3, "three times, not two"),
    (ask.check_epoch_hours, 3600, "seconds"),
    (ask.check_epoch_hours, 60, "minutes"),
    (ask.check_first_pass, "a", "before any step"),
    (ask.check_first_pass, "B", "NaN times anything"),
    (ask.check_first_pass, " c) ", "There is none yet"),
    (ask.check_standstill, "a", "shows as NaN at once"),
    (ask.check_standstill, "b", "no attention either"),
    (ask.check_standstill, "d", "too large in float32 as well"),
    (ask.check_larger_images, "a", "Right for the gradient of each guess"),
    (ask.check_larger_images, "c", "the loss is a mean"),
    (ask.check_larger_images, "d", "The question is of float32"),
    (ask.check_same_run, "a", "twice as many in an epoch"),
    (ask.check_same_run, "b", "another one"),
    (ask.check_same_run, "c", "two digits"),
    (ask.check_weights_only, "b", "What does Adam remember"),
    (ask.check_weights_only, "c", "they were saved"),
    (ask.check_weights_only, "d", "the number of the epoch"),
    (ask.check_slow_card, "a", "where arithmetic takes the time"),
    (ask.check_slow_card, "b", "the weights stay on the card"),
    (ask.check_slow_card, "d", "stop with an error"),
    (ask.check_safe_scores, lambda q, k: q @ k.T / root(q), "before anything was divided"),
    (ask.check_safe_scores, lambda q, k: q @ k.T, "before anything was divided"),
    (ask.check_safe_scores, lambda q, k: in_float32(q) @ in_float32(k).T, "Not divided"),
    (ask.check_safe_scores, lambda q, k: q / np.float16(16) @ k.T, "Divided by C = 16"),
    (ask.check_safe_scores, lambda q, k: q / root(q) @ (k / root(k)).T, "Divided by C = 16"),
    (ask.check_safe_scores, lambda q, k: (q / root(q)).T @ k, "channels are compared"),
    (ask.check_scaled_step, lambda w, g, s, r: w - r * g, "still that of the scaled loss"),
    (ask.check_scaled_step, lambda w, g, s, r: w - r * g * s, "Multiplied by the scale"),
    (ask.check_scaled_step, lambda w, g, s, r: w + r * g / s, "Uphill"),
    (ask.check_scaled_step, lambda w, g, s, r: w - g / s, "learning rate is missing"),
    (ask.check_scaled_step, lambda w, g, s, r: r * g / s, "That is the step"),
    (ask.check_scaled_step, without_skipping, "For one of inf the weight became -inf"),
    (ask.check_scaled_step, skipping_nan_only, "For one of inf the weight became -inf"),
    (ask.check_scaled_step, stopping_at_infinity, "stopped with OverflowError"),
    (ask.check_parts, 1, "All at once"),
    (ask.check_parts, 2, "only if nothing else is there"),
    (ask.check_parts, 3, "cannot be divided by three"),
    (ask.check_parts, 32, "the size of a part"),
    (ask.check_parts, 45, "How many equal parts"),
    (ask.check_parts, 8, "Fewer will do"),
    (ask.check_parts, 16, "Fewer will do"),
    (ask.check_parts, 128, "Far fewer"),
    (ask.check_whole_gradient, lambda g, n: g.sum(axis=0), "as many times too large"),
    (ask.check_whole_gradient, lambda g, n: g.mean(axis=0), "Right if all parts are equal"),
    (ask.check_whole_gradient, lambda g, n: n @ g, "the sum over all images"),
    (ask.check_whole_gradient, lambda g, n: n @ g / len(n), "divided by the number of parts"),
    (ask.check_whole_gradient, lambda g, n: g[-1], "the last part's alone"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_solutions_are_right_and_can_be_shown(check, capsys):
    solution = getattr(ask, check.__name__.replace("check_", "solution_"))
    assert check(solution).right is True
    ask.show_solution(check)
    assert check.__name__.replace("check_", "solution_") in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("check", "attempt", "part"), WRONG)
def test_each_foreseen_mistake_gets_its_own_hint(check, attempt, part):
    verdict = check(attempt)
    assert verdict.right is False
    assert part in verdict.message
    others = {check(wrong).message for c, wrong, p in WRONG if c is check and p != part}
    assert verdict.message not in others


@pytest.mark.parametrize(
    "attempt",
    [
        lambda q, k: q @ (k / root(k)).T,  # the keys divided instead
        lambda q, k: in_float32(q) @ in_float32(k).T / 4,
    ],
    ids=["keys", "float32"],
)
def test_other_ways_to_finite_scores_are_right(attempt):
    assert ask.check_safe_scores(attempt).right is True


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("attempt", ["many", -1, np.zeros((2, 3)), 3.5, [[], [1]]], ids=str)
def test_nonsense_gets_a_sentence(check, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert len(verdict.message) > 20


@pytest.mark.parametrize("check", FUNCTIONS, ids=lambda check: check.__name__)
def test_a_function_that_fails_gets_its_reason(check):
    assert "stopped with ZeroDivisionError" in check(lambda *arguments: 1 / 0).message
    assert "stopped with TypeError" in check(lambda: 1).message
    assert "shape" in check(lambda *arguments: np.zeros(7)).message
