from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from keras import ops
from scipy import integrate, stats

from diffusion_walkthrough.backward_sampling import Denoiser, p_mean_variance
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.forward_diffusion import q_posterior_mean_variance, q_sample
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.loss import (
    bits_per_dim,
    discretized_gaussian_log_likelihood,
    mark,
    mean_per_image,
    noise_prediction_loss,
    normal_kl,
    predict_noise_from_x_start,
    predict_x_start_from_noise,
    prior_bits_per_dim,
    squared_error,
    variational_bound_terms,
    variational_weight,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import PREDICTION_NAMES, DiffusionParameters
from diffusion_walkthrough.predictions import PREDICTIONS

SCHEDULE = NoiseSchedule(make_betas("linear", 1000))
ALL_T = np.arange(1000, dtype="int32")
GOLDEN = {  # t: √(1/ᾱ), √(1/ᾱ - 1)
    0: (1.00005, 0.0100005),
    1: (1.00011, 0.014830924),
    10: (1.0010985, 0.04688549),
    100: (1.0569492, 0.3422597),
    500: (3.5852507, 3.4429671),
    999: (157.41046, 157.40728),
}
means = st.floats(-5, 5)
log_variances = st.floats(-6, 4)


def numpy(x):
    return ops.convert_to_numpy(x)


def tensor(x):
    return ops.convert_to_tensor(x, dtype="float32")


def draws(shape, seed=0):
    return tensor(np.random.default_rng(seed).standard_normal(shape))


def kl(mean_1, log_variance_1, mean_2, log_variance_2):
    """normal_kl of four numbers."""
    numbers = (tensor([x]) for x in (mean_1, log_variance_1, mean_2, log_variance_2))
    return float(numpy(normal_kl(*numbers))[0])


def kl_by_integration(mean_1, log_variance_1, mean_2, log_variance_2):
    """∫ p log(p / q), with SciPy's densities and quadrature; knows no formula for the KL."""
    deviation = np.exp(log_variance_1 / 2)
    p = stats.norm(mean_1, deviation)
    q = stats.norm(mean_2, np.exp(log_variance_2 / 2))
    span = (mean_1 - 12 * deviation, mean_1 + 12 * deviation)
    integrand = lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x))  # noqa: E731
    return integrate.quad(integrand, *span, limit=200, points=[mean_1])[0]


# --- Two sides of Eq. 4 -------------------------------------------------------------------------


@pytest.mark.parametrize(("t", "coefficients"), list(GOLDEN.items()))
def test_golden_coefficients(t, coefficients):
    of_image, of_noise = coefficients
    t = np.array([t], "int32")
    one, zero = tensor([[1.0]]), tensor([[0.0]])
    image = predict_x_start_from_noise
    assert numpy(image(SCHEDULE, one, t, zero)) == pytest.approx(of_image, rel=1e-6)
    assert numpy(image(SCHEDULE, zero, t, one)) == pytest.approx(-of_noise, rel=1e-5)
    noise = predict_noise_from_x_start
    assert numpy(noise(SCHEDULE, one, t, zero)) == pytest.approx(of_image / of_noise, rel=1e-5)
    assert numpy(noise(SCHEDULE, zero, t, one)) == pytest.approx(-1 / of_noise, rel=1e-5)


def test_the_true_noise_leads_back_to_the_image_at_every_step():
    x_start, noise = draws((1000, 2, 2, 1)), draws((1000, 2, 2, 1), seed=1)
    x_t = q_sample(SCHEDULE, x_start, ALL_T, noise)
    recovered = numpy(predict_x_start_from_noise(SCHEDULE, x_t, ALL_T, noise))
    # float32 keeps x_t to 1e-7 of its size; dividing by √ᾱ magnifies that up to 157 times
    np.testing.assert_allclose(recovered, numpy(x_start), atol=2e-4)
    np.testing.assert_allclose(recovered[:500], numpy(x_start)[:500], atol=5e-6)


def test_the_true_image_leads_back_to_the_noise_at_every_step():
    x_start, noise = draws((1000, 4)), draws((1000, 4), seed=1)
    x_t = q_sample(SCHEDULE, x_start, ALL_T, noise)
    recovered = numpy(predict_noise_from_x_start(SCHEDULE, x_t, ALL_T, x_start))
    np.testing.assert_allclose(recovered, numpy(noise), atol=1e-4)  # worst at t = 0


def test_the_two_predictions_are_each_others_inverse_for_any_guess():
    x_t, guess = draws((1000, 3)), draws((1000, 3), seed=1)
    image = predict_x_start_from_noise(SCHEDULE, x_t, ALL_T, guess)
    np.testing.assert_allclose(
        numpy(predict_noise_from_x_start(SCHEDULE, x_t, ALL_T, image)), numpy(guess), atol=1e-4
    )
    noise = predict_noise_from_x_start(SCHEDULE, x_t, ALL_T, guess)
    np.testing.assert_allclose(
        numpy(predict_x_start_from_noise(SCHEDULE, x_t, ALL_T, noise)), numpy(guess), atol=1e-4
    )


def test_the_implied_image_is_not_clipped():
    t = np.array([500], "int32")
    image = numpy(predict_x_start_from_noise(SCHEDULE, tensor([[9.0]]), t, tensor([[-9.0]])))
    assert image[0, 0] > 60


def test_the_best_image_and_the_best_noise_are_two_sides_of_one_equation():
    for t in (5, 200, 900):
        alpha_bar = SCHEDULE.alphas_cumprod[t]
        x_t = np.linspace(-2, 2, 9)
        best_noise = WORLD.expected_noise(x_t, alpha_bar)
        image = predict_x_start_from_noise(
            SCHEDULE, tensor(x_t), np.full(9, t, "int32"), tensor(best_noise)
        )
        np.testing.assert_allclose(numpy(image), WORLD.expected_x_start(x_t, alpha_bar), atol=1e-4)


# --- The distance of two bells ------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(means, log_variances, means, log_variances)
@example(1.0, 2 * np.log(2), 0.0, 0.0)
def test_kl_is_what_integration_finds(mean_1, log_variance_1, mean_2, log_variance_2):
    case = (mean_1, log_variance_1, mean_2, log_variance_2)
    assert kl(*case) == pytest.approx(kl_by_integration(*case), rel=1e-4, abs=2e-5)


def test_kl_is_what_drawing_finds():
    x = np.random.default_rng(0).normal(1.0, 0.5, 200_000)
    found = stats.norm.logpdf(x, 1.0, 0.5) - stats.norm.logpdf(x, 0.0, 1.0)
    # standard error 0.0025; four of them
    assert found.mean() == pytest.approx(kl(1.0, 2 * np.log(0.5), 0.0, 0.0), abs=0.01)


@settings(max_examples=100, deadline=None)
@given(means, log_variances, means, log_variances)
def test_kl_is_never_negative(mean_1, log_variance_1, mean_2, log_variance_2):
    assert kl(mean_1, log_variance_1, mean_2, log_variance_2) >= -1e-6


@settings(max_examples=30, deadline=None)
@given(means, log_variances)
def test_kl_from_a_bell_to_itself_is_zero(mean, log_variance):
    assert kl(mean, log_variance, mean, log_variance) == 0


def test_kl_of_equal_variances_is_the_squared_distance_of_the_means():
    assert kl(0.7, np.log(0.3), -0.2, np.log(0.3)) == pytest.approx(0.9**2 / (2 * 0.3), rel=1e-5)


def test_kl_is_not_symmetric():
    assert kl(1.0, 2 * np.log(2), 0.0, 0.0) == pytest.approx(1.306853, rel=1e-5)
    assert kl(0.0, 0.0, 1.0, 2 * np.log(2)) == pytest.approx(0.443147, rel=1e-5)


def test_kl_is_elementwise_and_broadcasts():
    mean, log_variance = draws((2, 3, 3, 1)), tensor(np.zeros((2, 1, 1, 1)))
    found = numpy(normal_kl(mean, log_variance, tensor(0.0), tensor(0.0)))
    np.testing.assert_allclose(found, numpy(mean) ** 2 / 2, rtol=1e-5, atol=1e-7)


def test_kl_takes_numbers_and_arrays_of_either_precision():
    expected = kl(1.0, np.log(0.25), 0.0, 0.0)
    assert float(normal_kl(1, np.log(0.25), 0.0, 0)) == pytest.approx(expected)
    mixed = normal_kl(np.ones(2), np.float32(np.log(0.25)), tensor([0.0, 0.0]), 0.0)
    np.testing.assert_allclose(numpy(mixed), [expected] * 2, rtol=1e-6)
    assert numpy(mixed).dtype == np.float32


def test_the_published_slip_in_the_sign_of_a_log_variance_would_be_noticed():
    def slipped(mean_1, log_variance_1, mean_2, log_variance_2):
        ratio = np.exp(log_variance_1 - log_variance_2)
        distance = (mean_1 - mean_2) ** 2 * np.exp(-log_variance_2)
        return 0.5 * (log_variance_1 - log_variance_2 + ratio + distance - 1)

    case = (0.0, np.log(0.25), 0.0, 0.0)
    assert slipped(*case) < 0 < kl_by_integration(*case)
    assert abs(slipped(*case) - kl(*case)) > 1


# --- From the bound to the noise ----------------------------------------------------------------


def posterior_kl(schedule, t, x_start, noise, guess):
    """KL from q(x_{t-1} | x_t, x_0) to the same bell around a guessed x_0, summed over pixels."""
    x_t = q_sample(schedule, x_start, t, noise)
    guessed_start = predict_x_start_from_noise(schedule, x_t, t, guess)
    mean, _, log_variance = q_posterior_mean_variance(schedule, x_start, x_t, t)
    guessed_mean, _, _ = q_posterior_mean_variance(schedule, guessed_start, x_t, t)
    return numpy(normal_kl(mean, log_variance, guessed_mean, log_variance)).sum(axis=1)


@pytest.mark.parametrize(
    "betas",
    [make_betas("linear", 1000), make_betas("linear", 200), make_betas("cosine", 50)],
    ids=["linear 1000", "linear 200", "cosine 50"],
)
def test_each_term_of_the_bound_is_a_weight_times_the_squared_noise_error(betas):
    schedule = NoiseSchedule(betas)
    t = np.arange(len(schedule), dtype="int32")
    x_start, noise, guess = (draws((len(schedule), 6), seed) for seed in range(3))
    squared_error = numpy(ops.square(noise - guess)).sum(axis=1)
    weight = numpy(variational_weight(schedule, t))
    assert weight.shape == (len(schedule),)
    terms = posterior_kl(schedule, t, x_start, noise, guess)
    np.testing.assert_allclose(weight * squared_error, terms, rtol=5e-3)


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ("posterior_mean_coef1", lambda table, betas: table / betas),  # β forgotten
        ("posterior_log_variance_clipped", lambda table, betas: table / 2),  # σ for σ²
        ("posterior_mean_coef1", lambda table, betas: np.append(table[1:], 0)),  # one step off
    ],
)
def test_a_posterior_with_a_published_mistake_would_not_fit_the_weight(table, mistake, monkeypatch):
    schedule = NoiseSchedule(make_betas("linear", 1000))
    t = np.array([1, 100, 900], "int32")
    x_start, noise, guess = (draws((3, 6), seed) for seed in range(3))
    terms = numpy(ops.square(noise - guess)).sum(axis=1) * numpy(variational_weight(schedule, t))
    np.testing.assert_allclose(posterior_kl(schedule, t, x_start, noise, guess), terms, rtol=5e-3)
    monkeypatch.setattr(schedule, table, mistake(getattr(schedule, table), schedule.betas))
    wrong = posterior_kl(schedule, t, x_start, noise, guess)
    assert np.abs(np.log(wrong / terms)).max() > 0.3


def test_golden_weights():
    # β² / (2 β̃ α (1-ᾱ)) from the design's table of β, ᾱ and β̃
    for t, beta, alpha_bar, variance in (
        (1, 1.199199199e-4, 0.999780092072, 5.4531877e-5),
        (100, 2.091991992e-3, 0.895141590898, 2.0545535e-3),
        (999, 0.02, 4.03582976538e-5, 0.019999984),
    ):
        expected = beta**2 / (2 * variance * (1 - beta) * (1 - alpha_bar))
        found = numpy(variational_weight(SCHEDULE, np.array([t])))
        assert found == pytest.approx(expected, rel=1e-5)


def test_the_weight_favours_the_smallest_noise():
    weight = numpy(variational_weight(SCHEDULE, ALL_T[1:]))
    assert weight[0] == pytest.approx(0.5997, abs=1e-3)
    assert weight.max() / weight.min() > 100
    assert weight[:10].sum() > 3 * weight[100:110].sum()


def test_the_bound_lies_above_the_truth_in_one_dimension():
    """Eq. 5, all terms added up with exact posteriors, against the entropy of the world."""
    rng = np.random.default_rng(0)
    weight = numpy(variational_weight(SCHEDULE, ALL_T))
    error = np.zeros(1000)
    for t in range(1000):
        x_start, noise = WORLD.sample(500, rng), rng.standard_normal(500)
        alpha_bar = SCHEDULE.alphas_cumprod[t]
        x_t = np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise
        error[t] = np.mean((noise - WORLD.expected_noise(x_t, alpha_bar)) ** 2)
    variance = SCHEDULE.betas[0]
    first = 0.5 * (np.log(2 * np.pi * variance) + error[0] / (1 - variance))
    bound = first + (weight * error)[1:].sum()
    truth = integrate.quad(lambda x: -WORLD.pdf(x) * WORLD.log_pdf(x), -3, 3, limit=200)[0]
    assert truth < bound < truth + 0.6


# --- The simple loss ----------------------------------------------------------------------------


def images_and_noise(count=64):
    images, _ = load_images("digits")
    noise = np.random.default_rng(1).standard_normal(images[:count].shape).astype("float32")
    t = np.random.default_rng(2).integers(0, 1000, count).astype("int32")
    return images[:count], noise, t


def test_the_loss_is_the_mean_of_the_squares_image_by_image():
    images, noise, t = images_and_noise(5)
    guess = lambda x_t, t: 0.3 * x_t + 0.1  # noqa: E731
    found = numpy(noise_prediction_loss(guess, SCHEDULE, images, t, noise))
    for i in range(5):
        alpha_bar = SCHEDULE.alphas_cumprod[t[i]]
        x_t = np.sqrt(alpha_bar) * images[i] + np.sqrt(1 - alpha_bar) * noise[i]
        assert found[i] == pytest.approx(np.mean((noise[i] - 0.3 * x_t - 0.1) ** 2), rel=1e-5)
    assert found.shape == (5,)
    assert found.dtype == np.float32


def test_always_answering_zero_costs_one_and_the_truth_costs_nothing():
    images, noise, t = images_and_noise(1000)
    zero = noise_prediction_loss(lambda x_t, t: ops.zeros_like(x_t), SCHEDULE, images, t, noise)
    assert numpy(zero).mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / noise.size))
    truth = noise_prediction_loss(lambda x_t, t: tensor(noise), SCHEDULE, images, t, noise)
    assert numpy(truth).max() == 0


def test_whoever_guesses_is_given_x_t_and_t():
    images, noise, t = images_and_noise(4)
    seen = []

    def guess(x_t, step):
        seen.append((numpy(x_t), np.asarray(step)))
        return x_t

    noise_prediction_loss(guess, SCHEDULE, images, t, noise)
    np.testing.assert_allclose(seen[0][0], numpy(q_sample(SCHEDULE, images, t, noise)), atol=1e-6)
    np.testing.assert_array_equal(seen[0][1], t)


def test_wild_guesses_cost_more_than_slight_ones_where_clipping_would_hide_it():
    x_start, noise = np.full((3, 8), -1, "float32"), np.zeros((3, 8), "float32")
    t = np.full(3, 500, "int32")
    guess = tensor(np.array([[0.1], [1.0], [10.0]]) * np.ones((3, 8)))
    loss = numpy(noise_prediction_loss(lambda x_t, t: guess, SCHEDULE, x_start, t, noise))
    np.testing.assert_allclose(loss, [0.01, 1, 100], rtol=1e-5)
    x_t = q_sample(SCHEDULE, x_start, t, noise)
    implied = numpy(predict_x_start_from_noise(SCHEDULE, x_t, t, guess))
    assert np.all(np.clip(implied, -1, 1) == -1)  # the mistake: all three would look perfect


def bayes_error(alpha_bar):
    """E[Var(ε | x_t)] by summing the joint density of x_0 and x_t over a grid: Eq. 4 and Bayes."""
    x_start = np.linspace(-1.5, 1.5, 601)[:, None]
    noise_rate = np.sqrt(1 - alpha_bar)
    x_t = np.linspace(-1.5 - 6 * noise_rate, 1.5 + 6 * noise_rate, 1501)[None]
    parts = zip(WORLD.weights, WORLD.means, WORLD.standard_deviations, strict=True)
    density = sum(w * stats.norm.pdf(x_start, m, s) for w, m, s in parts)
    noise = (x_t - np.sqrt(alpha_bar) * x_start) / noise_rate
    joint = density * np.exp(-(noise**2) / 2)
    joint /= joint.sum()
    marginal = joint.sum(axis=0) + 1e-300
    mean = (joint * noise).sum(axis=0) / marginal
    return (joint * (noise - mean) ** 2).sum()


@pytest.mark.parametrize("t", [30, 100, 200, 400, 800])
def test_the_exact_denoiser_reaches_the_error_that_integration_says_is_unavoidable(t):
    n = 40_000
    rng = np.random.default_rng(t)
    x_start = WORLD.sample(n, rng).astype("float32")[:, None]
    noise = rng.standard_normal((n, 1)).astype("float32")
    alpha_bar = SCHEDULE.alphas_cumprod[t]
    exact = lambda x_t, _: tensor(WORLD.expected_noise(numpy(x_t), alpha_bar))  # noqa: E731
    steps = np.full(n, t, "int32")
    losses = numpy(noise_prediction_loss(exact, SCHEDULE, x_start, steps, noise))
    standard_error = losses.std() / np.sqrt(n)
    assert losses.mean() == pytest.approx(bayes_error(alpha_bar), abs=4 * standard_error)
    for offset in (-0.1, 0.1):
        worse = lambda x_t, t, offset=offset: exact(x_t, t) + offset  # noqa: E731
        found = numpy(noise_prediction_loss(worse, SCHEDULE, x_start, steps, noise)).mean()
        assert found > losses.mean()


def test_images_of_any_number_of_axes_even_none():
    for shape in ((6,), (6, 3), (6, 2, 2), (6, 2, 2, 3)):
        x_start, noise = draws(shape), draws(shape, seed=1)
        t = np.arange(6, dtype="int32")
        loss = noise_prediction_loss(
            lambda x_t, t: ops.zeros_like(x_t), SCHEDULE, x_start, t, noise
        )
        expected = np.mean(numpy(noise).reshape(6, -1) ** 2, axis=1)
        np.testing.assert_allclose(numpy(loss), expected, rtol=1e-5)
        assert numpy(mean_per_image(noise)).shape == (6,)


def test_a_guess_of_another_shape_is_refused_before_broadcasting_hides_it():
    images, noise, t = images_and_noise(8)
    with pytest.raises(ValueError, match=r"shape \(8, 8, 8\).*\(8, 8, 8, 1\).*one number"):
        noise_prediction_loss(lambda x_t, t: x_t[..., 0], SCHEDULE, images, t, noise)
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8, 1\)"):
        noise_prediction_loss(lambda x_t, t: x_t[:1], SCHEDULE, images, t, noise)


def test_numpy_arrays_of_either_precision_give_the_same():
    images, noise, t = images_and_noise(4)
    single = noise_prediction_loss(lambda x_t, t: 0.5 * x_t, SCHEDULE, images, t, noise)
    wide = [np.asarray(x, "float64") for x in (images, noise)]
    double = noise_prediction_loss(
        lambda x_t, t: 0.5 * numpy(x_t).astype("float64"), SCHEDULE, wide[0], t, wide[1]
    )
    np.testing.assert_allclose(numpy(double), numpy(single), rtol=1e-6)
    for predict in (predict_x_start_from_noise, predict_noise_from_x_start):
        found = numpy(predict(SCHEDULE, wide[0], t, wide[1]))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, numpy(predict(SCHEDULE, images, t, noise)), rtol=1e-6)


def test_noise_of_another_shape_is_refused():
    images, noise, t = images_and_noise(4)
    with pytest.raises(ValueError, match="noise has shape"):
        noise_prediction_loss(lambda x_t, t: x_t, SCHEDULE, images, t, noise[:1])


# The decoder ------------------------------------------------------------------------------------


def levels_of(levels):
    return np.linspace(-1, 1, levels)


def edges_of(levels):
    """The borders between the bins, with the outermost at infinity."""
    x = levels_of(levels)
    return np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2, [np.inf]])


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("mean", [-1.2, -0.31, 0.0, 0.7, 1.0])
@pytest.mark.parametrize("scale", [0.005, 0.05, 1.5])
def test_the_probabilities_of_all_levels_sum_to_1(levels, mean, scale):
    x = tensor(levels_of(levels))
    found = discretized_gaussian_log_likelihood(x, mean, np.log(scale), levels)
    assert np.exp(numpy(found)).sum() == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize(("mean", "scale"), [(0.2, 0.01), (-0.9, 0.03), (0.1, 0.4), (0.97, 0.02)])
def test_each_level_has_the_area_that_scipy_finds_in_its_bin(levels, mean, scale):
    x, edges = levels_of(levels), edges_of(levels)
    found = numpy(discretized_gaussian_log_likelihood(tensor(x), mean, np.log(scale), levels))
    expected = np.diff(stats.norm.cdf(edges, mean, scale))
    assert expected.max() > 0.005
    np.testing.assert_allclose(np.exp(found), expected, atol=5e-7)
    assert found.min() >= np.log(1e-12) - 1e-4, "a pixel far off costs much, not infinity"


def test_a_level_costs_the_same_on_either_side_of_the_mean():
    z = np.linspace(0.1, 4, 40)
    left = numpy(discretized_gaussian_log_likelihood(tensor(-0.01 * z), 0.0, np.log(0.01)))
    right = numpy(discretized_gaussian_log_likelihood(tensor(0.01 * z), 0.0, np.log(0.01)))
    np.testing.assert_allclose(left, right, rtol=1e-6)


# The bound, in a world where all of it can be integrated ----------------------------------------

LEVELS = 256
GREY = levels_of(LEVELS)
MASSES = np.diff(WORLD.cdf(edges_of(LEVELS)))
ENTROPY = -(MASSES * np.log2(MASSES)).sum()  # bits: no code can do with less on average


def exact_denoiser(schedule):
    """The best guess of x_0 if the data are the grey levels with their probabilities."""

    def denoise(x_t, t):
        x_t = numpy(x_t).astype(np.float64)
        alpha_bar = schedule.alphas_cumprod[numpy(t)][:, None]
        squares = (x_t - np.sqrt(alpha_bar) * GREY) ** 2 / (2 * (1 - alpha_bar))
        weights = MASSES * np.exp(squares.min(axis=1, keepdims=True) - squares)
        return tensor((weights @ GREY[:, None]) / weights.sum(axis=1, keepdims=True))

    return denoise


def step_back(schedule, x_t, t, variance):
    """Mean and standard deviation of the model's step back, in float64."""
    step = p_mean_variance(
        exact_denoiser(schedule),
        schedule,
        tensor(x_t[:, None]),
        np.full(len(x_t), t, dtype="int32"),
        variance,
    )
    return numpy(step.mean)[:, 0].astype(np.float64), np.exp(numpy(step.log_variance).flat[0] / 2)


def likelihood_by_integration(schedule, variance):
    """Bits that the model needs for each level: its chain of bells, integrated on a grid."""
    grid, gap = np.linspace(-4.5, 4.5, 1500, retstep=True)
    density = stats.norm.pdf(grid)
    for t in reversed(range(len(schedule))):
        mean, deviation = step_back(schedule, grid, t, variance)
        if t:
            kernel = np.exp(-(((grid - mean[:, None]) / deviation) ** 2) / 2)
            density = (gap * density) @ kernel / (deviation * np.sqrt(2 * np.pi))
    areas = np.diff(stats.norm.cdf((edges_of(LEVELS) - mean[:, None]) / deviation), axis=1)
    return -np.log2((gap * density) @ areas)


def grey_values(n):
    return np.random.default_rng(0).choice(GREY, p=MASSES, size=(n, 1)).astype("float32")


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_bound_lies_above_the_likelihood_found_by_integration(variance):
    schedule = NoiseSchedule(make_betas("linear", 50))
    exact = likelihood_by_integration(schedule, variance)
    assert np.exp2(-exact).sum() == pytest.approx(1, abs=1e-3)
    assert ENTROPY < (MASSES * exact).sum() < ENTROPY + 0.15
    together = {"seed": 0, "batch_size": 2000}
    bound = bits_per_dim(
        exact_denoiser(schedule), schedule, grey_values(2000), variance=variance, **together
    )
    error = bound.total.std() / np.sqrt(2000)
    assert bound.total.mean() > (MASSES * exact).sum() - 3 * error


def test_with_many_steps_the_bound_comes_down_to_the_entropy_of_the_data():
    schedule = NoiseSchedule(make_betas("linear", 200))
    together = {"seed": 0, "batch_size": 1500}
    bound = bits_per_dim(
        exact_denoiser(schedule), schedule, grey_values(1500), variance="fixed_large", **together
    )
    error = bound.total.std() / np.sqrt(1500)
    assert error < 0.07
    assert ENTROPY - 3 * error < bound.total.mean() < ENTROPY + 0.2 + 3 * error


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("t", [0, 1, 5, 20, 49])
def test_each_term_is_what_integration_over_x_t_finds(t, variance):
    """E over x_0 and x_t of the KL divergence, or of minus the log probability at t = 0."""
    schedule = NoiseSchedule(make_betas("linear", 50))
    values = grey_values(20_000)
    step = np.full(len(values), t, dtype="int32")
    x_t = q_sample(schedule, values, step, draws(values.shape, 3))
    model = p_mean_variance(exact_denoiser(schedule), schedule, x_t, step, variance)
    found = numpy(variational_bound_terms(schedule, values, x_t, step, model))

    grid, gap = np.linspace(-5, 5, 4001, retstep=True)
    mean, deviation = step_back(schedule, grid, t, variance)
    alpha_bar = schedule.alphas_cumprod[t]
    likely = stats.norm.pdf(grid[:, None], np.sqrt(alpha_bar) * GREY, np.sqrt(1 - alpha_bar))
    if t == 0:
        areas = np.diff(stats.norm.cdf((edges_of(LEVELS) - mean[:, None]) / deviation), axis=1)
        cost = -np.log(np.maximum(areas, 1e-12))
    else:
        coef1, coef2 = schedule.posterior_mean_coef1[t], schedule.posterior_mean_coef2[t]
        true, spread = coef1 * GREY + coef2 * grid[:, None], np.sqrt(schedule.posterior_variance[t])
        cost = np.log(deviation / spread) - 0.5
        cost = cost + (spread**2 + (true - mean[:, None]) ** 2) / (2 * deviation**2)
    expected = gap * (likely * cost).sum(0) @ MASSES / np.log(2)
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / np.sqrt(len(found)) + 1e-4)


# Bits per dimension -------------------------------------------------------------------------------


def test_golden_prior():
    """7.3e-6 bits/dim for the published schedule, where the data have a mean square of 0.25."""
    x_start = np.full((3, 4, 4, 1), 0.5, "float32")
    found = numpy(prior_bits_per_dim(SCHEDULE, x_start))
    np.testing.assert_allclose(found, 7.3e-6, atol=5e-8)


@pytest.mark.parametrize("x_start", [0.0, 0.1, 0.5, 1.0])
def test_the_prior_keeps_its_digits_where_it_is_tiny(x_start):
    """In float64: ½ (-log(1-ᾱ) - ᾱ + ᾱ x²). Written carelessly, float32 has nothing left of it."""
    alpha_bar = SCHEDULE.alphas_cumprod[-1]
    expected = 0.5 * (-np.log1p(-alpha_bar) - alpha_bar + alpha_bar * x_start**2) / np.log(2)
    found = numpy(prior_bits_per_dim(SCHEDULE, np.full((2, 3), x_start, "float32")))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-12)


def test_the_prior_is_what_integration_finds():
    short = NoiseSchedule(make_betas("linear", 10, scaled=False))  # far from pure noise
    alpha_bar = short.alphas_cumprod[-1]
    expected = kl_by_integration(np.sqrt(alpha_bar) * 0.8, np.log(1 - alpha_bar), 0.0, 0.0)
    found = numpy(prior_bits_per_dim(short, np.full((2, 3), 0.8, "float32")))
    np.testing.assert_allclose(found, expected / np.log(2), rtol=1e-5)


def test_the_parts_add_up_for_each_image_in_batches_of_any_size():
    schedule = NoiseSchedule(make_betas("cosine", 10))
    images = load_images("digits")[0][:7]
    grey = lambda x_t, t: ops.zeros_like(x_t)  # noqa: E731
    found = bits_per_dim(grey, schedule, images, levels=17, batch_size=3, seed=0)
    assert found.terms.shape == found.x_start_errors.shape == (7, 10)
    assert found.total.shape == found.prior.shape == (7,)
    np.testing.assert_allclose(found.total, found.prior + found.terms.sum(1), rtol=1e-6)
    again = bits_per_dim(grey, schedule, images, levels=17, batch_size=3, seed=0)
    np.testing.assert_array_equal(found.total, again.total)


def test_bits_do_not_depend_on_how_many_images_are_asked_about_at_once():
    schedule, rng = NoiseSchedule(make_betas("cosine", 3)), np.random.default_rng(0)
    images = rng.choice(np.linspace(-1, 1, 17), (300, 2)).astype("float32")
    whole = bits_per_dim(silent(schedule), schedule, images, levels=17, seed=0)
    for size in (64, 256, 300):
        parts = bits_per_dim(silent(schedule), schedule, images, levels=17, seed=0, batch_size=size)
        np.testing.assert_allclose(parts.terms, whole.terms, rtol=1e-5)
    other = bits_per_dim(silent(schedule), schedule, images, levels=17, seed=1)
    assert np.abs(other.terms - whole.terms).max() > 0.01


def silent(schedule, **options):
    """A network that always answers 0, read as a guess of the noise."""
    return Denoiser(lambda shown, training: 0 * shown[0], schedule, **options)


def test_the_error_curve_is_that_of_the_guessed_image():
    """Always answering 0 guesses x_t / √ᾱ, held within [-1, 1]."""
    schedule = NoiseSchedule(make_betas("linear", 20))
    images = np.zeros((500, 4), "float32")
    found = bits_per_dim(silent(schedule), schedule, images, levels=17, seed=0)
    ratio = np.sqrt((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod)
    inside = lambda r: stats.norm.expect(lambda z: min((r * z) ** 2, 1.0), lb=-9, ub=9)  # noqa: E731
    expected = [inside(ratio[t]) for t in (0, 3, 10, 19)]
    np.testing.assert_allclose(found.x_start_errors.mean(0)[[0, 3, 10, 19]], expected, rtol=0.1)


def test_the_denoise_function_says_whether_images_are_clipped_and_how_wide_steps_are():
    schedule = NoiseSchedule(make_betas("linear", 20))
    images = np.zeros((250, 4), "float32")
    options = {"levels": 17, "seed": 0}
    bits = {
        clip: bits_per_dim(silent(schedule, clip=clip), schedule, images, **options)
        for clip in (True, False)
    }
    ratio = (1 - schedule.alphas_cumprod) / schedule.alphas_cumprod
    np.testing.assert_allclose(bits[False].x_start_errors.mean(0), ratio, rtol=0.2)
    assert bits[True].x_start_errors.max() <= 1
    assert bits[True].total.mean() < 0.5 * bits[False].total.mean()
    large = silent(schedule, variance="fixed_large")
    own = bits_per_dim(large, schedule, images, **options).total
    told = bits_per_dim(silent(schedule), schedule, images, variance="fixed_large", **options).total
    np.testing.assert_array_equal(own, told)
    assert np.abs(own - bits[True].total).min() > 0.01


def test_a_learned_width_is_asked_for_at_every_step():
    """Twice β̃ from a network: at t > 0 its terms are those of a bell with twice the variance."""
    schedule = NoiseSchedule(make_betas("linear", 20))
    images = np.zeros((250, 2, 2, 1), "float32")

    def network(shown, training):
        log_variance = np.log(2) + schedule.posterior_log_variance_clipped[numpy(shown[1])]
        width = tensor(log_variance.reshape(-1, 1, 1, 1)) + 0 * shown[0]
        return ops.concatenate([0 * shown[0], width], axis=-1)

    learned = Denoiser(network, schedule, variance="learned")
    found = bits_per_dim(learned, schedule, images, levels=17, seed=0).terms
    narrow = bits_per_dim(silent(schedule), schedule, images, levels=17, seed=0).terms
    # KL of two variances: ½ (log 2 + ½ - 1), and half of what the distance of the means costs
    expected = (0.5 * (np.log(2) - 0.5) / np.log(2)) + narrow / 2
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=1e-3, atol=1e-5)


def test_progress_is_shown_when_asked_for(capsys):
    schedule = NoiseSchedule(make_betas("linear", 4))
    images = np.zeros((2, 3), "float32")
    bits_per_dim(lambda x_t, t: x_t, schedule, images, levels=17)
    assert capsys.readouterr().out == ""
    bits_per_dim(lambda x_t, t: x_t, schedule, images, levels=17, batch_size=1, progress=True)
    assert "8/8" in capsys.readouterr().out


def test_numbers_that_are_too_small_are_refused():
    schedule = NoiseSchedule(make_betas("linear", 4))
    images = np.zeros((2, 3), "float32")
    for (asked, options), message in (
        ((images[:0], {}), r"images have shape \(0, 3\)"),
        ((images, {"levels": 1}), "levels=1: .*at least 2"),
        ((images, {"levels": 17, "batch_size": 0}), "batch_size=0: .*at least 1"),
        ((images, {"levels": 17.5}), "levels=17.5: .*whole number"),
        ((images, {"levels": 17, "batch_size": "3"}), "batch_size='3': .*without quotes"),
        ((images, {"levels": 17, "seed": -1}), "seed=-1: .*at least 0"),
        ((images + 1j, {"levels": 17}), "of type complex64"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            bits_per_dim(lambda x_t, t: x_t, schedule, asked, **options)


def test_images_that_are_on_no_level_are_refused():
    schedule = NoiseSchedule(make_betas("linear", 4))
    for value in (0.03, 1.25, np.nan):
        with pytest.raises(ValueError, match=r"a pixel has the value .* none of the 17 levels"):
            bits_per_dim(lambda x_t, t: x_t, schedule, np.full((1, 2), value), levels=17)


# Marking ------------------------------------------------------------------------------------------


SMALL = {"variance": "fixed_small"}


def rules(**changes):
    """The noise by its mean squared error and the small variance, but for ``changes``."""
    return dataclasses.replace(DiffusionParameters.cifar10(), **{**SMALL, **changes})


def right_answer(prediction, x_start, noise, x_t, t):
    """What each prediction asks for, by its formula."""
    a, b, coef1, coef2 = (
        table[t].reshape(-1, 1, 1, 1)
        for table in (
            SCHEDULE.sqrt_alphas_cumprod,
            SCHEDULE.sqrt_one_minus_alphas_cumprod,
            SCHEDULE.posterior_mean_coef1,
            SCHEDULE.posterior_mean_coef2,
        )
    )
    return {
        "noise": noise,
        "x_start": x_start,
        "x_prev": coef1 * x_start + coef2 * numpy(x_t),
        "v": a * noise - b * x_start,
        "flow": noise - x_start,
    }[prediction]


def test_every_prediction_has_its_formula_here():
    assert set(PREDICTIONS) == {"noise", "x_start", "x_prev", "v", "flow"}
    assert set(PREDICTION_NAMES) <= set(PREDICTIONS)


@pytest.mark.parametrize("prediction", PREDICTION_NAMES)
def test_the_right_answer_costs_nothing(prediction):
    x_start, noise, _ = images_and_noise(16)
    t = np.arange(0, 960, 60, dtype="int32")
    x_t = q_sample(SCHEDULE, x_start, t, noise)
    answer = right_answer(prediction, x_start, noise, x_t, t)
    given = (SCHEDULE, x_start, x_t, t, noise)
    found = numpy(mark(answer, *given, rules(prediction=prediction)))
    np.testing.assert_allclose(found, 0, atol=1e-10)
    found = numpy(mark(answer + 0.5, *given, rules(prediction=prediction)))
    np.testing.assert_allclose(found, 0.25, rtol=1e-4)
    kl_rules = rules(prediction=prediction, loss="kl")
    bound = numpy(mark(answer, *given, kl_rules))
    np.testing.assert_allclose(bound[1:], 0, atol=2e-5)
    assert bound[0] > 0.1, "the last step has to name the grey level"
    coarse = mark(answer, *given, dataclasses.replace(kl_rules, pixel_levels=17))
    assert numpy(coarse)[0] < 0.5 * bound[0], "of seventeen levels it is easier to name the right"


def test_the_mean_squared_error_of_the_noise_is_the_simple_loss():
    x_start, noise, _ = images_and_noise(16)
    t = np.arange(0, 960, 60, dtype="int32")
    simple = noise_prediction_loss(lambda x_t, t: 0.7 * x_t, SCHEDULE, x_start, t, noise)
    x_t = q_sample(SCHEDULE, x_start, t, noise)
    ours = mark(0.7 * numpy(x_t), SCHEDULE, x_start, x_t, t, noise, rules())
    np.testing.assert_array_equal(numpy(ours), numpy(simple))
    np.testing.assert_array_equal(numpy(ours), numpy(squared_error(0.7 * numpy(x_t), noise)))


def test_the_bound_as_a_loss_is_the_weighted_error_of_the_noise():
    """Eq. 12: with the small variance, L_t is the weight times the squared error, in bits."""
    x_start, noise, _ = images_and_noise(16)
    t = np.arange(1, 961, 60, dtype="int32")
    x_t = q_sample(SCHEDULE, x_start, t, noise)
    answer = numpy(noise) + 0.1 * numpy(draws(noise.shape, 9))
    given = (answer, SCHEDULE, x_start, x_t, t, noise)
    found = mark(*given, rules(loss="kl"))
    squared = numpy(mark(*given, rules()))
    expected = numpy(variational_weight(SCHEDULE, t)) * squared / np.log(2)
    np.testing.assert_allclose(numpy(found), expected, rtol=2e-3)


def test_the_bound_as_a_loss_is_a_term_of_the_bits():
    """The mark of a network's answer, and what a denoise function around it costs there."""
    x_start, noise, _ = images_and_noise(4)
    for t in (0, 1, 700):
        step = np.full(4, t, "int32")
        x_t = q_sample(SCHEDULE, x_start, step, noise)
        answer = 0.9 * noise
        told = rules(loss="kl", variance="fixed_large", pixel_levels=17)
        found = mark(answer, SCHEDULE, x_start, x_t, step, noise, told)
        reading = Denoiser(
            lambda *_, answer=answer, **__: answer, SCHEDULE, "noise", "fixed_large", clip=False
        )
        back = p_mean_variance(reading, SCHEDULE, x_t, step)
        term = variational_bound_terms(SCHEDULE, x_start, x_t, step, back, 17)
        np.testing.assert_allclose(numpy(found), numpy(term), rtol=1e-6)


def test_marks_are_of_answers_as_they_are_where_clipping_would_hide_an_error():
    """A published mistake: guesses of a black pixel that are too dark would all look perfect."""
    x_start, noise = np.full((3, 1, 1, 8), -1, "float32"), np.zeros((3, 1, 1, 8), "float32")
    t = np.full(3, 300, "int32")
    x_t = q_sample(SCHEDULE, x_start, t, noise)
    answer = -np.array([1.1, 3, 9], "float32").reshape(3, 1, 1, 1) * np.ones_like(x_start)
    given = (answer, SCHEDULE, x_start, x_t, t, noise)
    by_error = numpy(mark(*given, rules(prediction="x_start")))
    np.testing.assert_allclose(by_error, [0.01, 4, 64], rtol=1e-5)
    by_bound = numpy(mark(*given, rules(prediction="x_start", loss="kl")))
    np.testing.assert_allclose(by_bound / by_bound[1], [0.01 / 4, 1, 16], rtol=1e-3)


def test_a_learned_variance_is_best_where_it_is_the_true_one():
    x_start, noise, _ = images_and_noise(16)
    t = np.full(16, 300, dtype="int32")
    x_t = q_sample(SCHEDULE, x_start, t, noise)
    true = SCHEDULE.posterior_log_variance_clipped[300]
    costs = {}
    for shift in (-1.0, 0.0, 1.0):
        log_variance = np.full(noise.shape, true + shift, "float32")
        answer = np.concatenate([numpy(noise), log_variance], axis=-1)
        told = rules(variance="learned", loss="kl")
        found = mark(answer, SCHEDULE, x_start, x_t, t, noise, told)
        costs[shift] = numpy(found).mean() * np.log(2)
    assert costs[0.0] == pytest.approx(0, abs=1e-5)
    for shift in (-1.0, 1.0):  # ½ (shift + e^(-shift) - 1), the KL of two variances
        assert costs[shift] == pytest.approx(0.5 * (shift + np.exp(-shift) - 1), rel=1e-3)


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_answers_of_another_shape_are_refused(loss):
    x_start, noise, _ = images_and_noise(2)
    given = (SCHEDULE, x_start, noise, np.zeros(2, "int32"), noise)
    for answer in (noise[:, :1], noise[..., 0], noise[:1]):
        with pytest.raises(ValueError, match=r"one number for each pixel"):
            mark(answer, *given, rules(loss=loss))
    with pytest.raises(ValueError, match=r"variance = 'learned' goes with twice the channels"):
        mark(noise, *given, rules(variance="learned", loss="kl"))
