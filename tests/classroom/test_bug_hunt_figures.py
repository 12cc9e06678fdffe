"""Pictures of chapter 12; that each shows its symptom is seen in test_patients.py."""

import inspect
import re

import numpy as np
import pytest

from diffusion_walkthrough.bug_hunt import Program
from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.classroom.figures import bug_hunt as figures
from diffusion_walkthrough.classroom.patients import FIRST, PATIENTS
from diffusion_walkthrough.published_mistakes import named


@pytest.mark.parametrize("symptom", ["fading", "data", "divergence", "looks", "costs", "parabola"])
def test_two_programs_stand_side_by_side_under_their_names(symptom):
    draw = getattr(figures, symptom)
    one, two = (draw(dict.fromkeys(names, Program())) for names in (["a"], ["one", "two"]))
    small, large = map(plots.figure_to_array, (one, two))
    assert small.shape != large.shape or np.abs(small.astype(float) - large).max() > 0
    written = {text.get_text() for axis in two.axes for text in axis.texts}
    written |= {axis.get_title() for axis in two.axes} | {axis.get_ylabel() for axis in two.axes}
    for axis in two.axes:
        if axis.get_legend():
            written |= {text.get_text() for text in axis.get_legend().get_texts()}
    assert any(word.startswith("two") for word in written)


def test_curves_of_the_figures_are_the_programs_own():
    """Read off the picture: the divergence of a bell of spread 0.5, with and without mistake."""
    programs = {"sick": Program(named("kl_with_a_wrong_sign")), "well": Program()}
    sick, well = figures.divergence(programs).axes[0].lines[:2]
    at = np.argmin(np.abs(np.asarray(well.get_xdata()) - 0.5))
    spread = well.get_xdata()[at]
    assert well.get_ydata()[at] == pytest.approx(0.5 * (spread**2 - 1) - np.log(spread), abs=1e-5)
    assert sick.get_ydata()[at] < 0


def test_an_average_that_is_too_slow_stays_at_the_start():
    figure = figures.weights({"": Program(named("average_too_slow_for_a_short_run"))})
    averaged, own = figure.axes[0].lines
    assert averaged.get_ydata()[-1] < 0.2
    assert own.get_ydata()[-1] == pytest.approx(1, abs=0.05)


def test_what_keeps_a_network_from_being_built_is_written_down():
    programs = {
        "before": Program(named("levels_told_apart_by_their_width")),
        "after": Program(),
    }
    before, after = (text.get_text() for text in figures.refusal(programs).axes[0].texts[::2])
    assert "ValueError" in before
    assert "is built" in after


def test_every_symptom_is_explained_in_a_sentence():
    for patient in (FIRST, *PATIENTS):
        told = inspect.getdoc(getattr(figures, patient.symptom)).splitlines()[0]
        assert told.endswith(".")
        assert len(told.split()) > 4


def test_the_waiting_room_has_a_card_for_each():
    picture = np.zeros((4, 8, 3), np.uint8)
    cards = [(i, patient, picture) for i, patient in enumerate(PATIENTS, start=1)]
    figure = figures.waiting_room(cards)
    written = [[text.get_text() for text in axis.texts] for axis in figure.axes if axis.texts]
    assert [texts[:2] for texts in written] == [[str(i), p.level] for i, p, _ in cards]
    for (*_, said), (_, patient, _) in zip(written, cards, strict=True):
        assert " ".join(said.split()) == f"“{patient.complaint}”"


def test_a_hidden_digit_is_found_again_by_the_healthy_program_at_every_t():
    programs = {"sick": Program(FIRST.mistake), "well": Program()}
    for t, least in ((0, 0.0), (50, 0.03), (99, 100)):
        page, caption = figures.found_again(programs, t)
        sick, well = (float(n) for n in re.findall(r"(?:sick|well) ([\d.]+)(?=[,.])", caption))
        assert sick >= least
        assert well <= 0.01
        assert page.count("<img") == 4
