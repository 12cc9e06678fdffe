"""Exercises of chapter 11: solutions are right, foreseen mistakes get their own hints."""

import numpy as np
import pytest

from diffusion_walkthrough import flow_matching as flow
from diffusion_walkthrough.classroom.exercises import flow_matching as ask
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

STEP_MISTAKES = {
    "Away from the image": lambda x, v, s, n: x + (s - n) * v,
    "all the way to s = 0": lambda x, v, s, n: x - s * v,
    "it is too far": lambda x, v, s, n: x + s * v,
    "still to go": lambda x, v, s, n: x - n * v,
    "from s = 1 to 0": lambda x, v, s, n: x - v,
    "multiply by the way": lambda x, v, s, n: x + v,
    "the step alone": lambda x, v, s, n: (n - s) * v,
    "only if x_0 is 0": lambda x, v, s, n: n / s * x,
    "nothing has moved": lambda x, v, s, n: x,
    "v is a velocity": lambda x, v, s, n: (1 - n) * x + n * v,
}
SHARE_MISTAKES = {
    "b is the factor": lambda a, b: b,
    "b² is the noise's": lambda a, b: b**2,
    "σ of chapter 09": lambda a, b: b / a,
    "the share of the image": lambda a, b: a / (a + b),
    "With 1 - a": lambda a, b: 1 - a,
    "a is the image's": lambda a, b: a,
    "what to divide by": lambda a, b: a + b,
    "multiplied with": lambda a, b: 1 / (a + b),
}
IMAGE_MISTAKES = {
    "other end of the line": lambda x, v, s: x + (1 - s) * v,
    "a whole unit": lambda x, v, s: x - v,
    "The sign": lambda x, v, s: x + s * v,
    "way to the noise": lambda x, v, s: x - (1 - s) * v,
    "too far": lambda x, v, s: x + v,
    "image less noise": lambda x, v, s: -v,
    "leaves the noise": lambda x, v, s: x / (1 - s),
    "one thing less": lambda x, v, s: (x - s * v) / (1 - s),
    "Only s belongs": lambda x, v, s: x - s * v * (1 - s),
    "noise and all": lambda x, v, s: x,
}
FUNCTIONS = [
    (check, hint, attempt)
    for check, mistakes in (
        (ask.check_euler_step, STEP_MISTAKES),
        (ask.check_share, SHARE_MISTAKES),
        (ask.check_image, IMAGE_MISTAKES),
    )
    for hint, attempt in mistakes.items()
]


@pytest.mark.parametrize(("check", "hint", "attempt"), FUNCTIONS)
def test_each_mistake_gets_its_hint(check, hint, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert hint in verdict.message


def test_solutions_are_right_also_in_other_forms():
    assert ask.check_euler_step(ask.solution_euler_step).right is True
    assert ask.check_euler_step(lambda x, v, s, n: x - (s - n) * v).right is True
    assert ask.check_share(ask.solution_share).right is True
    assert ask.check_share(lambda a, b: 1 / (1 + a / b)).right is True
    assert ask.check_image(ask.solution_image).right is True
    assert ask.check_cost(ask.solution_cost).right is True


def test_solutions_are_what_the_package_does():
    x, v = np.random.default_rng(0).standard_normal((2, 5))
    stops = flow.euler(lambda x, s: v, x, 4)
    np.testing.assert_allclose(ask.solution_euler_step(x, v, 1.0, 0.75), stops[1])
    schedule = NoiseSchedule(make_betas("cosine", 20))
    t = np.arange(20)
    a, b = (rate.ravel() for rate in schedule.rates(t, 1))
    np.testing.assert_allclose(
        ask.solution_share(a, b), flow.share_of_noise(schedule, t), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (200_000, "asks twice a step"),
        (20_000, "20 steps on the way"),
        (10_000, "a single step"),
        (40, "for one pair"),
        (20, "So many steps"),
        (390_000, "velocity is known at s = 0"),
        (800_000, "one walk makes a pair"),
        (600_000, "not three times"),
        (500, "multiplied with pairs"),
        (4_000_000, "One zero"),
        (100_000, "not once in two"),
    ],
)
def test_wrong_numbers_get_their_hint(answer, hint):
    verdict = ask.check_cost(answer)
    assert verdict.right is False
    assert hint in verdict.message


def test_the_number_is_what_walks_of_heun_ask():
    asked = []
    flow.heun(lambda x, s: asked.append(len(x)) or 0 * x, np.zeros((10, 2)), 20)
    assert 1000 * sum(asked) == ask.solution_cost


REPLIES = {
    ask.check_direction: ("d", {"a": "hardly any noise", "b": "walk away", "c": "nearly clean"}),
    ask.check_straight: ("a", {"b": "mean of all lines", "c": "their mean turns", "d": "exact"}),
    ask.check_labels: ("c", {"a": "no worse", "b": "millisecond", "d": "told to the network"}),
}


@pytest.mark.parametrize("check", REPLIES)
def test_each_letter_gets_its_own_reply(check):
    right, replies = REPLIES[check]
    assert check(right).right is True
    for letter, reply in replies.items():
        verdict = check(letter)
        assert verdict.right is False
        assert reply in verdict.message


def test_what_is_said_of_the_directions_is_so():
    """The papers' network at 1 - s, and minus its answer, is our velocity."""
    x_start, noise = np.random.default_rng(1).standard_normal((2, 5))

    def theirs(time):  # time 0 is noise
        return x_start - noise, time * x_start + (1 - time) * noise

    velocity, x = theirs(1 - 0.8)
    np.testing.assert_allclose(x, flow.between(x_start, noise, [0.8] * 5))
    np.testing.assert_allclose(-velocity, flow.path_velocity(x_start, noise))
