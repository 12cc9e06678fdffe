"""What every exercise of every chapter does with nothing, with garbage, and when it gives up."""

import importlib
import pkgutil

import pytest

from diffusion_walkthrough.classroom import exercises

MODULES = [
    importlib.import_module(f"{exercises.__name__}.{module.name}")
    for module in pkgutil.iter_modules(exercises.__path__)
    if module.name != "verdicts"
]
CHECKS = [
    (module, name.removeprefix("check_"))
    for module in MODULES
    for name in vars(module)
    if name.startswith("check_")
]
#: Those that are answered with a function: their solution is one with parameters.
FUNCTIONS = [
    (module, name)
    for module, name in CHECKS
    if getattr(getattr(getattr(module, f"solution_{name}"), "__code__", None), "co_argcount", 0)
]


def exercise_of(pair):
    module, name = pair
    return getattr(module, f"check_{name}")


def identity(pair):
    return f"{pair[0].__name__.rpartition('.')[2]}-{pair[1]}"


def test_all_chapters_are_here():
    assert len(MODULES) == 12
    assert len(CHECKS) > 70
    assert len(FUNCTIONS) > 20


@pytest.mark.parametrize("pair", CHECKS, ids=identity)
@pytest.mark.parametrize("nothing", [None, ...])
def test_no_answer_is_not_a_wrong_answer(pair, nothing):
    assert exercise_of(pair)(nothing).right is None


@pytest.mark.parametrize("pair", CHECKS, ids=identity)
def test_every_exercise_shows_its_solution(pair, capsys):
    pair[0].show_solution(exercise_of(pair))
    assert "solution_" in capsys.readouterr().out


@pytest.mark.parametrize("pair", FUNCTIONS, ids=identity)
def test_a_function_that_still_returns_the_three_dots(pair):
    assert exercise_of(pair)(lambda *arguments: ...).right is None


@pytest.mark.parametrize("pair", FUNCTIONS, ids=identity)
@pytest.mark.parametrize(
    ("attempt", "hint"),
    [
        (3.0, "function is expected"),
        (lambda *arguments: 1 / 0, "ZeroDivisionError"),
        (lambda: 1, "TypeError"),
        (lambda *arguments: "noise", ""),
        (lambda *arguments: None, "return"),
    ],
)
def test_garbage_gets_a_sentence_and_no_traceback(pair, attempt, hint):
    verdict = exercise_of(pair)(attempt)
    assert verdict.right is False
    assert hint in verdict.message
