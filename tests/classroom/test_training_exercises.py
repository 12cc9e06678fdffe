"""The exercises of chapter 05 answer right and wrong attempts with what they deserve."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_walkthrough.classroom.exercises import training as ask


def hidden(x_start, alpha_bar, noise):
    kept = alpha_bar[:, None]
    return np.sqrt(kept) * x_start + np.sqrt(1 - kept) * noise


def fall(step, begin=100, end=1080, turns=np.pi):
    share = np.clip((step - begin) / (end - begin), 0, 1)
    return 0.5 * (1 + np.cos(turns * share))


def rise(step):
    return min(step / 100, 1)


@pytest.mark.parametrize(
    ("check", "solution"),
    [
        (ask.check_steps, ask.solution_steps),
        (ask.check_training_loss, ask.solution_training_loss),
        (ask.check_start_share, ask.solution_start_share),
        (ask.check_learning_rate, ask.solution_learning_rate),
    ],
)
def test_solutions_are_right(check, solution):
    assert check(solution).right is True


@pytest.mark.parametrize(
    ("check", "attempt", "hint"),
    [
        (ask.check_steps, 23 * 100, "1,472"),
        (ask.check_steps, 2344, "Round up"),
        (ask.check_steps, 150_000, "whole batch"),
        (ask.check_steps, 24, "There are 100"),
        (ask.check_steps, 100, "many steps"),
        (ask.check_start_share, 1 - 0.999**500, "share of everything later"),
        (ask.check_start_share, 0.999, "after one step"),
        (ask.check_start_share, 0.5, "a thousandth of what is left"),
        (ask.check_start_share, 0.001, "newest weights"),
        (ask.check_learning_rate, lambda s: 0.006 * fall(s) if s >= 100 else 0.006, "warm-up"),
        (ask.check_learning_rate, lambda s: 0.006 * rise(s) * (fall(s, 0) if s >= 100 else 1),
         "before the rise is over"),
        (ask.check_learning_rate, lambda s: 0.006 * rise(s) * fall(s, turns=2 * np.pi),
         "comes back up"),
        (ask.check_learning_rate,
         lambda s: 0.006 * rise(s) * (1 - np.clip((s - 100) / 860, 0, 1)), "straight line"),
        (ask.check_learning_rate, lambda s: 0.006 * rise(s), "stays at the top"),
        (ask.check_learning_rate, lambda s: 1.0, "numbers differ"),
    ],
)  # fmt: skip
def test_each_foreseen_mistake_gets_its_own_hint(check, attempt, hint):
    verdict = check(attempt)
    assert verdict.right is False
    assert hint in verdict.message


def with_loss(loss):
    """An attempt that hides correctly and computes this loss."""

    def attempt(x_start, alpha_bar, noise, guess):
        x_t = hidden(x_start, alpha_bar, noise)
        return x_t, loss(x_start, x_t, noise, guess)

    return attempt


def with_hiding(hide):
    """An attempt that hides like this and compares correctly."""

    def attempt(x_start, alpha_bar, noise, guess):
        x_t = hide(x_start, alpha_bar[:, None], noise)
        return x_t, np.mean((noise - guess(x_t)) ** 2)

    return attempt


@pytest.mark.parametrize(
    ("attempt", "hint"),
    [
        (with_loss(lambda x, x_t, noise, g: np.mean((x - g(x_t)) ** 2)), "clean image"),
        (with_loss(lambda x, x_t, noise, g: np.mean(np.abs(noise - g(x_t)))), "absolute"),
        (with_loss(lambda x, x_t, noise, g: np.sum((noise - g(x_t)) ** 2)), "summed"),
        (with_loss(lambda x, x_t, noise, g: np.mean(noise - g(x_t)) ** 2), "Square first"),
        (with_loss(lambda x, x_t, noise, g: np.mean((noise - g(x)) ** 2)), "must find the noise"),
        (with_hiding(lambda x, a, noise: a * x + (1 - a) * noise), "shares of variance"),
        (with_hiding(lambda x, a, noise: x + np.sqrt(1 - a) * noise), "not dimmed"),
        (with_hiding(lambda x, a, noise: np.sqrt(1 - a) * x + np.sqrt(a) * noise), "places"),
        (lambda *_: 0.5, "two things"),
    ],
)
def test_each_mistake_in_the_training_loss_gets_its_own_hint(attempt, hint):
    verdict = ask.check_training_loss(attempt)
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize(
    ("check", "attempt"),
    [
        (ask.check_steps, ...),
        (ask.check_start_share, ...),
        (ask.check_training_loss, lambda *_: ...),
        (ask.check_learning_rate, lambda _: ...),
    ],
)
def test_no_attempt_is_recognized(check, attempt):
    assert check(attempt).right is None


@pytest.mark.parametrize("check", [ask.check_training_loss, ask.check_learning_rate])
@pytest.mark.parametrize("attempt", [3, "text", lambda *_: 1 / 0, lambda *_: None])
def test_what_is_no_answer_is_told_so(check, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert verdict.message
