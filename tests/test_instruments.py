"""Each instrument rings for a mistake; that none rings without is seen in test_patients.py."""

import numpy as np
import pytest

from diffusion_walkthrough import instruments
from diffusion_walkthrough.bug_hunt import Program
from diffusion_walkthrough.instruments import (
    INSTRUMENTS,
    Reading,
    Row,
    _two_clues,
    catalogue,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.published_mistakes import named

# Those that ring for no patient, and the others with other knobs.
RINGS = [
    ("waves", "time_steps_that_all_look_alike", {}),
    ("crowd_back", "one_noise_for_the_whole_batch", {}),
    ("balls", "density_by_real_images", {"drawn": 100}),
    ("balls", "balls_of_generated_images", {"drawn": 600}),
    ("fresh_noise", "all_the_noise_kept_beside_the_fresh", {"eta": 1.0}),
    ("fresh_noise", "eta_times_the_variance", {"eta": 0.7}),
    ("order", "carried_on_by_the_whole_step", {"step": "dpm++2m"}),
    ("order", "heun_with_the_mean_of_places", {"step": "heun"}),
    ("step_back", "variance_for_its_root_on_the_way_back", {}),
    ("asked", "leading_for_trailing", {"T": 1000, "steps": 20}),
]


@pytest.mark.parametrize(("instrument", "mistake", "knobs"), RINGS)
def test_an_instrument_rings_for_a_mistake_and_not_without(instrument, mistake, knobs):
    measure = INSTRUMENTS[instrument]
    assert measure(Program(named(mistake)), **knobs).rings
    assert not measure(Program(), **knobs).rings


@pytest.mark.parametrize(
    ("instrument", "knobs"),
    [
        ("jump", {"t": [999, 500, 0]}),
        ("jump", {"T": 20, "name": "cosine"}),
        ("round_trip", {"prediction": "v", "t": [3, 900]}),
        ("posterior", {"T": 10, "t": 9}),
        ("step_back", {"T": 10, "t": 1}),
        ("step_back", {"variance": "fixed_large"}),
        ("levels", {"mean": 1.0, "count": 256}),
        ("kl", {"spread": 2.0}),
        ("halfway", {"share": 0.3}),
        ("signal_left", {"T": 10, "name": "sigmoid"}),
        ("network", {"multipliers": (1, 1, 1)}),
        ("attention", {"channels": 16}),
        ("average", {"momentum": 0.99}),
        ("ending", {"variance": "fixed_small", "steps": 3}),
        ("images", {"split": "test"}),
        ("crowd", {"beta": 0.1, "steps": 50}),
    ],
)
def test_no_knob_makes_it_ring_for_the_package(instrument, knobs):
    reading = INSTRUMENTS[instrument](Program(), **knobs)
    assert not reading.rings, reading


def test_two_clues_are_the_posterior_of_the_tables():
    """Summing up and the formula of chapter 01, in float64."""
    schedule = NoiseSchedule(make_betas("linear", 20))
    for t in (1, 6, 19):
        mean, variance = _two_clues(schedule.betas, t)
        expected = 0.8 * schedule.posterior_mean_coef1[t] - 0.6 * schedule.posterior_mean_coef2[t]
        assert mean == pytest.approx(expected, abs=1e-5)
        assert variance == pytest.approx(schedule.posterior_variance[t], rel=1e-4)


def test_a_reading_shows_what_is_off():
    rows = (Row("one", 1.0, 1.0, 0.1), Row("two", -0.0001, 1.0, 0.1), Row("none", np.nan, 0, 1))
    reading = Reading("trial", {"t": [1]}, rows)
    assert reading.rings
    assert not Reading("trial", {}, rows[:1]).rings
    head, one, two, none = repr(reading).splitlines()
    assert head.split() == ["trial(t=[1])", "is", "should", "be"]
    assert one.split() == ["one", "1", "1"]
    assert two.split() == ["two", "0", "1", "✗"]
    assert none.split() == ["none", "nan", "0", "✗"]


def test_all_instruments_are_listed_with_chapter_and_knobs():
    lines = catalogue().splitlines()
    assert len(lines) == len(INSTRUMENTS) >= 15
    assert [line[:2] for line in lines] == sorted(line[:2] for line in lines)
    assert any(line.split()[1] == "marks()" for line in lines)


def test_a_knob_that_is_not_there_is_refused():
    with pytest.raises(TypeError, match="volume"):
        INSTRUMENTS["kl"](Program(), volume=11)


@pytest.mark.parametrize("measure", [instruments.jump, instruments.round_trip])
@pytest.mark.parametrize("t", [[999], [999, 0], [999, 500, 0], range(4), range(1000)])
def test_the_first_and_the_last_place_are_measured_and_of_few_all(measure, t):
    said = " ".join(row.what for row in measure(Program(), t=t).rows)
    asked = [*t] if len(t) < 5 else [t[0], t[-1]]
    assert all(f"t = {place}" in said for place in asked)


@pytest.mark.parametrize(
    ("measure", "knobs", "said"),
    [
        (instruments.posterior, {"t": 0}, "t must be a whole number of at least 1"),
        (instruments.step_back, {"T": 10, "t": 10}, "at most 9"),
        (instruments.fresh_noise, {"s": -1}, "s must be a whole number of at least 0"),
        (instruments.order, {"step": "ddpm"}, "step must be one of 'ddim'"),
        (instruments.jump, {"t": []}, "nothing to measure"),
    ],
)
def test_where_nothing_can_be_measured_is_refused_and_not_silent(measure, knobs, said):
    with pytest.raises(ValueError, match=said):
        measure(Program(), **knobs)
