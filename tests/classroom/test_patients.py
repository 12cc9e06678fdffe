"""Each patient is as its level says: the symptom is there, an instrument sees it, or a knob."""

import functools

import numpy as np
import pytest

from diffusion_walkthrough import instruments
from diffusion_walkthrough.bug_hunt import Program
from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.classroom.figures import bug_hunt as figures
from diffusion_walkthrough.classroom.patients import FIRST, LEVELS, PATIENTS
from diffusion_walkthrough.published_mistakes import MISTAKES

ALL = (FIRST, *PATIENTS)
HARD = [patient for patient in PATIENTS if patient.level == "hard"]
EACH = pytest.mark.parametrize("patient", ALL, ids=lambda patient: patient.name)
#: Their programs, whose modules are loaded once for all tests.
PROGRAMS = {patient.name: Program(patient.mistake) for patient in ALL}
#: How much of a picture has to change, on average over its grey levels, to be seen at once.
SEEN_AT_ONCE = 4


@functools.cache
def modules_read(name):
    """The modules of a program that an instrument asks for."""
    seen = set()

    class Listener(Program):
        def module(self, name):
            seen.add(name)
            return super().module(name)

    assert not instruments.INSTRUMENTS[name](Listener()).rings
    return frozenset(seen)


@functools.cache
def picture(symptom):
    """What the owner of the healthy program sees."""
    return plots.figure_to_array(getattr(figures, symptom)({"": Program()})).astype(float)


@pytest.mark.parametrize("name", instruments.INSTRUMENTS)
def test_no_instrument_rings_for_the_package_as_it_is(name):
    assert modules_read(name)


@EACH
def test_an_instrument_sees_it_that_does_not_ring_without_the_mistake(patient):
    for name, knobs in patient.seen_by:
        reading = instruments.INSTRUMENTS[name](PROGRAMS[patient.name], **knobs)
        assert reading.rings
        assert not knobs or not instruments.INSTRUMENTS[name](Program(), **knobs).rings
        assert bool(knobs) == (patient.level == "hard")


@pytest.mark.parametrize("patient", HARD, ids=lambda patient: patient.name)
def test_for_a_hard_one_no_instrument_rings_as_it_is(patient):
    program = PROGRAMS[patient.name]
    for name, instrument in instruments.INSTRUMENTS.items():
        if any(map(program.is_sick, modules_read(name))):
            assert not instrument(program).rings, name


@EACH
def test_the_symptom_is_there_with_the_mistake_and_not_without(patient):
    draw = getattr(figures, patient.symptom)
    sick = plots.figure_to_array(draw({"": PROGRAMS[patient.name]})).astype(float)
    well = picture(patient.symptom)
    changed = np.inf if sick.shape != well.shape else np.abs(sick - well).mean()
    if patient.level == "easy":
        assert changed > SEEN_AT_ONCE
    elif patient.name == "cumulative_product_over_the_batch":
        assert changed == 0, "its plot is perfect"
    else:
        assert changed > 0.1


@EACH
def test_one_passage_of_what_is_shown_is_wrong_and_nothing_there_says_so(patient):
    assert patient.wrong_lines
    assert max(patient.wrong_lines) - min(patient.wrong_lines) < 4
    assert len(patient.lines) <= 30
    assert any(line.startswith("+") for line in patient.changed)
    assert not any('"""' in line for line in patient.lines)


@EACH
def test_what_is_said_helps_and_gives_nothing_away(patient):
    assert len(patient.hints) == 2
    for passage, told in patient.tempting.items():
        holding = {i for i, line in enumerate(patient.lines, start=1) if passage in line}
        assert holding
        assert not holding & patient.wrong_lines
        assert told.endswith(".")
    for text in (patient.complaint, *patient.hints, patient.cure, patient.published):
        assert text.rstrip().endswith((".", "?"))
    for text in (patient.complaint, *patient.hints):
        wrong = [patient.lines[i - 1].strip() for i in patient.wrong_lines]
        assert not any(line in text for line in wrong)


def test_there_are_enough_of_each_level_and_all_are_published_mistakes():
    names = [patient.name for patient in ALL]
    assert len(set(names)) == len(names) >= 17
    assert set(names) <= {mistake.name for mistake in MISTAKES}
    for level in LEVELS:
        assert sum(patient.level == level for patient in PATIENTS) >= 5
