import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import integrate, stats

from diffusion_walkthrough.gaussian_mixture import (
    ONE_DIMENSIONAL_WORLD as WORLD,
    STANDARD_NORMAL,
    GaussianMixture,
)

GRID = np.linspace(-9, 9, 60_001)
ALPHA_BARS = [0.999, 0.9, 0.5, 0.1, 0.001]


def integral(values):
    return integrate.simpson(values, x=GRID)


def density_by_hand(x):
    """The density of the course's world, summed from SciPy's normal densities."""
    return sum(
        w * stats.norm.pdf(x, m, s)
        for w, m, s in zip(WORLD.weights, WORLD.means, WORLD.standard_deviations, strict=True)
    )


def joint_by_hand(x_t, alpha_bar):
    """q(x_0) q(x_t | x_0) on the grid of x_0: Eq. 4 and nothing else."""
    noise = stats.norm.pdf(x_t, np.sqrt(alpha_bar) * GRID, np.sqrt(1 - alpha_bar))
    return density_by_hand(GRID) * noise


@st.composite
def mixtures(draw):
    count = draw(st.integers(1, 4))
    shares = np.array(draw(st.lists(st.floats(0.1, 1), min_size=count, max_size=count)))
    means = draw(st.lists(st.floats(-2, 2), min_size=count, max_size=count))
    deviations = draw(st.lists(st.floats(0.05, 1), min_size=count, max_size=count))
    return GaussianMixture(shares / shares.sum(), means, deviations)


def test_the_world_is_unequal_and_lies_within_the_range_of_images():
    assert len(WORLD.weights) == 3
    assert len(set(WORLD.weights)) == 3
    assert WORLD.cdf(1.0) - WORLD.cdf(-1.0) > 0.999
    assert abs(WORLD.mean) > 0.05


def test_density_is_the_weighted_sum():
    x = np.linspace(-2, 2, 101).reshape(1, 101)
    np.testing.assert_allclose(WORLD.pdf(x), density_by_hand(x), rtol=1e-12)
    assert WORLD.pdf(x).shape == (1, 101)
    assert WORLD.pdf(0.3).shape == ()


@settings(max_examples=20)
@given(mixture=mixtures())
def test_density_mean_variance_and_cdf_agree_with_integration(mixture):
    density = mixture.pdf(GRID)
    assert integral(density) == pytest.approx(1, abs=1e-9)
    mean = integral(density * GRID)
    assert mixture.mean == pytest.approx(mean, abs=1e-8)
    assert mixture.variance == pytest.approx(integral(density * (GRID - mean) ** 2), abs=1e-8)
    cumulative = integrate.cumulative_simpson(density, x=GRID, initial=0)
    np.testing.assert_allclose(mixture.cdf(GRID), cumulative, atol=1e-8)


def test_log_density_is_right_far_out_where_the_density_is_zero():
    x = np.array([-60.0, 60.0])
    assert (WORLD.pdf(x) == 0).all()
    # Only the widest Gaussian counts there.
    expected = np.log(0.5) + stats.norm.logpdf(x, -0.6, 0.12)
    np.testing.assert_allclose(WORLD.log_pdf(x), expected, rtol=1e-12)
    assert np.isfinite(WORLD.score(x)).all()


@settings(max_examples=20)
@given(mixture=mixtures(), x=st.floats(-3, 3))
def test_score_is_the_slope_of_the_log_density(mixture, x):
    step = 1e-5
    slope = (mixture.log_pdf(x + step) - mixture.log_pdf(x - step)) / (2 * step)
    assert mixture.score(x) == pytest.approx(float(slope), rel=1e-4, abs=1e-4)


def test_samples_follow_the_distribution():
    samples = WORLD.sample(20_000, np.random.default_rng(1))
    assert samples.shape == (20_000,)
    assert stats.kstest(samples, WORLD.cdf).pvalue > 0.01


def test_a_seed_repeats_the_samples():
    np.testing.assert_array_equal(WORLD.sample(5, 3), WORLD.sample(5, np.random.default_rng(3)))
    rng = np.random.default_rng(3)
    assert not np.array_equal(WORLD.sample(5, rng), WORLD.sample(5, rng))


@pytest.mark.parametrize("alpha_bar", ALPHA_BARS)
def test_noisy_density_is_the_joint_integrated_over_x_start(alpha_bar):
    noisy = WORLD.noised(alpha_bar)
    for x_t in (-1.2, -0.3, 0.0, 0.7, 2.0):
        assert noisy.pdf(x_t) == pytest.approx(integral(joint_by_hand(x_t, alpha_bar)), abs=1e-9)


def test_noised_at_the_two_ends():
    np.testing.assert_allclose(WORLD.noised(1.0).pdf(GRID), WORLD.pdf(GRID))
    np.testing.assert_allclose(WORLD.noised(0.0).pdf(GRID), stats.norm.pdf(GRID), atol=1e-15)


def test_noisy_samples_made_one_by_one_follow_the_noisy_distribution():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(20_000)
    x_t = np.sqrt(0.7) * WORLD.sample(20_000, rng) + np.sqrt(0.3) * noise
    assert stats.kstest(x_t, WORLD.noised(0.7).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha_bar", ALPHA_BARS)
@pytest.mark.parametrize("x_t", [-1.0, -0.2, 0.1, 0.8])
def test_guesses_and_posterior_agree_with_integrated_bayes(alpha_bar, x_t):
    joint = joint_by_hand(x_t, alpha_bar)
    evidence = integral(joint)
    x_start = integral(joint * GRID) / evidence
    noise = integral(joint * (x_t - np.sqrt(alpha_bar) * GRID)) / evidence / np.sqrt(1 - alpha_bar)
    assert WORLD.expected_x_start(x_t, alpha_bar) == pytest.approx(x_start, abs=1e-7)
    assert WORLD.expected_noise(x_t, alpha_bar) == pytest.approx(noise, abs=1e-6)
    posterior = WORLD.posterior_pdf(GRID, x_t, alpha_bar)
    np.testing.assert_allclose(posterior, joint / evidence, atol=1e-7 * posterior.max())


def test_the_guessed_noise_is_the_score_scaled():
    """Tweedie's formula: E[noise | x_t] = -sqrt(1 - alpha_bar) d log q(x_t) / dx_t."""
    x_t, step = np.linspace(-2, 2, 41), 1e-5
    noisy = WORLD.noised(0.6)
    slope = (noisy.log_pdf(x_t + step) - noisy.log_pdf(x_t - step)) / (2 * step)
    np.testing.assert_allclose(WORLD.expected_noise(x_t, 0.6), -np.sqrt(0.4) * slope, atol=1e-6)


def test_no_other_guess_of_the_noise_is_better():
    rng = np.random.default_rng(4)
    x_start, noise = WORLD.sample(20_000, rng), rng.standard_normal(20_000)
    x_t = np.sqrt(0.5) * x_start + np.sqrt(0.5) * noise

    def error(guess):
        return np.mean((guess - noise) ** 2)

    best = WORLD.expected_noise(x_t, 0.5)
    for other in (best + 0.05, best * 1.1, best * 0.9, np.zeros_like(best), best + 0.1 * x_t):
        assert error(best) < error(other)


def test_guesses_at_the_two_ends():
    x_t = np.array([-0.5, 0.4])
    np.testing.assert_allclose(WORLD.expected_x_start(x_t, 1.0), x_t)
    np.testing.assert_allclose(WORLD.expected_noise(x_t, 1.0), 0.0, atol=1e-15)
    np.testing.assert_allclose(WORLD.expected_x_start(x_t, 0.0), WORLD.mean)
    np.testing.assert_allclose(WORLD.expected_noise(x_t, 0.0), x_t)


@pytest.mark.parametrize("alpha_bar", ALPHA_BARS)
@pytest.mark.parametrize("x_t", [-0.7, 0.35, 2.5])
def test_what_is_left_open_is_the_variance_of_the_integrated_posterior(alpha_bar, x_t):
    joint = joint_by_hand(x_t, alpha_bar)
    joint /= integral(joint)
    mean = integral(joint * GRID)
    expected = integral(joint * (GRID - mean) ** 2)
    found = WORLD.x_start_variance(x_t, alpha_bar)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-10)
    assert WORLD.x_start_variance(np.zeros((3, 1)), np.full(2, alpha_bar)).shape == (3, 2)


def test_nothing_is_left_open_without_noise_and_all_with_nothing_else():
    assert WORLD.x_start_variance(0.3, 1.0) == pytest.approx(0, abs=1e-15)
    assert WORLD.x_start_variance(0.3, 0.0) == pytest.approx(WORLD.variance)


def test_not_knowable_by_lot():
    rng = np.random.default_rng(0)
    x_start = WORLD.sample(200_000, rng)
    for alpha_bar in (0.95, 0.5, 0.1):
        noise = rng.standard_normal(x_start.shape)
        x_t = np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise
        guess = WORLD.expected_x_start(x_t, alpha_bar)
        by_lot = np.mean((guess - x_start) ** 2) / x_start.var()
        # 200,000 draws know it to about 0.3 per cent
        assert WORLD.not_knowable(alpha_bar) == pytest.approx(by_lot, rel=0.015)


def test_not_knowable_rises_with_noise_from_0_to_1():
    shares = WORLD.not_knowable([0.9999, 0.9, 0.5, 0.1, 1e-6])
    assert (np.diff(shares) > 0).all()
    assert shares[0] < 0.01
    assert shares[-1] == pytest.approx(1, abs=1e-4)
    assert WORLD.not_knowable(0.5).shape == ()
    assert WORLD.not_knowable([[0.5], [0.1]]).shape == (2, 1)


def test_what_is_left_open_of_a_single_bell_is_known_in_closed_form():
    """A bell of variance 1 stays one: x_t tells ᾱ of the variance of x_0, and leaves 1-ᾱ."""
    np.testing.assert_allclose(STANDARD_NORMAL.not_knowable([0.9, 0.2]), [0.1, 0.8], rtol=1e-6)
    np.testing.assert_allclose(STANDARD_NORMAL.x_start_variance([-1, 2], 0.3), 0.7)


@pytest.mark.parametrize("alpha_bar", [0.9, 0.2, 0.001])
def test_share_misplaced_is_half_the_area_between(alpha_bar):
    noised = WORLD.noised(alpha_bar)

    def between(x):
        return abs(noised.pdf(x) - stats.norm.pdf(x)) / 2

    area, _ = integrate.quad(between, -8, 8, limit=400, points=[-1, -0.5, 0, 0.5, 1])
    assert noised.share_misplaced(STANDARD_NORMAL) == pytest.approx(area, abs=1e-4)
    assert STANDARD_NORMAL.share_misplaced(noised) == noised.share_misplaced(STANDARD_NORMAL)


def test_share_misplaced_is_0_at_the_same_place_and_1_far_away():
    far = GaussianMixture([1.0], [50.0], [0.5])
    assert WORLD.share_misplaced(WORLD) == 0
    assert far.share_misplaced(STANDARD_NORMAL) == pytest.approx(1, abs=1e-6)


def test_arrays_broadcast_together():
    x_t, alpha_bar = np.linspace(-1, 1, 5)[:, np.newaxis], np.array([0.1, 0.5, 0.9])
    for function in (WORLD.expected_x_start, WORLD.expected_noise):
        together = function(x_t, alpha_bar)
        assert together.shape == (5, 3)
        one_by_one = [[function(x, a) for a in alpha_bar] for x in x_t[:, 0]]
        np.testing.assert_allclose(together, one_by_one, rtol=1e-12)
    assert WORLD.posterior_pdf(np.zeros((2, 1, 1)), x_t, alpha_bar).shape == (2, 5, 3)


def test_arrays_are_read_only_float64():
    for array in (WORLD.weights, WORLD.means, WORLD.standard_deviations):
        assert array.dtype == np.float64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


@pytest.mark.parametrize(
    ("arguments", "piece"),
    [
        (([0.5, 0.6], [0, 1], [1, 1]), "sum is 1.1"),
        (([1.5, -0.5], [0, 1], [1, 1]), "weights"),
        (([1.0, 0.0], [0, 1], [1, 1]), "weights"),
        (([1.0], [0, 1], [1, 1]), "equally long"),
        (([1.0], [0.0], [0.0]), "standard_deviations"),
        (([1.0], [0.0], [-1.0]), "standard_deviations"),
        (([1.0], [np.nan], [1.0]), "means"),
        (([1.0], [0.0], [np.inf]), "standard_deviations"),
        (([], [], []), "weights"),
        ((1.0, 0.0, 1.0), "weights"),
    ],
)
def test_wrong_mixtures_are_refused(arguments, piece):
    with pytest.raises(ValueError, match=piece):
        GaussianMixture(*arguments)


@pytest.mark.parametrize("alpha_bar", [-0.1, 1.1, np.nan])
def test_a_wrong_noise_level_is_refused(alpha_bar):
    for call in (
        lambda: WORLD.noised(alpha_bar),
        lambda: WORLD.expected_noise(0.0, [0.5, alpha_bar]),
        lambda: WORLD.expected_x_start(0.0, alpha_bar),
    ):
        with pytest.raises(ValueError, match=r"alpha_bar=.*alphas_cumprod"):
            call()


def test_the_posterior_without_noise_is_refused():
    with pytest.raises(ValueError, match="spike"):
        WORLD.posterior_pdf(0.0, 0.0, 1.0)
