"""Exercises of chapters 07 and 07b: solutions are right, foreseen mistakes get their own hints."""

import numpy as np
import pytest

from diffusion_walkthrough import evaluation
from diffusion_walkthrough.backward_sampling import walk
from diffusion_walkthrough.classroom.exercises import evaluation as ask
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import frechet_distance
from diffusion_walkthrough.exact_denoiser import optimal_denoiser, patch_denoiser
from diffusion_walkthrough.faster_sampling import ddim_step
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


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
    ask.check_fewer: ("b", {"a": "make anything up", "c": "all the weight", "d": "fewer digits"}),
    ask.check_one_pixel: ("b", {"a": "nothing but itself", "c": "settles", "d": "by itself"}),
    ask.check_far: ("c", {"a": "no merit", "b": "next to nothing", "d": "as a whole"}),
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


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (54_000, "for 3 × 3"),
        (96_000, "near the border"),
        (1_500, "only the same place"),
        (13_500, "along one side again"),
        (37_500, "how many pixels"),
        (6_000, "one side only"),
        (12_000, "not added"),
        (16, "in one image"),
    ],
)
def test_wrong_numbers_of_patches_get_their_hint(answer, hint):
    verdict = ask.check_patches(answer)
    assert verdict.right is False
    assert hint in verdict.message


def test_the_number_of_patches_is_that_of_all_windows():
    windows = np.lib.stride_tricks.sliding_window_view(np.zeros((1500, 8, 8)), (5, 5), axis=(1, 2))
    assert ask.check_patches(np.prod(windows.shape[:3])).right is True
    assert ask.solution_patches == 24_000


def bell(seen, patches, a, b):
    weights = np.exp(-((seen - a * patches) ** 2).sum(axis=1) / (2 * b**2))
    return weights / weights.sum()


GUESS_MISTAKES = {
    "with a times each patch": lambda s, p, a, b: bell(s, p, 1, b) @ p[:, 4],
    "not by 2 b": lambda s, p, a, b: bell(s, p, a, b**0.5) @ p[:, 4],
    "*twice*": lambda s, p, a, b: bell(s, p, a, b / 2**0.5) @ p[:, 4],
    "depends on the noise": lambda s, p, a, b: bell(s, p, a, 0.5**0.5) @ p[:, 4],
    "fit *worst*": lambda s, p, a, b: bell(s, p, a, 1j * b).real @ p[:, 4],
    "alone": lambda s, p, a, b: p[bell(s, p, a, b).argmax(), 4],
    "count alike": lambda s, p, a, b: p[:, 4].mean(),
    "add up to 1": lambda s, p, a, b: (
        np.exp(-((s - a * p) ** 2).sum(axis=1) / (2 * b**2)) @ p[:, 4]
    ),
    "whole patch": lambda s, p, a, b: bell(s, p, a, b) @ p,
    "clean already": lambda s, p, a, b: a * bell(s, p, a, b) @ p[:, 4],
    "noisy pixel itself": lambda s, p, a, b: s[4],
}


@pytest.mark.parametrize("hint", GUESS_MISTAKES)
def test_each_mistake_in_a_guess_gets_its_hint(hint):
    verdict = ask.check_guess(GUESS_MISTAKES[hint])
    assert verdict.right is False
    assert hint in verdict.message


def test_a_right_guess_is_right_and_the_package_s():
    assert ask.check_guess(lambda s, p, a, b: bell(s, p, a, b) @ p[:, 4]).right is True
    assert ask.check_guess(ask.solution_guess).right is True
    rng, schedule = np.random.default_rng(0), NoiseSchedule(make_betas("linear", 50))
    images, t = rng.uniform(-1, 1, (7, 3, 3, 1)).astype("float32"), np.array([20])
    x_t = np.asarray(q_sample(schedule, images[:1], t, rng.standard_normal((1, 3, 3, 1))))
    a, b = schedule.rates(20, 0)
    by_hand = ask.solution_guess(x_t.ravel(), images.reshape(7, 9), a, b)
    by_package = np.asarray(patch_denoiser(images, schedule, 3)(x_t, t))[0, 1, 1, 0]
    assert by_hand == pytest.approx(by_package, abs=1e-5)


def test_what_the_exercises_say_of_half_the_digits_and_of_single_pixels_is_so():
    schedule, digits = NoiseSchedule(make_betas("cosine", 100)), load_images("digits")[0]
    start = np.random.default_rng(0).standard_normal((8, 8, 8, 1)).astype("float32")

    def drawn_by(denoise):
        return np.asarray(walk(ddim_step, denoise, schedule, start.shape, x_T=start, steps=20))

    copies = drawn_by(optimal_denoiser(digits[:750], schedule))
    assert evaluation.nearest_distance(copies, digits[:750]).max() < 0.2
    speckles = drawn_by(patch_denoiser(digits[:200], schedule, 1))
    beside = np.corrcoef(speckles[:, :, 1:].ravel(), speckles[:, :, :-1].ravel())[0, 1]
    assert abs(beside) < 0.15
    assert np.mean(speckles < -0.9) == pytest.approx(np.mean(digits < -0.9), abs=0.15)
