"""Exercises of chapter 07: solutions are right, foreseen mistakes get their own hints."""

import numpy as np
import pytest

from diffusion_walkthrough import evaluation
from diffusion_walkthrough.classroom.exercises import evaluation as ask
from diffusion_walkthrough.evaluation import frechet_distance


def by_the_package(a, b):
    return frechet_distance(a[:, np.newaxis], b[:, np.newaxis])


@pytest.mark.parametrize("right", [ask.solution_distance, by_the_package])
def test_a_right_distance_is_right_in_every_form(right):
    assert ask.check_distance(right).right is True


DISTANCE_MISTAKES = {
    "its root": lambda a, b: np.sqrt(by_the_package(a, b)),
    "std, not var": lambda a, b: (a.mean() - b.mean()) ** 2 + (a.var() - b.var()) ** 2,
    "Only the middles": lambda a, b: (a.mean() - b.mean()) ** 2,
    "Only the spreads": lambda a, b: (a.std() - b.std()) ** 2,
    "not yet the square": lambda a, b: (a.mean() - b.mean()) ** 2 + abs(a.var() - b.var()),
    "variances are added": lambda a, b: (a.mean() - b.mean()) ** 2 + a.var() + b.var(),
    "neither is squared": lambda a, b: abs(a.mean() - b.mean()) + abs(a.std() - b.std()),
    "two squares are added": lambda a, b: (a.mean() - b.mean()) ** 2 - (a.std() - b.std()) ** 2,
}


@pytest.mark.parametrize("hint", DISTANCE_MISTAKES)
def test_each_mistake_in_the_distance_gets_its_hint(hint):
    verdict = ask.check_distance(DISTANCE_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


def by_pairs(distances, radii):
    covered = [any(d <= r for d in row) for row, r in zip(distances, radii, strict=True)]
    return sum(covered) / len(covered)


@pytest.mark.parametrize("right", [ask.solution_coverage, by_pairs])
def test_a_right_coverage_is_right_in_every_form(right):
    assert ask.check_coverage(right).right is True


def test_the_coverage_asked_for_is_the_package_s():
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(0, 1, (30, 2)), rng.normal(0.6, 1, (20, 2))
    distances = np.linalg.norm(real[:, np.newaxis] - drawn, axis=2)
    coverage = ask.solution_coverage(distances, evaluation.ball_radii(real, 5))
    assert coverage == pytest.approx(evaluation.density_coverage(real, drawn, k=5)[1])


COVERAGE_MISTAKES = {
    "That is precision": lambda d, r: (d <= r[:, None]).any(axis=0).mean(),
    "share of all pairs": lambda d, r: (d <= r[:, None]).mean(),
    "any in the place of sum": lambda d, r: (d <= r[:, None]).sum(axis=1).mean(),
    "number of balls": lambda d, r: (d <= r[:, None]).any(axis=1).sum(),
    "any, not all": lambda d, r: (d <= r[:, None]).all(axis=1).mean(),
    "nearest *drawn* image": lambda d, r: (d.min(axis=0) <= r[:25]).mean(),
    "that are missed": lambda d, r: (d.min(axis=1) > r).mean(),
    "take the mean": lambda d, r: d.min(axis=1) <= r,
}


@pytest.mark.parametrize("hint", COVERAGE_MISTAKES)
def test_each_mistake_in_the_coverage_gets_its_hint(hint):
    verdict = ask.check_coverage(COVERAGE_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (0.7, "is a square"),
        (1.4, "so the floor falls"),
        (5.6, "wrong way"),
        (2.8, "wrong way"),
        (0.0875, "not by 16"),
        (0, "infinitely many"),
        (0.175, "not eight times"),
    ],
)
def test_wrong_floors_get_their_hint(answer, hint):
    verdict = ask.check_floor(answer)
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize("answer", [0.35, 0.348, ask.solution_floor])
def test_the_floor(answer):
    assert ask.check_floor(answer).right is True


REPLIES = {
    ask.check_which_is_better: ("c", {"a": "any distance", "b": "by feel", "d": "own n"}),
    ask.check_dense: ("b", {"a": "in no ball", "c": "of all kinds", "d": "nearly every ball"}),
    ask.check_cannot_be: ("c", {"a": "huge", "b": "smudges", "d": "Look at the pairs"}),
}


@pytest.mark.parametrize("check", REPLIES)
def test_each_letter_gets_its_own_reply(check):
    right, replies = REPLIES[check]
    assert check(right).right is True
    for letter, reply in replies.items():
        verdict = check(letter)
        assert verdict.right is False
        assert reply in verdict.message


def test_what_the_exercises_say_of_density_and_coverage_is_so():
    rng = np.random.default_rng(1)
    some, rest = rng.normal(0, 1, (60, 20)), rng.normal(90, 1, (540, 20))
    few_kinds = np.zeros((50, 20))  # in the midst of the smaller group
    density, coverage = evaluation.density_coverage(np.concatenate([some, rest]), few_kinds)
    assert density > 1.6
    assert coverage <= 0.1
