"""Exercises of chapter 02: each solution is right, each foreseen mistake gets its own hint."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom.exercises import noise_schedule as ask
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

SOLUTIONS = [
    (ask.check_alpha_bar, ask.solution_alpha_bar),
    (ask.check_impossible_strip, ask.solution_impossible_strip),
    (ask.check_quarter_of_the_steps, ask.solution_quarter_of_the_steps),
    (ask.check_colour_batch, ask.solution_colour_batch),
    (ask.check_betas_from_alpha_bar, ask.solution_betas_from_alpha_bar),
    (ask.check_posterior_variance, ask.solution_posterior_variance),
    (ask.check_block_log_snr, ask.solution_block_log_snr),
    (ask.check_trace, ask.solution_trace),
    (ask.check_back_from_nothing, ask.solution_back_from_nothing),
]
FUNCTIONS = [
    ask.check_alpha_bar,
    ask.check_posterior_variance,
    ask.check_betas_from_alpha_bar,
]


def kept(betas):
    return np.cumprod(1 - betas)


def before(betas):
    return np.append(1.0, kept(betas)[:-1])


def right_variance(betas):
    return betas * (1 - before(betas)) / (1 - kept(betas))


FORESEEN = [
    # ᾱ
    (ask.check_alpha_bar, np.cumprod, "multiplies what each step adds"),
    (ask.check_alpha_bar, lambda b: 1 - b, "That is α"),
    (ask.check_alpha_bar, lambda b: 1 - np.cumsum(b), "shares do not add up"),
    (ask.check_alpha_bar, lambda b: 1 - np.cumprod(b), "take 1 − β first"),
    (ask.check_alpha_bar, before, "one step earlier"),
    (ask.check_alpha_bar, lambda b: np.sqrt(kept(b)), "That is √ᾱ"),
    (ask.check_alpha_bar, lambda b: 1 - kept(b), "share of the noise"),
    (ask.check_alpha_bar, lambda b: np.prod(1 - b), "after the last step only"),
    # choices
    (ask.check_impossible_strip, "a", "Wasteful"),
    (ask.check_impossible_strip, "c", "never gets to noise"),
    (ask.check_impossible_strip, "d", "cosine schedule"),
    (ask.check_quarter_of_the_steps, "a", "β ends in the same place"),
    (ask.check_quarter_of_the_steps, "b", "stands in an exponent"),
    (ask.check_quarter_of_the_steps, "d", "add less noise"),
    (ask.check_colour_batch, "a", "two lengths that do not fit"),
    (ask.check_colour_batch, "b", "lines up the last axes"),
    (ask.check_colour_batch, "c", "with grey images"),
    (ask.check_trace, "a", "trained for longer"),
    (ask.check_trace, "b", "larger network"),
    (ask.check_trace, "d", "Other seeds"),
    (ask.check_back_from_nothing, "a", "look what you divide by"),
    (ask.check_back_from_nothing, "c", "as long as √ᾱ is not 0"),
    (ask.check_back_from_nothing, "d", "still is a best guess"),
    # log SNR of a block
    (ask.check_block_log_snr, 256, "how many noises"),
    (ask.check_block_log_snr, 16, "*spread* of the noise"),
    (ask.check_block_log_snr, 2.77, "logarithm of 16"),
    (ask.check_block_log_snr, 4.16, "blocks of 8 by 8"),
    (ask.check_block_log_snr, -5.545, "rise or fall"),
    (ask.check_block_log_snr, 8, "base 2"),
    (ask.check_block_log_snr, 2.41, "base 10"),
    # β̃
    (ask.check_posterior_variance, lambda b: np.sqrt(right_variance(b)), "standard deviation"),
    (ask.check_posterior_variance, lambda b: b, "noise of the step forward"),
    (
        ask.check_posterior_variance,
        lambda b: b * (1 - kept(b)) / (1 - np.append(kept(b)[1:], kept(b)[-1])),
        "Off by one",
    ),
    (ask.check_posterior_variance, lambda b: b * before(b) / kept(b), "shares of noise belong"),
    (
        ask.check_posterior_variance,
        lambda b: b * np.sqrt((1 - before(b)) / (1 - kept(b))),
        "takes no root",
    ),
    (
        ask.check_posterior_variance,
        lambda b: np.append(b[0], right_variance(b)[1:]),
        "first entry is not β",
    ),
    # β from ᾱ
    (ask.check_betas_from_alpha_bar, lambda a: 1 - a[1:] / a[:-1], "One β is missing"),
    (ask.check_betas_from_alpha_bar, lambda a: a / np.append(1, a[:-1]), "That is α"),
    (ask.check_betas_from_alpha_bar, lambda a: 1 - a, "noise of all steps so far"),
    (ask.check_betas_from_alpha_bar, lambda a: np.append(1, a[:-1]) - a, "*first* image"),
    (
        ask.check_betas_from_alpha_bar,
        lambda a: 1 - a / np.append(a[0], a[:-1]),
        "first step adds noise too",
    ),
    (ask.check_betas_from_alpha_bar, lambda a: np.append(1 - a[1:] / a[:-1], 0), "Off by one"),
    (ask.check_betas_from_alpha_bar, lambda a: 1 - np.sqrt(a / np.append(1, a[:-1])), "no root"),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_each_solution_is_right(check, solution):
    verdict = check(solution)
    assert verdict.right is True
    assert len(verdict.message.split()) > 5


@pytest.mark.parametrize(("check", "wrong", "hint"), FORESEEN)
def test_each_foreseen_mistake_gets_its_hint(check, wrong, hint):
    verdict = check(wrong)
    assert verdict.right is False
    assert hint in verdict.message


def test_no_two_mistakes_share_a_hint():
    messages = [check(wrong).message for check, wrong, _ in FORESEEN]
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("check", FUNCTIONS)
@pytest.mark.parametrize(
    ("garbage", "piece"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda: 1, "TypeError"),
        (lambda _: "a text", "is expected"),
        (lambda _: np.ones((2, 2)), "shape (2, 2)"),
        (lambda _: {"beta": 1}, "is expected"),
        (0.5, "0.5"),
    ],
)
def test_garbage_gets_a_message_and_no_traceback(check, garbage, piece):
    verdict = check(garbage)
    assert verdict.right is False
    assert piece in verdict.message


@pytest.mark.parametrize("garbage", ["a text", [0.1, 0.2], float("nan"), len])
def test_a_number_that_is_none_gets_a_message(garbage):
    assert ask.check_block_log_snr(garbage).right is False


@pytest.mark.parametrize("answer", [5.545, 5.55, 5.5, np.float32(5.5452)])
def test_a_rounded_log_snr_is_right(answer):
    assert ask.check_block_log_snr(answer).right is True


def test_clipped_betas_are_right_too():
    def clipped(alpha_bar):
        return np.minimum(ask.solution_betas_from_alpha_bar(alpha_bar), 0.999)

    assert ask.check_betas_from_alpha_bar(clipped).right is True
    assert ask.check_betas_from_alpha_bar(lambda a: np.minimum(1 - a, 0.999)).right is False


def test_the_choices_are_right_about_the_package():
    left = NoiseSchedule(np.linspace(0.0001, 0.02, 250)).signal_left
    assert f"{left:.2f}" in ask.check_quarter_of_the_steps("c").message
    photographs, factors = np.ones((3, 32, 32, 3)), np.array([0.5, 0.6, 0.7])
    mixed = factors * photographs  # no error, the same shape, and one factor for each colour
    assert mixed.shape == photographs.shape
    np.testing.assert_array_equal(mixed[0, 0, 0], factors)


def test_solutions_agree_with_the_package():
    schedule = NoiseSchedule(make_betas("linear", 40))
    np.testing.assert_allclose(ask.solution_alpha_bar(schedule.betas), schedule.alphas_cumprod)
    np.testing.assert_allclose(
        ask.solution_posterior_variance(schedule.betas), schedule.posterior_variance
    )
    np.testing.assert_allclose(
        ask.solution_betas_from_alpha_bar(schedule.alphas_cumprod), schedule.betas
    )
    even_fall = 1 - np.arange(1, 51) / 50
    np.testing.assert_allclose(ask.solution_betas_from_alpha_bar(even_fall), make_betas("jsd", 50))
