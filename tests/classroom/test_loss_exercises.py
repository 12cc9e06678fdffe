import numpy as np
import pytest
from scipy import stats

from diffusion_walkthrough.classroom.exercises import loss as ask
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD


def root(x):
    return np.sqrt(x)


def with_loss(score, noisy=None):
    """An attempt at the loss: ``score(noise, guess, x_start, x_t)`` of a rightly noised image."""

    def attempt(guess_noise, x_start, alpha_bar, t, noise):
        share = alpha_bar[t][:, None]
        x_t = (noisy or right_mixture)(x_start, share, noise)
        return score(noise, guess_noise(x_t, t), x_start, x_t)

    return attempt


def right_mixture(x_start, share, noise):
    return root(share) * x_start + root(1 - share) * noise


def areas(spread_power=1, reach=0.5, ends=False):
    """An attempt at Eq. 13 with slips: bins too wide, wrong unit, ends that do not reach out."""

    def attempt(levels, mean, spread, area):
        half = reach * (levels[1] - levels[0])
        unit = spread**spread_power
        upper = area((levels + half - mean) / unit)
        lower = area((levels - half - mean) / unit)
        if ends:
            upper[-1], lower[0] = 1, 0
        return upper - lower

    return attempt


def density(levels, mean, spread, area):
    return stats.norm(mean, spread).pdf(levels)


def squares(noise, guess, *_):
    return ((noise - guess) ** 2).mean(axis=1)


CHECKS = [
    ask.check_image_from_noise,
    ask.check_simple_loss,
    ask.check_two_bells,
    ask.check_lazy_network,
    ask.check_level_probabilities,
    ask.check_bits,
    ask.check_other_noise,
    ask.check_nothing_to_remove,
    ask.check_which_network,
    ask.check_true_bell,
    ask.check_gap,
    ask.check_better_bits,
]
FUNCTIONS = [ask.check_image_from_noise, ask.check_simple_loss, ask.check_level_probabilities]
NUMBERS = [ask.check_two_bells, ask.check_lazy_network, ask.check_bits]
SOLUTIONS = [
    ask.solution_image_from_noise,
    ask.solution_simple_loss,
    ask.solution_two_bells(),
    ask.solution_lazy_network,
    ask.solution_level_probabilities,
    ask.solution_bits(),
    ask.solution_other_noise,
    ask.solution_nothing_to_remove,
    ask.solution_which_network,
    ask.solution_true_bell,
    ask.solution_gap,
    ask.solution_better_bits,
]
WRONG = [
    (ask.check_image_from_noise, lambda x, a, e: x - root(1 - a) * e, "still shrunk"),
    (ask.check_image_from_noise, lambda x, a, e: x - e, "Undo both"),
    (ask.check_image_from_noise, lambda x, a, e: (x - (1 - a) * e) / root(a), "is the root"),
    (ask.check_image_from_noise, lambda x, a, e: (x - root(1 - a) * e) / a, "divide by the root"),
    (ask.check_image_from_noise, lambda x, a, e: (x + root(1 - a) * e) / root(a), "subtracted"),
    (ask.check_image_from_noise, lambda x, a, e: x / root(a) - root(1 - a) * e, "brackets"),
    (ask.check_simple_loss, with_loss(lambda e, g, *_: abs(e - g).mean(axis=1)), "absolute"),
    (ask.check_simple_loss, with_loss(lambda e, g, *_: ((e - g) ** 2).sum(axis=1)), "the sum"),
    (ask.check_simple_loss, with_loss(lambda e, g, *_: ((e - g) ** 2).mean()), "averaged too"),
    (ask.check_simple_loss, with_loss(lambda *a: root(squares(*a))), "no root"),
    (ask.check_simple_loss, with_loss(lambda e, g, x, _: squares(x, g)), "the clean image"),
    (ask.check_simple_loss, with_loss(lambda e, g, _, x: squares(x, g)), "the noisy image"),
    (ask.check_simple_loss, with_loss(lambda e, g, *_: squares(e, g.clip(-1, 1))), "clipped"),
    (ask.check_simple_loss, with_loss(squares, lambda x, a, e: root(a) * x + e), "too strong"),
    (
        ask.check_simple_loss,
        with_loss(squares, lambda x, a, e: root(a) * x + (1 - a) * e),
        "with the root",
    ),
    (ask.check_two_bells, 0.5 * (np.log(4) + 2 / 4 - 1), "changed places"),
    (ask.check_two_bells, 2.69, "wrong sign"),
    (ask.check_two_bells, 0.5 * (-np.log(2) + 2), "wants variances"),
    (ask.check_two_bells, 2.614, "factor ½"),
    (ask.check_two_bells, 1.807, "−1 at the end"),
    (ask.check_two_bells, 0.614, "twice over"),
    (ask.check_two_bells, 1.886, "in bits"),
    (ask.check_lazy_network, 1, "answering 0"),
    (ask.check_lazy_network, 0.18, "still missing"),
    (ask.check_lazy_network, 0.04, "wrong too"),
    (ask.check_lazy_network, 0.82, "the rest"),
    (ask.check_lazy_network, 0.38, "its square counts"),
    (ask.check_lazy_network, 0.34, "√ᾱ = 0.6"),
    (ask.check_lazy_network, 0.40, "not 1"),
    (ask.check_lazy_network, 0.18 + 0.64**2, "not 1−ᾱ"),
    (ask.check_lazy_network, 0.18 + 0.36**2, "not 1−ᾱ"),
    (ask.check_level_probabilities, areas(), "All bins in between are right"),
    (ask.check_level_probabilities, lambda *a: density(*a) / 4, "Density times width"),
    (ask.check_level_probabilities, density, "That is the density"),
    (ask.check_level_probabilities, areas(reach=1, ends=True), "bins overlap"),
    (ask.check_level_probabilities, areas(reach=1), "is half a step. And the outermost"),
    (ask.check_level_probabilities, areas(2, ends=True), "units of the spread."),
    (ask.check_level_probabilities, areas(2), "units of the spread. And the outermost"),
    (ask.check_level_probabilities, areas(0, ends=True), "bell of spread 1."),
    (ask.check_level_probabilities, areas(0), "bell of spread 1. And the outermost"),
    (
        ask.check_level_probabilities,
        lambda levels, mean, spread, area: area((levels + 0.125 - mean) / spread),
        "left of the bin's upper edge",
    ),
    (ask.check_level_probabilities, lambda *a: -areas(ends=True)(*a), "wrong way round"),
    (ask.check_level_probabilities, lambda *a: np.log(areas(ends=True)(*a)), "the logarithm"),
    (ask.check_bits, 2.34, "nats per pixel"),
    (ask.check_bits, 1.625, "Multiplied"),
    (ask.check_bits, 216.4, "whole image"),
    (ask.check_bits, 27.05, "64 pixels, not 8"),
    (ask.check_bits, 1.018, "base 10"),
    (ask.check_bits, 0.827, "number of levels"),
    (ask.check_other_noise, "a", "would now cost 2"),
    (ask.check_other_noise, "c", "in the middle"),
    (ask.check_other_noise, "d", "left over"),
    (ask.check_nothing_to_remove, "a", "between two heaps"),
    (ask.check_nothing_to_remove, "c", "steep"),
    (ask.check_nothing_to_remove, "d", "from either side"),
    (ask.check_which_network, "a", "by heart"),
    (ask.check_which_network, "c", "as well as old ones"),
    (ask.check_which_network, "d", "only fainter"),
    (ask.check_true_bell, "a", "form heaps"),
    (ask.check_true_bell, "b", "nearly one"),
    (ask.check_true_bell, "d", "multiply two bells"),
    (ask.check_gap, "a", "exact average"),
    (ask.check_gap, "b", "Nothing is trained"),
    (ask.check_gap, "d", "best that a bell can have"),
    (ask.check_better_bits, "a", "no eye sees"),
    (ask.check_better_bits, "b", "no merit"),
    (ask.check_better_bits, "d", "bounds alike"),
]


@pytest.mark.parametrize(("check", "solution"), list(zip(CHECKS, SOLUTIONS, strict=True)))
def test_the_solution_is_right(check, solution, capsys):
    verdict = check(solution)
    assert verdict.right, verdict
    ask.show_solution(check)
    assert "solution" in capsys.readouterr().out


@pytest.mark.parametrize(("check", "attempt", "hint"), WRONG)
def test_a_foreseen_mistake_gets_its_own_hint(check, attempt, hint):
    verdict = check(attempt)
    assert verdict.right is False
    assert hint in verdict.message


def test_no_two_mistakes_share_a_message():
    pairs = {(check.__name__, check(attempt).message) for check, attempt, _ in WRONG}
    assert len(pairs) == len(WRONG) - 1  # 1−ᾱ for √(1−ᾱ) shows in two numbers


@pytest.mark.parametrize("check", FUNCTIONS)
@pytest.mark.parametrize(
    ("garbage", "message"),
    [
        ("text", "A function is expected"),
        (0.3, "A function is expected"),
        (lambda *_: 1 / 0, "stopped with ZeroDivisionError"),
        (lambda one: one, "stopped with TypeError"),
        (lambda *_: np.zeros((2, 2)), "has shape (2, 2)"),
        (lambda *_: "text", "has shape ()"),
        (lambda *_: None, "return"),
    ],
)
def test_garbage_in_place_of_a_function_gets_a_clear_message(check, garbage, message):
    verdict = check(garbage)
    assert verdict.right is False
    assert message in verdict.message


@pytest.mark.parametrize("check", NUMBERS)
@pytest.mark.parametrize("garbage", ["text", [1, 2], 17.0, float("nan")])
def test_garbage_in_place_of_a_number_is_wrong(check, garbage):
    verdict = check(garbage)
    assert verdict.right is False
    assert verdict.message


def test_the_lazy_network_by_drawing_noise():
    rng = np.random.default_rng(0)
    x_start = np.sqrt(0.5) * rng.choice([-1, 1], 200_000)
    noise = rng.standard_normal(200_000)
    x_t = 0.6 * x_start + 0.8 * noise
    assert np.mean((noise - x_t) ** 2) == pytest.approx(ask.solution_lazy_network, abs=0.005)


def test_the_level_probabilities_are_scipys_areas():
    levels, normal = np.linspace(-1, 1, 17), stats.norm(-0.9, 0.2)
    found = ask.solution_level_probabilities(levels, -0.9, 0.2, stats.norm.cdf)
    edges = [-np.inf, *(levels[1:] + levels[:-1]) / 2, np.inf]
    np.testing.assert_allclose(found, np.diff(normal.cdf(edges)))
    assert found.sum() == pytest.approx(1)


def test_bits_with_one_decimal_are_right_too():
    assert ask.check_bits(3.4).right
    assert ask.check_bits(3.38).right
    assert not ask.check_bits(3.3).right


def test_the_best_guess_of_fresh_noise_is_zero():
    rng = np.random.default_rng(0)
    seen, fresh = rng.standard_normal((2, 200_000))
    costs = {answer: np.mean((fresh - answer * seen) ** 2) for answer in (0, 0.5, 1)}
    assert costs[0] == pytest.approx(1, abs=0.01)
    assert costs[1] == pytest.approx(2, abs=0.02)
    assert min(costs, key=costs.get) == 0


def test_the_guess_is_zero_in_a_valley_too():
    noised = WORLD.noised(0.9)
    x = np.linspace(-1, 1, 2001)
    guess = WORLD.expected_noise(x, 0.9)
    level = np.flatnonzero(np.diff(np.sign(guess)))
    assert len(level) >= 3  # tops and at least one valley
    heights = noised.pdf(x[level])
    assert heights.min() < 0.7 * heights.max()


def test_bits_of_an_image_by_its_probability():
    # 64 pixels, each as likely as one in 2^bits: together their surprise is 150 nats.
    assert 64 * -np.log(2.0 ** -ask.solution_bits()) == pytest.approx(150)
