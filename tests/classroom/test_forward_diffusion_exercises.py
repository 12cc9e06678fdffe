import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.classroom.exercises import forward_diffusion as ask
from diffusion_walkthrough.forward_diffusion import add_noise, q_posterior_mean_variance
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

CHECKS = [ask.check_one_step, ask.check_two_steps, ask.check_jump, ask.check_half_way]
CHOICES = [
    (ask.check_impossible_journey, ask.solution_impossible_journey),
    (ask.check_lost_root, ask.solution_lost_root),
    (ask.check_reversed, ask.solution_reversed),
    (ask.check_first_step, ask.solution_first_step),
]
FUNCTION_CHECKS = [ask.check_one_step, ask.check_jump]
ROOT = np.sqrt


def jump_with(alpha_bar):
    """A jump that takes its ᾱ from ``alpha_bar(betas, t)``, shape (batch,)."""

    def attempt(x_start, betas, t, noise):
        kept = np.asarray(alpha_bar(betas, t))[:, None]
        return ROOT(kept) * x_start + ROOT(1 - kept) * noise

    return attempt


def jump_with_the_variance(x_start, betas, t, noise):
    kept = np.cumprod(1 - betas)[t][:, None]
    return ROOT(kept) * x_start + (1 - kept) * noise


RIGHT = [
    (ask.check_one_step, ask.solution_one_step),
    (ask.check_one_step, lambda x, b, e: ROOT(1 - b) * x + e * b**0.5),
    (ask.check_one_step, lambda *arguments: ops.convert_to_numpy(add_noise(*arguments))),
    (ask.check_one_step, add_noise),  # a tensor
    (
        ask.check_one_step,
        lambda x, b, e: [ROOT(1 - b) * p + ROOT(b) * q for p, q in zip(x, e, strict=True)],
    ),
    (ask.check_two_steps, ask.solution_two_steps),
    (ask.check_two_steps, 0.9 * 0.8),
    (ask.check_two_steps, ROOT((1 - 0.19) * (1 - 0.36))),
    (ask.check_jump, ask.solution_jump),
    (ask.check_jump, jump_with(lambda betas, t: np.cumprod(1 - betas)[t])),
    (ask.check_jump, jump_with(lambda betas, t: [np.prod(1 - betas[: s + 1]) for s in t])),
    (ask.check_jump, jump_with(lambda betas, t: NoiseSchedule(betas).alphas_cumprod[t])),
    (ask.check_half_way, ask.solution_half_way()),
    (ask.check_half_way, float(ask.solution_half_way())),
    (ask.check_half_way, np.int64(ask.solution_half_way())),
]

# Each foreseen wrong attempt, and words that only its own hint has.
WRONG = [
    (ask.check_one_step, lambda x, b, e: ROOT(1 - b) * x + b * e, "Noise of variance β is √β"),
    (ask.check_one_step, lambda x, b, e: x + ROOT(b) * e, "The image is not shrunk"),
    (ask.check_one_step, lambda x, b, e: (1 - b) * x + ROOT(b) * e, "The image is shrunk by 1−β"),
    (ask.check_one_step, lambda x, b, e: (1 - b) * x + b * e, "These weights add up to 1"),
    (ask.check_two_steps, 0.81 * 0.64, "That is ᾱ"),
    (ask.check_two_steps, 0.45, "The second step also covers"),
    (ask.check_two_steps, 0.671, "multiply what each step keeps"),
    (ask.check_two_steps, 0.694, "the factor of the noise"),
    (ask.check_jump, jump_with(lambda betas, t: np.cumprod(1 - betas)[t - 1]), "off by one"),
    (ask.check_jump, jump_with(lambda betas, t: (1 - betas)[t]), "α at t is a single step"),
    (ask.check_jump, jump_with(lambda betas, t: np.cumprod((1 - betas)[t])), "over the batch"),
    (ask.check_jump, jump_with_the_variance, "1−ᾱ is the variance"),
    (ask.check_half_way, 500, "Half of the steps is not half of the noise"),
    (ask.check_half_way, 368, "half of the image's amplitude"),
    (ask.check_half_way, 165, "the noise's factor, reaches 0.5"),
    (ask.check_half_way, 219, "the β sum up to 0.5"),
    (ask.check_half_way, ask.solution_half_way() - 1, "Just before"),
    (ask.check_half_way, ask.solution_half_way() + 1, "Just after"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "attempt"), RIGHT)
def test_right_answers_are_right(check, attempt):
    verdict = check(attempt)
    assert verdict.right is True, verdict
    assert verdict.message


def factors_of(of_image, of_noise):
    """A jump with other factors, each a function of ᾱ, ``(batch, 1)``."""

    def attempt(x_start, betas, t, noise):
        kept = np.cumprod(1 - betas)[t][:, None]
        return of_image(kept) * x_start + of_noise(kept) * noise

    return attempt


# Further wrong attempts, and words of the hint they are to get.
FURTHER = [
    (ask.check_one_step, lambda x, b, e: x + e, "And where is β?"),
    (ask.check_one_step, lambda x, b, e: x + b * e, "or its variance?"),
    (ask.check_one_step, lambda x, b, e: ROOT(1 - b) * x - ROOT(b) * e, "The sign of the noise"),
    (ask.check_one_step, lambda x, b, e: ROOT(b) * x + ROOT(1 - b) * e, "factors are exchanged"),
    (ask.check_one_step, lambda x, b, e: ROOT(1 - b) * x + e, "at full strength"),
    (ask.check_one_step, lambda x, b, e: ROOT(1 - b) * x, "no noise is added"),
    (ask.check_one_step, lambda x, b, e: ROOT(1 - b) * x + ROOT(b), "the noise itself is missing"),
    (ask.check_two_steps, 0.9, "the first step alone"),
    (ask.check_two_steps, 0.8, "the second step alone"),
    (ask.check_two_steps, 0.81, "what the first step keeps"),
    (ask.check_two_steps, 0.64, "what the second step keeps"),
    (ask.check_two_steps, 1.7, "The factors are added"),
    (ask.check_jump, jump_with(lambda betas, t: np.cumprod(1 - betas)[t + 1]), "off by one"),
    (ask.check_jump, jump_with(lambda betas, t: betas[t]), "the noise of a single step"),
    (ask.check_jump, jump_with(lambda betas, t: np.cumprod(betas)[t]), "not over β"),
    (ask.check_jump, factors_of(lambda a: a, lambda a: ROOT(1 - a)), "the image takes its root"),
    (ask.check_jump, factors_of(lambda a: a, lambda a: 1 - a), "So does the noise"),
    (ask.check_jump, factors_of(lambda a: 1, lambda a: ROOT(1 - a)), "kept its full strength"),
    (ask.check_jump, factors_of(ROOT, ROOT), "have the same factor"),
    (ask.check_jump, factors_of(lambda a: ROOT(1 - a), ROOT), "factors are exchanged"),
    (ask.check_jump, factors_of(ROOT, lambda a: 0), "no noise is added"),
    (ask.check_half_way, 257, "At t = 257, ᾱ is 0.503"),
]


@pytest.mark.parametrize(("check", "attempt", "words"), FURTHER)
def test_further_wrong_answers_are_told_what_they_are(check, attempt, words):
    verdict = check(attempt)
    assert verdict.right is False
    assert words in verdict.message


@pytest.mark.parametrize(("check", "attempt", "words"), WRONG)
def test_each_foreseen_wrong_answer_gets_its_own_hint(check, attempt, words):
    verdict = check(attempt)
    assert verdict.right is False
    others = [w for c, _, w in WRONG if c is check and w != words]
    assert words.lower() in verdict.message.lower()
    assert not [other for other in others if other.lower() in verdict.message.lower()]


def test_every_exercise_foresees_at_least_four_misconceptions():
    assert min([w for w, _, _ in WRONG].count(c) for c in CHECKS) >= 4


def test_half_of_the_exercises_ask_for_a_thought_and_not_for_a_number_or_code():
    checks = [name for name in vars(ask) if name.startswith("check_")]
    assert len(checks) == len(CHECKS) + len(CHOICES)
    assert len(CHOICES) >= len(checks) / 2


@pytest.mark.parametrize(("check", "right"), CHOICES)
def test_one_letter_is_right_and_each_of_the_others_is_told_why_not(check, right):
    verdicts = {letter: check(letter) for letter in "abcd"}
    assert [letter for letter, verdict in verdicts.items() if verdict.right] == [right]
    assert len({verdict.message for verdict in verdicts.values()}) == 4
    assert check(f" {right.upper()}) ").right is True


@pytest.mark.parametrize(("check", "right"), CHOICES)
@pytest.mark.parametrize("attempt", ["e", "abc", 0.02, True, [], np.zeros(2)])
def test_what_is_no_letter_is_told_so(check, right, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert "not among the answers" in verdict.message


@pytest.mark.parametrize("attempt", [..., None])
@pytest.mark.parametrize(("check", "right"), CHOICES)
def test_an_untouched_letter_is_not_answered_yet(check, right, attempt):
    assert check(attempt).right is None


# The answers by other roads than their explanations.


def test_with_the_root_lost_the_variance_ends_at_0_02():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(20_000)
    for _ in range(1000):
        x = ROOT(1 - 0.02) * x + 0.02 * rng.standard_normal(20_000)
    assert x.var() == pytest.approx(0.02, rel=0.05)
    assert ask.solution_lost_root == "b"


def test_in_reverse_order_only_the_last_picture_is_as_noisy_as_before():
    betas = make_betas("linear", 1000)
    same = np.isclose(np.cumprod(1 - betas), np.cumprod(1 - betas[::-1]), rtol=1e-9)
    assert np.flatnonzero(same).tolist() == [999]
    assert ask.solution_reversed == "b"


def test_the_step_back_from_t_0_leads_to_the_clean_image_exactly():
    x_start, x_t = np.array([[0.3, -0.7]]), np.array([[5.0, 5.0]])
    schedule = NoiseSchedule(make_betas("linear", 20))
    mean, variance, _ = q_posterior_mean_variance(schedule, x_start, x_t, np.array([0]))
    np.testing.assert_allclose(ops.convert_to_numpy(mean), x_start, atol=1e-6)
    assert float(np.ravel(ops.convert_to_numpy(variance))[0]) == 0
    assert ask.solution_first_step == "c"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("attempt", [..., None])
def test_an_untouched_cell_is_not_answered_yet(check, attempt):
    assert check(attempt).right is None


@pytest.mark.parametrize("check", FUNCTION_CHECKS)
def test_an_untouched_function_is_not_answered_yet(check):
    assert check(lambda *_: ...).right is None


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("attempt", ["text", [1, [2]], {"a": 1}, float("nan"), np.zeros((2, 2))])
def test_nonsense_is_wrong_and_is_told_so_in_a_sentence(check, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert len(verdict.message.split()) > 4


@pytest.mark.parametrize("check", FUNCTION_CHECKS)
@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: 1, "TypeError"),
        (lambda *_: None, "Is the word return missing"),
        (lambda *_: "text", "shape ()"),
        (lambda *_: np.zeros((7, 7)), "shape (7, 7)"),
        (lambda *a: a[0] * np.nan, "NaN or infinite"),
        (lambda *a: a[0] * 17.0, "no trace of the noise"),
    ],
)
def test_functions_that_fail_are_told_how(check, attempt, words):
    verdict = check(attempt)
    assert verdict.right is False
    assert words in verdict.message


@pytest.mark.parametrize("wrong_type", [0.5, "text", np.zeros(3)])
@pytest.mark.parametrize("check", FUNCTION_CHECKS)
def test_a_value_in_place_of_a_function_is_told_so(check, wrong_type):
    assert "A function is expected here" in check(wrong_type).message


def test_answers_computed_in_place_are_marked_like_any_other():
    def one_step(x_prev, beta, noise):
        x_prev *= ROOT(1 - beta)
        x_prev += ROOT(beta) * noise
        return x_prev

    def jump(x_start, betas, t, noise):
        kept = np.cumprod(1 - betas)[t][:, None]
        x_start *= ROOT(kept)
        noise *= ROOT(1 - kept)
        x_start += noise
        betas[:] = 0.5
        return x_start

    assert ask.check_one_step(one_step).right is True
    assert ask.check_jump(jump).right is True


def test_half_way_is_where_the_chapter_says():
    """The answer in other words: a loop over the steps, and "a quarter of the way"."""
    kept, t = 1.0, -1
    while kept > 0.5:
        t += 1
        kept *= 1 - make_betas("linear", 1000)[t]
    assert ask.solution_half_way() == t
    assert t / 1000 == pytest.approx(0.25, abs=0.02)
