"""Exercises of chapter 06: solutions are right, foreseen mistakes get their own hints."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom.exercises import backward_sampling as ask
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


def step(schedule, x_t, t, guess, z, sigma=None, divide=True, swap=False):
    """One step back with room for mistakes, written in the paper's other form where right."""
    alpha_bar = schedule.alphas_cumprod[t]
    x_start = (x_t - np.sqrt(1 - alpha_bar) * guess) / (np.sqrt(alpha_bar) if divide else 1)
    first, second = schedule.posterior_mean_coef1[t], schedule.posterior_mean_coef2[t]
    if swap:
        first, second = second, first
    sigma = np.sqrt(schedule.posterior_variance[t]) if sigma is None else sigma
    return first * x_start + second * x_t + sigma * z


def other_form(schedule, x_t, t, guess, z):
    beta, alpha_bar = schedule.betas[t], schedule.alphas_cumprod[t]
    mean = (x_t - beta / np.sqrt(1 - alpha_bar) * guess) / np.sqrt(1 - beta)
    sigma = np.exp(0.5 * schedule.posterior_log_variance_clipped[t])
    return mean + (sigma * z if t > 0 else 0)


STEP_MISTAKES = {
    "t = 0 too": lambda s, x, t, e, z: step(
        s, x, t, e, z, np.exp(0.5 * s.posterior_log_variance_clipped[t])
    ),
    "there": lambda s, x, t, e, z: step(s, x, t, e, z, np.sqrt(s.betas[t])),
    "root belongs": lambda s, x, t, e, z: step(s, x, t, e, z, s.posterior_variance[t]),
    "σ times z": lambda s, x, t, e, z: step(s, x, t, e, z, s.betas[t] * (t > 0)),
    "No noise is added": lambda s, x, t, e, z: step(s, x, t, e, z, 0),
    "other published choice": lambda s, x, t, e, z: step(
        s, x, t, e, z, np.sqrt(s.betas[t]) * (t > 0)
    ),
    "exchanged": lambda s, x, t, e, z: step(s, x, t, e, z, swap=True),
    "divide by": lambda s, x, t, e, z: step(s, x, t, e, z, divide=False),
}


@pytest.mark.parametrize("solution", [ask.solution_step_back, step, other_form])
def test_a_right_step_is_right_in_every_form(solution):
    assert ask.check_step_back(solution).right is True


@pytest.mark.parametrize("hint", STEP_MISTAKES)
def test_each_mistake_in_a_step_gets_its_hint(hint):
    verdict = ask.check_step_back(STEP_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


def test_the_hints_of_a_step_name_six_different_misconceptions():
    messages = {ask.check_step_back(mistake).message for mistake in STEP_MISTAKES.values()}
    assert len(messages) == 6  # noise at the end and the missing root are met in two forms each


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (200, "one batch of 64"),
        (4, "number of batches"),
        (64, "for every step"),
        (12800, "single images"),
        (796, "last step only leaves out"),
        (804, "without the network"),
        (801, "one more than the expected"),
        ("many", "cannot be read"),
    ],
)
def test_wrong_numbers_of_calls_get_their_hint(answer, hint):
    verdict = ask.check_network_calls(answer)
    assert verdict.right is False
    assert hint in verdict.message


def test_the_number_of_calls():
    assert ask.check_network_calls(ask.solution_network_calls).right is True


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("a", "exact in one dimension"),
        ("b", "variance 1"),
        ("C", "More steps do not help"),
        ("e", "'a' to 'd'"),
        (3, "'a' to 'd'"),
    ],
)
def test_wrong_reasons_get_their_hint(answer, hint):
    verdict = ask.check_why_noise(answer)
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize("answer", ["d", "D", " d) ", "d."])
def test_the_right_reason_however_it_is_written(answer):
    assert ask.check_why_noise(answer).right is True


REPLIES = {
    ask.check_same_z: ("c", {"a": "no longer independent", "b": "z = 0", "d": "too narrow"}),
    ask.check_impossible: ("c", {"a": "must be so", "b": "range of starts", "d": "cannot cross"}),
    ask.check_what_is_missing: (
        "c", {"a": "copies reach every ball", "b": "precision would be low", "d": "other way round"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", REPLIES)
def test_each_letter_gets_its_own_reply(check):
    right, replies = REPLIES[check]
    assert check(right).right is True
    for letter, reply in replies.items():
        verdict = check(letter)
        assert verdict.right is False
        assert reply in verdict.message


def test_what_the_exercise_says_of_one_z_for_all_steps_is_so():
    schedule, rng = NoiseSchedule(make_betas("linear", 200)), np.random.default_rng(0)
    x, z = rng.standard_normal((2, 5000))
    for t in reversed(range(200)):
        x_start = WORLD.expected_x_start(x, schedule.alphas_cumprod[t])
        mean = schedule.posterior_mean_coef1[t] * x_start + schedule.posterior_mean_coef2[t] * x
        x = mean + np.sqrt(schedule.posterior_variance[t]) * z
    assert x.var() > 3 * WORLD.variance
    assert np.mean(np.abs(x) > 1.3) > 0.2


START_MISTAKES = {
    "Values between −1 and 1": lambda shape, rng: rng.uniform(-1, 1, shape),
    "positive": lambda shape, rng: rng.random(shape),
    "Values beyond 10": lambda shape, rng: rng.integers(0, 256, shape),
    "not a bell": lambda shape, rng: rng.uniform(-(3**0.5), 3**0.5, shape),
    "standard deviation 0.50": lambda shape, rng: 0.5 * rng.standard_normal(shape),
    "Mean 1.00": lambda shape, rng: 1 + rng.standard_normal(shape),
    "the same noise": lambda shape, rng: np.repeat(rng.standard_normal((1, *shape[1:])), 400, 0),
    "Every value is the same": lambda shape, rng: np.zeros(shape),
    "has shape (8, 8, 1)": lambda shape, rng: rng.standard_normal(shape[1:]),
    "NaN": lambda shape, rng: np.full(shape, np.nan),
}


@pytest.mark.parametrize("hint", START_MISTAKES)
def test_each_wrong_start_gets_its_hint(hint):
    verdict = ask.check_start(START_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize(
    "start", [ask.solution_start, lambda shape, rng: rng.normal(size=shape).astype("float32")]
)
def test_a_right_start(start):
    assert ask.check_start(start).right is True


def plain(a, b, share):
    return (1 - share) * a + share * b


def variance(share):
    return (1 - share) ** 2 + share**2


MIX_MISTAKES = {
    "only 0.5": plain,
    "divide by its root": lambda a, b, s: plain(a, b, s) / variance(s),
    "even smaller": lambda a, b, s: plain(a, b, s) * variance(s) ** 0.5,
    "multiply by what should divide": lambda a, b, s: plain(a, b, s) * variance(s),
    "right half-way only": lambda a, b, s: plain(a, b, s) * 2**0.5,
    "changed places": lambda a, b, s: s**0.5 * a + (1 - s) ** 0.5 * b,
    "λ = 1 the second": lambda a, b, s: a,
    "variance is 3.25": lambda a, b, s: (2 - 2 * s) * a + 4 * s * b,
    "NaN": lambda a, b, s: np.full_like(a, np.nan),
    "has shape (2, 40000)": lambda a, b, s: np.stack([a, b]),
}


@pytest.mark.parametrize("hint", MIX_MISTAKES)
def test_each_wrong_mix_of_noise_gets_its_hint(hint):
    verdict = ask.check_noise_mix(MIX_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize(
    "mix",
    [
        ask.solution_noise_mix,
        lambda a, b, s: (1 - s) ** 0.5 * a + s**0.5 * b,
        lambda a, b, s: np.cos(s * np.pi / 2) * a + np.sin(s * np.pi / 2) * b,
    ],
)
def test_every_mix_that_keeps_the_variance_is_right(mix):
    assert ask.check_noise_mix(mix).right is True
