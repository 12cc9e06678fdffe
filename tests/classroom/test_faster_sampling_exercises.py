"""Exercises of chapter 09: solutions are right, foreseen mistakes get their own hints."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.backward_sampling import walk
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.classroom.exercises import faster_sampling as ask
from diffusion_walkthrough.exact_denoiser import MixtureDenoiser
from diffusion_walkthrough.faster_sampling import SAMPLERS, ddim_step, karras_sigmas, spaced
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


def in_sigma(x, guess, a, b, a_s, b_s):
    """The same step, written as the page does, with all divided by a."""
    return a_s * (guess + (b_s / a_s) / (b / a) * (x / a - guess))


STEP_MISTAKES = {
    "is not the noise in it": lambda x, g, a, b, a_s, b_s: a_s * g + b_s * x,
    "Divide by b_t": lambda x, g, a, b, a_s, b_s: a_s * g + b_s * (x - a * g),
    "not all of it": lambda x, g, a, b, a_s, b_s: a_s * g + b_s * (x - g) / b,
    "both factors are missing": lambda x, g, a, b, a_s, b_s: a_s * g + b_s * (x - g),
    "as much noise as before": lambda x, g, a, b, a_s, b_s: a_s * g + x - a * g,
    "than at t: a_s of it": lambda x, g, a, b, a_s, b_s: a * g + b_s * (x - a * g) / b,
    "not yet whole": lambda x, g, a, b, a_s, b_s: g + b_s * (x - a * g) / b,
    "b_s times it": lambda x, g, a, b, a_s, b_s: a_s * g + (x - a * g) / b,
    "That is x_t again": lambda x, g, a, b, a_s, b_s: x,
    "leap to the clean image": lambda x, g, a, b, a_s, b_s: g,
    "t and s are exchanged": lambda x, g, a, b, a_s, b_s: a * g + b * (x - a_s * g) / b_s,
    "not squared": lambda x, g, a, b, a_s, b_s: a_s**2 * g + b_s**2 * (x - a * g) / b,
    "wrong sign": lambda x, g, a, b, a_s, b_s: a_s * g - b_s * (x - a * g) / b,
    "gone at once": lambda x, g, a, b, a_s, b_s: a_s * g,
}


@pytest.mark.parametrize("solution", [ask.solution_ddim_step, in_sigma])
def test_a_right_step_is_right_in_every_form(solution):
    assert ask.check_ddim_step(solution).right is True


def test_the_solution_is_the_step_of_the_package():
    schedule, rng = NoiseSchedule(make_betas("cosine", 100)), np.random.default_rng(0)
    x, guess = rng.standard_normal((2, 1, 6))
    (a, b), (a_s, b_s) = (schedule.rates(np.array([place]), 2) for place in (70, 31))
    found, _ = ddim_step(lambda *_: guess, schedule, x, np.array([70]), np.array([31]), 0 * x)
    ours = ask.solution_ddim_step(x, guess, a, b, a_s, b_s)
    np.testing.assert_allclose(ops.convert_to_numpy(found), ours, atol=1e-5)


@pytest.mark.parametrize("hint", STEP_MISTAKES)
def test_each_mistake_in_a_step_gets_its_hint(hint):
    verdict = ask.check_ddim_step(STEP_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


SPACING_MISTAKES = {
    "even in σ: all but": np.linspace,
    "much noise to little": lambda first, last, n: np.geomspace(last, first, n),
    "wrong way round": lambda first, last, n: np.linspace(last, first, n),
    "These are logarithms": lambda first, last, n: np.linspace(np.log(first), np.log(last), n),
    "the σ themselves": lambda first, last, n: -2 * np.log(np.geomspace(first, last, n)),
    "Karras's": karras_sigmas,
    "Even in the root": lambda first, last, n: np.linspace(first**0.5, last**0.5, n) ** 2,
    "last σ is missing": lambda first, last, n: np.geomspace(first, last, n + 1)[:-1],
    "first σ is missing": lambda first, last, n: np.geomspace(first, last, n + 1)[1:],
    "squares": lambda first, last, n: np.geomspace(first, last, n) ** 2,
    "These are roots": lambda first, last, n: np.geomspace(first, last, n) ** 0.5,
    "Take it before": lambda first, last, n: np.exp(-np.linspace(first, last, n)),
    "The 0 at the end": lambda first, last, n: [*np.geomspace(first, last, n), 0],
    "has shape (8,)": lambda first, last, n: np.geomspace(first, last, n - 1),
}


@pytest.mark.parametrize("hint", SPACING_MISTAKES)
def test_each_wrong_spacing_gets_its_hint(hint):
    verdict = ask.check_sigmas(SPACING_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize("spacing", [ask.solution_sigmas, np.geomspace])
def test_a_right_spacing(spacing):
    assert ask.check_sigmas(spacing).right is True


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (160, "with order 1"),
        (20, "a quarter of the error"),
        (80, "1/64"),
        (16, "to a sixteenth"),
        (4, "4 times as many"),
        (2560, "where a root belongs"),
        (14, "4 more steps"),
        (30, "less 10"),
        (50, "not 4 times as many more"),
        (26, "root of 16"),
        (5, "Fewer steps"),
        (41, "one more than the expected"),
    ],
)
def test_wrong_numbers_of_steps_get_their_hint(answer, hint):
    verdict = ask.check_more_steps(answer)
    assert verdict.right is False
    assert hint in verdict.message


def test_the_number_of_steps():
    assert ask.check_more_steps(ask.solution_more_steps).right is True
    assert 0.08 * (10 / ask.solution_more_steps) ** 2 == pytest.approx(0.005)


REPLIES = {
    ask.check_same_start: ("b", {"a": "same curve", "c": "decided by the start", "d": "η above 0"}),
    ask.check_no_cure: ("c", {"a": "clipping holds", "b": "80 times", "d": "divides by nothing"}),
    ask.check_two_marks: ("c", {"a": "fewer lie", "b": "less spread", "d": "both be right"}),
}


@pytest.mark.parametrize("check", REPLIES)
def test_each_letter_gets_its_own_reply(check):
    right, replies = REPLIES[check]
    assert check(right).right is True
    for letter, reply in replies.items():
        verdict = check(letter)
        assert verdict.right is False
        assert reply in verdict.message


def test_what_is_said_of_one_start_and_three_kinds_of_step_is_so():
    schedule = NoiseSchedule(make_betas("linear", 1000))
    denoise, x_T = MixtureDenoiser(WORLD, schedule), np.linspace(-2, 2, 9)
    ends = [
        ops.convert_to_numpy(
            walk(
                SAMPLERS[name],
                denoise,
                schedule,
                (9,),
                x_T=x_T,
                steps=spaced(schedule, steps, "log_snr", 80),
            )
        )
        for name, steps in (("ddim", 400), ("dpm++2m", 200), ("heun", 100))
    ]
    assert max(np.abs(end - ends[1]).max() for end in ends) < 0.03


def test_what_is_said_of_more_steps_without_clipping_is_so():
    model = load_model("digits")
    unclipped = dataclasses.replace(model.denoise, clip=False)
    for steps in (20, 100):
        x = walk(ddim_step, unclipped, model.schedule, (8, 8, 8, 1), seed=0, steps=steps)
        assert np.abs(ops.convert_to_numpy(x)).max() > 50
