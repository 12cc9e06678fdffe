import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from scipy import stats

from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.forward_diffusion import (
    add_noise,
    q_mean_variance,
    q_posterior_mean_variance,
    q_sample,
)
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

LONG = NoiseSchedule(make_betas("linear", 1000))
COSINE = NoiseSchedule(make_betas("cosine", 100))
COARSE = NoiseSchedule(make_betas("linear", 20))
SCHEDULES = pytest.mark.parametrize(
    "schedule", [LONG, COSINE, COARSE], ids=["long", "cosine", "coarse"]
)

# t, ᾱ, coef1, coef2, β̃ for the linear schedule of 1000 steps, known from the original program.
GOLDEN = [
    (0, 0.9999, 1.0, 0.0, 0.0),
    (1, 0.999780092072, 0.5452915, 0.4547085, 5.4531877e-5),
    (10, 0.997806572508, 0.13627786, 0.86372207, 2.5846362e-4),
    (100, 0.895141590898, 0.018895456, 0.9810761, 2.0545535e-3),
    (500, 0.077796658365, 0.0030580571, 0.99410435, 0.010051336),
    (999, 4.03582976538e-5, 1.2835149e-4, 0.98994868, 0.019999984),
]

images = arrays(np.float64, (3, 2, 2, 1), elements=st.floats(-1, 1))
noises = arrays(np.float64, (3, 2, 2, 1), elements=st.floats(-4, 4))
beta_lists = st.lists(st.floats(1e-4, 0.9), min_size=1, max_size=12)


def values(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), dtype=np.float64)


def alpha_bar_by_hand(schedule, t):
    """The product of 1 - β over the first t + 1 steps, in a loop."""
    product = 1.0
    for beta in schedule.betas[: t + 1]:
        product *= 1 - float(beta)
    return product


# One step: Eq. 2.


def test_one_step_on_numbers_worked_out_on_paper():
    # √0.64 = 0.8 of the old, √0.36 = 0.6 of the noise.
    result = values(add_noise(np.array([1.0, -0.5, 0.0]), 0.36, np.array([0.0, 1.0, -2.0])))
    np.testing.assert_allclose(result, [0.8, -0.4 + 0.6, -1.2], atol=1e-6)


def test_beta_may_differ_from_image_to_image():
    x, noise = np.random.default_rng(0).standard_normal((2, 3, 2, 2, 1))
    betas = np.array([0.1, 0.5, 0.9])
    together = values(add_noise(x, betas.reshape(3, 1, 1, 1), noise))
    for i, beta in enumerate(betas):
        np.testing.assert_allclose(together[i], values(add_noise(x[i], beta, noise[i])), atol=1e-6)


@given(beta=st.floats(1e-6, 0.999))
@settings(max_examples=40, deadline=None)
def test_one_step_keeps_the_total_variance(beta):
    of_image, of_noise = values(add_noise(np.array([1.0, 0.0]), beta, np.array([0.0, 1.0])))
    assert of_image**2 + of_noise**2 == pytest.approx(1, abs=1e-6)
    assert of_noise**2 == pytest.approx(beta, rel=1e-5)


# Many steps: Eq. 4 against the chain of Eq. 2.


@SCHEDULES
def test_chain_has_the_closed_form_mean_and_variance_at_every_step(schedule):
    # Each step is linear: `kept` times the old value plus `spread` times fresh noise.
    ones, zeros = np.ones(len(schedule)), np.zeros(len(schedule))
    kept = values(add_noise(ones, schedule.betas, zeros))
    spread = values(add_noise(zeros, schedule.betas, ones))
    mean, variance, chain = 0.8, 0.0, []
    for a, b in zip(kept, spread, strict=True):
        mean, variance = a * mean, a**2 * variance + b**2
        chain.append((mean, variance))
    t = np.arange(len(schedule))
    closed = q_mean_variance(schedule, np.full(len(schedule), 0.8), t)
    # float32 rounds each factor by up to 6e-8, and at most 1000 of them multiply.
    np.testing.assert_allclose(values(closed[0]), np.array(chain)[:, 0], rtol=1e-4)
    np.testing.assert_allclose(values(closed[1]), np.array(chain)[:, 1], rtol=1e-4)


def test_walkers_of_the_chain_follow_the_closed_form():
    schedule, walkers = NoiseSchedule(make_betas("linear", 100)), 20_000
    rng = np.random.default_rng(5)
    x = np.full(walkers, 0.8)
    for t, beta in enumerate(schedule.betas):
        x = add_noise(x, beta, rng.standard_normal(walkers))
        mean, variance = (
            float(values(v)[0]) for v in q_mean_variance(schedule, np.array([0.8]), [t])
        )
        walked = values(x)
        # Five standard errors of a mean and of a variance of normal numbers.
        assert abs(walked.mean() - mean) < 5 * np.sqrt(variance / walkers)
        assert abs(walked.var() - variance) < 5 * variance * np.sqrt(2 / walkers)
    assert stats.kstest(walked, stats.norm(mean, np.sqrt(variance)).cdf).pvalue > 0.01


@pytest.mark.parametrize("t", [0, 50, 200, 500, 999])
def test_jump_carries_the_one_dimensional_world_to_its_exact_density(t):
    rng = np.random.default_rng(t)
    x_start, noise = WORLD.sample(20_000, rng), rng.standard_normal(20_000)
    x_t = values(q_sample(LONG, x_start, np.full(20_000, t), noise))
    assert stats.kstest(x_t, WORLD.noised(alpha_bar_by_hand(LONG, t)).cdf).pvalue > 0.01


@SCHEDULES
def test_jump_is_the_formula_with_the_product_taken_by_hand(schedule):
    digit, _ = companion_digit()
    noise = np.random.default_rng(0).standard_normal(digit.shape)
    for t in (0, 1, len(schedule) // 2, len(schedule) - 1):
        alpha_bar = alpha_bar_by_hand(schedule, t)
        expected = np.sqrt(alpha_bar) * digit + np.sqrt(1 - alpha_bar) * noise
        result = values(q_sample(schedule, digit[None], [t], noise[None]))[0]
        np.testing.assert_allclose(result, expected, atol=2e-6)


@SCHEDULES
def test_jump_then_one_step_is_the_next_jump(schedule):
    """With the noise that two jumps share, Eq. 2 after Eq. 4 is Eq. 4 one step later."""
    rng = np.random.default_rng(0)
    x_start, first, second = rng.standard_normal((3, 4))
    for t in range(1, len(schedule), max(1, len(schedule) // 20)):
        beta, before = schedule.betas[t], 1 - alpha_bar_by_hand(schedule, t - 1)
        walked = add_noise(q_sample(schedule, x_start, np.full(4, t - 1), first), beta, second)
        # The two noises in their shares, scaled to variance 1.
        both = np.sqrt((1 - beta) * before) * first + np.sqrt(beta) * second
        both /= np.sqrt((1 - beta) * before + beta)
        jumped = q_sample(schedule, x_start, np.full(4, t), both)
        np.testing.assert_allclose(values(walked), values(jumped), atol=3e-6)


@SCHEDULES
def test_rates_of_the_jump_are_those_of_mean_and_variance(schedule):
    t = np.arange(len(schedule))
    ones, zeros = np.ones(len(t)), np.zeros(len(t))
    mean, variance = q_mean_variance(schedule, ones, t)
    np.testing.assert_array_equal(values(q_sample(schedule, ones, t, zeros)), values(mean))
    spread = values(q_sample(schedule, zeros, t, ones))
    np.testing.assert_allclose(spread**2, values(variance), rtol=1e-6)
    np.testing.assert_allclose(values(mean) ** 2 + spread**2, 1, rtol=1e-6)


@given(x=images, y=images, noise=noises, other=noises, a=st.floats(-2, 2), t=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_jump_is_linear_in_image_and_noise(x, y, noise, other, a, t):
    t = np.full(3, t)
    together = values(q_sample(LONG, a * x + y, t, a * noise + other))
    apart = a * values(q_sample(LONG, x, t, noise)) + values(q_sample(LONG, y, t, other))
    np.testing.assert_allclose(together, apart, atol=1e-5)


# A batch: each image at its own step.


@pytest.fixture
def batch():
    rng = np.random.default_rng(3)
    t = np.array([700, 3, 3, 0, 999])
    return rng.uniform(-1, 1, (5, 4, 3, 2)), t, rng.standard_normal((5, 4, 3, 2))


def test_each_image_stands_at_its_own_step(batch):
    x_start, t, noise = batch
    x_t = values(q_sample(LONG, x_start, t, noise))
    mean, variance = (values(v) for v in q_mean_variance(LONG, x_start, t))
    posterior = [values(v) for v in q_posterior_mean_variance(LONG, x_start, x_t, t)]
    for i in range(5):
        one = slice(i, i + 1)
        alone = q_sample(LONG, x_start[one], t[one], noise[one])
        np.testing.assert_allclose(x_t[one], values(alone), atol=1e-6)
        alone = q_mean_variance(LONG, x_start[one], t[one])
        np.testing.assert_allclose(mean[one], values(alone[0]), atol=1e-6)
        np.testing.assert_allclose(variance[one], values(alone[1]), rtol=1e-6)
        alone = q_posterior_mean_variance(LONG, x_start[one], x_t[one], t[one])
        for together, single in zip(posterior, alone, strict=True):
            np.testing.assert_allclose(together[one], values(single), atol=1e-6)


def test_order_of_the_batch_does_not_matter(batch):
    x_start, t, noise = batch
    order = np.array([4, 2, 0, 1, 3])
    mixed = q_sample(LONG, x_start[order], t[order], noise[order])
    straight = values(q_sample(LONG, x_start, t, noise))
    np.testing.assert_allclose(values(mixed), straight[order], atol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (2, 5), (2, 4, 4, 3)])
def test_any_shape_with_a_batch_in_front_works(shape):
    x_start, noise = np.random.default_rng(0).standard_normal((2, *shape))
    column = (2,) + (1,) * (len(shape) - 1)
    t = np.array([1, 19], dtype="int32")
    x_t = q_sample(COARSE, x_start, t, noise)
    mean, variance = q_mean_variance(COARSE, x_start, t)
    posterior = q_posterior_mean_variance(COARSE, x_start, x_t, t)
    assert [tuple(v.shape) for v in (x_t, mean, variance)] == [shape, shape, column]
    assert [tuple(v.shape) for v in posterior] == [shape, column, column]


def test_results_are_float32_even_from_float64_arrays():
    x, noise, t = np.ones((2, 3)), np.zeros((2, 3)), [0, 5]
    results = [add_noise(x, np.float64(0.1), noise), q_sample(COARSE, x, t, noise)]
    results += [*q_mean_variance(COARSE, x, t), *q_posterior_mean_variance(COARSE, x, noise, t)]
    assert {ops.convert_to_numpy(v).dtype for v in results} == {np.dtype("float32")}


# One step back with x_0 known: Eqs. 6 and 7.


def posterior_by_integration(schedule, x_start, x_t, t):
    """Mean and variance of q(x_{t-1} | x_0) q(x_t | x_{t-1}), normalized on a grid."""
    grid = np.linspace(-8, 8, 800_001)
    before, beta = alpha_bar_by_hand(schedule, t - 1), schedule.betas[t]
    log_weight = -((grid - np.sqrt(before) * x_start) ** 2) / (2 * (1 - before))
    log_weight -= (x_t - np.sqrt(1 - beta) * grid) ** 2 / (2 * beta)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = (weight * grid).sum()
    return mean, (weight * (grid - mean) ** 2).sum()


@pytest.mark.parametrize(("x_start", "x_t"), [(0.8, -0.6), (-1.0, 0.0), (0.3, 3.5)])
@pytest.mark.parametrize(
    ("schedule", "t"), [(LONG, 1), (LONG, 2), (LONG, 400), (LONG, 999), (COARSE, 6), (COARSE, 19)]
)
def test_posterior_agrees_with_bayes_rule_integrated(schedule, t, x_start, x_t):
    expected_mean, expected_variance = posterior_by_integration(schedule, x_start, x_t, t)
    mean, variance, log_variance = (
        values(v)[0]
        for v in q_posterior_mean_variance(schedule, np.array([x_start]), np.array([x_t]), [t])
    )
    assert mean == pytest.approx(expected_mean, abs=2e-6)
    assert variance == pytest.approx(expected_variance, rel=1e-5)
    assert log_variance == pytest.approx(np.log(expected_variance), abs=1e-5)


@given(x_start=st.floats(-1, 1), x_t=st.floats(-4, 4))
@settings(max_examples=20, deadline=None)
def test_posterior_at_the_first_step_is_the_clean_image_itself(x_start, x_t):
    mean, variance, log_variance = q_posterior_mean_variance(
        LONG, np.array([x_start]), np.array([x_t]), [0]
    )
    # JAX rounds the tiniest numbers (below 1e-37) to 0.
    assert values(mean)[0] == pytest.approx(np.float32(x_start), rel=0, abs=1e-37)
    assert values(variance)[0] == 0
    # Where the variance is 0 the logarithm of the next one stands in.
    assert values(log_variance)[0] == pytest.approx(-9.8167251, abs=1e-6)


@SCHEDULES
def test_posterior_averaged_over_x_t_is_the_density_one_step_earlier(schedule):
    """The laws of total expectation, variance and covariance, for every t at once.

    The average over q(x_t | x_0) is a Gauss-Hermite sum, exact for polynomials up to degree 15.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    steps = len(schedule)
    t, x_start = np.arange(steps), np.full((steps, 8), 0.7)
    x_t = q_sample(schedule, x_start, t, np.tile(nodes, (steps, 1)))
    means, variance, _ = (values(v) for v in q_posterior_mean_variance(schedule, x_start, x_t, t))
    average = means @ weights
    total_variance = variance[:, 0] + (means - average[:, None]) ** 2 @ weights
    covariance = (means * (values(x_t) - values(x_t) @ weights[:, None])) @ weights

    before = np.array([1.0] + [alpha_bar_by_hand(schedule, s - 1) for s in t[1:]])
    np.testing.assert_allclose(average, np.sqrt(before) * 0.7, atol=3e-6)
    np.testing.assert_allclose(total_variance, 1 - before, rtol=2e-4, atol=1e-9)
    # Forwards, x_t is √(1-β) x_{t-1} plus independent noise.
    forwards = np.sqrt(1 - schedule.betas) * (1 - before)
    np.testing.assert_allclose(covariance, forwards, rtol=1e-3, atol=1e-6)


@given(betas=beta_lists, x_start=st.floats(-1, 1), data=st.data())
@settings(max_examples=40, deadline=None)
def test_posterior_of_an_image_without_noise_is_that_image_one_step_earlier(betas, x_start, data):
    """On any schedule: c1 + c2 √ᾱ_t = √ᾱ_{t-1}, and β̃ is at most β."""
    schedule = NoiseSchedule(betas)
    t = data.draw(st.integers(0, len(betas) - 1))
    x_t, _ = q_mean_variance(schedule, np.array([x_start]), [t])
    mean, variance, log_variance = q_posterior_mean_variance(
        schedule, np.array([x_start]), x_t, [t]
    )
    before = np.prod(1 - np.array(betas[:t]))
    assert values(mean)[0] == pytest.approx(np.sqrt(before) * x_start, abs=2e-6)
    assert 0 <= values(variance)[0] <= betas[t] * (1 + 1e-6)
    assert np.isfinite(values(log_variance)).all()


def test_posterior_lies_between_its_two_sources_and_is_narrower_than_both():
    t = np.arange(1, 1000)
    x_start, x_t = np.full(999, -0.5), np.full(999, 0.5)
    variance = values(q_posterior_mean_variance(LONG, x_start, x_t, t)[1])
    assert (variance < LONG.betas[t] / LONG.alphas[t]).all()
    assert (variance < 1 - LONG.alphas_cumprod[t - 1]).all()


# Golden numbers.


@pytest.mark.parametrize(("t", "alpha_bar", "coef1", "coef2", "variance"), GOLDEN)
def test_golden_numbers(t, alpha_bar, coef1, coef2, variance):
    one, zero = np.ones(1), np.zeros(1)
    mean, noise_variance = (values(v)[0] for v in q_mean_variance(LONG, one, [t]))
    assert mean == pytest.approx(np.sqrt(alpha_bar), rel=1e-6)
    assert noise_variance == pytest.approx(1 - alpha_bar, rel=1e-6)
    spread = values(q_sample(LONG, zero, [t], one))[0]
    assert spread == pytest.approx(np.sqrt(1 - alpha_bar), rel=1e-6)
    weight_of_start = values(q_posterior_mean_variance(LONG, one, zero, [t])[0])[0]
    weight_of_x_t, found, _ = (
        values(v)[0] for v in q_posterior_mean_variance(LONG, zero, one, [t])
    )
    assert weight_of_start == pytest.approx(coef1, rel=1e-6)
    assert weight_of_x_t == pytest.approx(coef2, rel=1e-6)
    assert found == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize(("t", "expected"), [(0, -9.8167251), (1, -9.8167251), (2, -9.3671215)])
def test_golden_log_variances(t, expected):
    log_variance = q_posterior_mean_variance(LONG, np.ones(1), np.ones(1), [t])[2]
    assert values(log_variance)[0] == pytest.approx(expected, abs=1e-6)


# Shapes that would broadcast to nonsense.


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 8, 8, 1), (4, 8, 8, 3), (4, 1, 1, 1), (4,)])
def test_noise_of_another_shape_is_refused(shape):
    x, noise = np.zeros((4, 8, 8, 1)), np.zeros(shape)
    for name, call in (
        ("x_start", lambda: q_sample(LONG, x, np.zeros(4, "int32"), noise)),
        ("x_prev", lambda: add_noise(x, 0.1, noise)),
    ):
        with pytest.raises(ValueError, match="each pixel needs its own noise") as error:
            call()
        assert f"noise has shape {shape} and {name} has (4, 8, 8, 1)" in str(error.value)


def test_posterior_of_images_of_different_shapes_is_refused():
    x_start, x_t = np.zeros((4,)), np.zeros((4, 1))
    with pytest.raises(ValueError, match=r"x_start has shape \(4,\) and x_t has \(4, 1\)"):
        q_posterior_mean_variance(LONG, x_start, x_t, np.zeros(4, "int32"))
