"""The published mistakes fit the package as it is: mutants and bug hunt share them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_walkthrough.published_mistakes import MISTAKES, Mistake, named

TESTS = Path(__file__).parent


def test_there_are_enough_and_each_has_a_name_of_its_own():
    names = [mistake.name for mistake in MISTAKES]
    assert len(names) == len(set(names)) >= 20
    assert all(mistake.mistake for mistake in MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_differs_from_the_package_in_one_place_and_can_be_imported(mistake):
    source = mistake.source()
    assert source != mistake.path.read_text("utf-8")
    ast.parse(source)
    for test in mistake.tests:
        file, function = test.split("::")
        assert f"def {function}(" in (TESTS / file).read_text("utf-8")


def test_a_passage_that_has_changed_is_named():
    outdated = Mistake("outdated", "none", "loss", "no such passage", "", ())
    with pytest.raises(ValueError, match=r"mutant outdated: loss\.py holds 0 times"):
        outdated.source()


def test_a_mistake_is_found_by_its_name_and_an_unknown_one_is_refused():
    assert named("noise_at_the_last_step").module == "backward_sampling"
    with pytest.raises(KeyError, match="imaginary: no such mistake"):
        named("imaginary")


def test_the_list_loads_nothing_into_which_a_mistake_could_be_put():
    code = (
        "import sys, diffusion_walkthrough.published_mistakes as p;"
        "print(*(m.name for m in p.MISTAKES if m.fullname in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
