"""Programs with a mistake in them: sick where they should be, and the package stays as it is."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough import bug_hunt, forward_diffusion, noise_schedule
from diffusion_walkthrough.bug_hunt import Patient, Program, listing
from diffusion_walkthrough.engine.optimizer import AveragingAdam
from diffusion_walkthrough.published_mistakes import MISTAKES, named


def patient(name, *parts):
    return Patient(name, "easy", parts, "", "", (), (), "", "")


def test_without_a_mistake_a_program_is_the_package():
    program = Program()
    assert program.forward_diffusion is forward_diffusion
    assert program.module("engine.optimizer").AveragingAdam is AveragingAdam
    assert not any(map(program.is_sick, ("loss", "data", "engine.noise")))


def test_a_sick_function_is_a_drop_in_and_the_package_stays_as_it_is():
    program = Program(named("variance_for_its_root_in_one_step"), "patient 1")
    sick = program.forward_diffusion.add_noise
    assert inspect.signature(sick) == inspect.signature(forward_diffusion.add_noise)
    ones = np.ones(2, "float32")
    found = [
        ops.convert_to_numpy(f(0 * ones, 0.25, ones)) for f in (sick, forward_diffusion.add_noise)
    ]
    np.testing.assert_allclose(found, [[0.25, 0.25], [0.5, 0.5]])
    assert program.forward_diffusion.add_noise is sick
    assert repr(program) == "<patient 1>"


def test_what_builds_on_a_sick_module_is_sick_with_it_and_nothing_else_is():
    program = Program(named("variance_for_its_root_in_many_steps"))
    assert program.is_sick("forward_diffusion")
    assert program.is_sick("backward_sampling"), "its restart and interpolation jump"
    assert program.backward_sampling.q_sample is program.forward_diffusion.q_sample
    assert program.noise_schedule is noise_schedule
    assert not program.is_sick("evaluation")


def test_a_wing_and_its_parts_are_found():
    program = Program(named("average_too_slow_for_a_short_run"))
    assert program.module("engine.optimizer").AveragingAdam is not AveragingAdam
    assert program.is_sick("training")


def test_keras_goes_on_loading_the_healthy_class():
    Program(named("average_too_slow_for_a_short_run")).module("engine.optimizer")
    name = "diffusion_walkthrough>AveragingAdam"
    assert keras.saving.get_registered_object(name) is AveragingAdam


def test_a_module_that_imports_another_one_whole_gets_the_sick_one():
    program = Program(named("nothing_shows_through"))
    assert program.data.faces is program.faces
    assert program.faces is not bug_hunt.importlib.import_module("diffusion_walkthrough.faces")


def test_what_is_no_module_is_refused():
    with pytest.raises(AttributeError, match="no 'imaginary'"):
        _ = Program().imaginary
    with pytest.raises(AttributeError):
        _ = Program()._hidden


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_text_of_a_sick_module_is_that_of_the_mutant(mistake):
    """Hunt and mutants share one list: what is shown is what `make mutants` puts in."""
    module = mistake.source()
    program = Program(mistake)
    assert program.is_sick(mistake.module)
    if mistake.module in {"noise_schedule", "forward_diffusion", "loss", "evaluation"}:
        function = next(
            f
            for f in vars(program.module(mistake.module)).values()
            if inspect.isfunction(f) and f.__code__.co_filename.startswith("<")
        )
        assert inspect.getsource(function) in module


SOURCE = '''
def one(x):
    """Say one."""
    return 1


class Two:
    """Two."""

    def three(self):
        """Say three.

        At length.
        """
        # not four
        return 3
'''


def test_a_listing_leaves_docstrings_out_and_keeps_the_order():
    expected = [
        "def one(x):",
        "    return 1",
        "",
        "def three(self):",
        "    # not four",
        "    return 3",
    ]
    assert listing(SOURCE, ("Two.three", "one")) == expected
    with pytest.raises(ValueError, match="defines no four"):
        listing(SOURCE, ("four",))


def test_the_wrong_line_is_known_and_where_one_is_missing():
    changed = patient("variance_for_its_root_in_one_step", "add_noise")
    assert changed.wrong_lines == {4}
    assert "beta * noise" in changed.lines[3]
    assert [line[0] for line in changed.changed] == ["-", "+"]
    missing = patient("attention_without_scaling", "attention_weights")
    assert missing.wrong_lines == {2}, "the line before which it belongs"
    assert [line[0] for line in missing.changed] == ["+"]
