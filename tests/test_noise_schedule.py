"""The schedule's tables against published numbers, the chain itself, Bayes's rule and laws."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from diffusion_walkthrough.noise_schedule import (
    LARGEST_BETA,
    SMALLEST_BETA,
    NoiseSchedule,
    cosine_betas,
    extract,
    linear_betas,
    make_betas,
)
from diffusion_walkthrough.parameters import (
    SCHEDULE_NAMES,
    DiffusionParameters,
    ScheduleParameters,
)

COLUMNS = (
    "betas",
    "alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
# The linear schedule of Ho et al. 2020, T = 1000, as texts: each digit given must be right.
GOLDEN = {
    0: "1.00000000e-4 0.999900000000 1.00005 0.0100005 0.000000000 1.000000000 0.000000000",
    1: "1.199199199e-4 0.999780092072 1.00011 0.014830924 5.4531877e-5 0.5452915 0.4547085",
    10: "2.991991992e-4 0.997806572508 1.0010985 0.04688549 2.5846362e-4 0.13627786 0.86372207",
    100: "2.091991992e-3 0.895141590898 1.0569492 0.3422597 2.0545535e-3 0.018895456 0.9810761",
    500: "0.01005995996 0.077796658365 3.5852507 3.4429671 0.010051336 0.0030580571 0.99410435",
    999: "0.0200000000 4.03582976538e-5 157.41046 157.40728 0.019999984 1.2835149e-4 0.98994868",
}
EVERY_TABLE = (
    *COLUMNS,
    "alphas",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "posterior_log_variance_clipped",
    "snr",
    "log_snr",
)


@pytest.fixture(scope="module")
def linear():
    return NoiseSchedule(make_betas("linear", 1000))


@pytest.fixture(scope="module")
def cosine():
    return NoiseSchedule(make_betas("cosine", 1000))


def half_of_the_last_digit(text):
    """The tolerance that a number's text promises: 0.5 in its last digit."""
    mantissa, _, exponent = text.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.5 * 10.0 ** (int(exponent or 0) - decimals) * (1 + 1e-6)


any_betas = st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=60)


def schedule_from(betas):
    """A schedule of any betas that leave the computer something of the image."""
    assume(np.sum(np.log1p(-np.array(betas))) > -300)
    return NoiseSchedule(betas)


# -- the published tables ------------------------------------------------------------------------


@pytest.mark.parametrize("t", GOLDEN)
@pytest.mark.parametrize("column", COLUMNS)
def test_linear_tables_are_the_published_ones(linear, t, column):
    text = GOLDEN[t].split()[COLUMNS.index(column)]
    value = getattr(linear, column)[t]
    assert value == pytest.approx(float(text), abs=half_of_the_last_digit(text), rel=0)


def test_log_variances_are_the_published_ones(linear):
    """`fixed_small` is log β̃; `fixed_large` is log β, with β̃ of t = 1 standing in at t = 0."""
    small = linear.posterior_log_variance_clipped
    assert small[:3] == pytest.approx([-9.8167251, -9.8167251, -9.3671215], abs=5e-8)
    large = np.log(np.append(linear.posterior_variance[1], linear.betas[1:]))
    assert large[:3] == pytest.approx([-9.8167251, -9.0286864, -8.8750128], abs=5e-8)


@pytest.mark.parametrize(
    ("name", "left"),
    [("quad", 7.3341e-4), ("warmup10", 4.614e-9), ("warmup50", 2.606e-7), ("const", 1.683e-9)],
)
@pytest.mark.parametrize("scaled", [True, False])
def test_the_other_schedules_end_at_the_published_values(name, left, scaled):
    schedule = NoiseSchedule(make_betas(name, 1000, scaled=scaled))
    assert schedule.alphas_cumprod[-1] == pytest.approx(left, rel=2e-4)


def test_jsd_takes_away_the_same_share_of_the_image_in_each_step_and_leaves_nothing():
    betas = make_betas("jsd", 8)
    np.testing.assert_allclose(betas, [1 / 8, 1 / 7, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1])
    schedule = NoiseSchedule(betas)
    np.testing.assert_allclose(schedule.alphas_cumprod, np.arange(7, -1, -1) / 8, atol=1e-15)
    assert schedule.alphas_cumprod[-1] == schedule.signal_left == schedule.snr[-1] == 0
    assert schedule.log_snr[-1] == -np.inf
    assert schedule.sqrt_recip_alphas_cumprod[-1] == np.inf
    for table in ("posterior_variance", "posterior_mean_coef1", "posterior_mean_coef2"):
        assert np.isfinite(getattr(schedule, table)).all()
    assert schedule.posterior_mean_coef2[-1] == 0, "what is pure noise tells nothing"


@pytest.mark.parametrize("T", [1, 8, 1000, 10_000])
def test_on_the_straight_path_the_share_of_noise_rises_evenly(T):
    """b / (a + b) is s = 1/T, 2/T, …, 1, so that x_t / (a + b) is (1 - s) x_0 + s ε."""
    schedule = NoiseSchedule(make_betas("straight", T))
    a, b = schedule.sqrt_alphas_cumprod, np.sqrt(1 - schedule.alphas_cumprod)
    s = np.arange(1, T + 1) / T
    np.testing.assert_allclose(b / (a + b), s, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(schedule.rates(np.array([T - 1]), 1), [[0.0], [1.0]])
    a, b = schedule.rates(np.arange(T, dtype="int32"), 1)
    np.testing.assert_allclose(a / (a + b), 1 - s, atol=2e-7)


def test_a_straight_path_has_no_more_steps_than_float64_can_tell_apart():
    with pytest.raises(ValueError, match=r"timesteps=10001: in more than .* Use at most 10000"):
        make_betas("straight", 10_001)


def test_the_others_rise_as_their_names_say():
    start, end, T = 1e-4, 0.02, 1000
    quad, sigmoid = make_betas("quad", T), make_betas("sigmoid", T)
    np.testing.assert_allclose(np.diff(np.sqrt(quad)), (end**0.5 - start**0.5) / (T - 1))
    middle = (start + end) / 2
    np.testing.assert_allclose(sigmoid + sigmoid[::-1], 2 * middle)  # symmetrical about its middle
    assert sigmoid[0] == pytest.approx(start, rel=0.6)
    assert sigmoid[-1] == pytest.approx(end, rel=0.003)
    steepest = np.argmax(np.diff(sigmoid))
    assert abs(steepest - T / 2) <= 1
    for name, rising in (("warmup10", 100), ("warmup50", 500), ("const", 0)):
        betas = make_betas(name, T)
        np.testing.assert_allclose(betas[rising:], end)
        if rising:
            np.testing.assert_allclose(betas[:rising], linear_betas(rising, start, end))


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
@pytest.mark.parametrize("timesteps", [1, 2, 3, 50, 4000])
def test_every_schedule_has_tables_for_any_length(name, timesteps):
    schedule = NoiseSchedule(make_betas(name, timesteps))
    assert len(schedule) == timesteps
    for table in ("posterior_log_variance_clipped", "posterior_mean_coef1", "sqrt_alphas_cumprod"):
        assert np.isfinite(getattr(schedule, table)).all()


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
@pytest.mark.parametrize("timesteps", range(1, 13))
def test_even_the_shortest_schedules_end_in_nearly_pure_noise(name, timesteps):
    """A single step is that of the end: that of the beginning left 95 % of the image."""
    assert NoiseSchedule(make_betas(name, timesteps)).signal_left < 0.05


def test_a_short_rise_begins_where_it_is_told_to():
    for name, timesteps in (("warmup50", 2), ("warmup50", 3), ("warmup10", 10)):
        betas = make_betas(name, timesteps, 0.001, 0.1, scaled=False)
        np.testing.assert_array_equal(betas, [0.001, *[0.1] * (timesteps - 1)])


def test_cosine_ends_at_the_published_value(cosine):
    assert cosine.alphas_cumprod[-1] == pytest.approx(2.43e-9, rel=2e-3)
    assert cosine.betas[-1] == LARGEST_BETA
    assert (cosine.betas[:-1] < LARGEST_BETA).all()


@pytest.mark.parametrize(
    ("timesteps", "left"),
    [(10, 0.951), (50, 0.776), (100, 0.603), (200, 0.364), (300, 0.219), (500, 0.080),
     (1000, 0.006)],
)  # fmt: skip
def test_raw_betas_leave_the_image_in_a_short_chain(timesteps, left):
    schedule = NoiseSchedule(make_betas("linear", timesteps, scaled=False))
    assert schedule.signal_left == pytest.approx(left, abs=6e-4)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("timesteps", [20, 50, 100, 200, 300, 500, 1000, 4000])
def test_schedules_end_in_noise_by_default(name, timesteps):
    assert NoiseSchedule(make_betas(name, timesteps)).signal_left < 0.01


def test_the_course_s_own_models_end_in_noise():
    for preset in (DiffusionParameters.digits, DiffusionParameters.mnist):
        assert NoiseSchedule.from_parameters(preset().schedule).signal_left < 0.01


# -- β --------------------------------------------------------------------------------------------


def test_scaling_keeps_the_sum_and_is_nothing_at_1000():
    np.testing.assert_array_equal(make_betas("linear", 1000), linear_betas(1000))
    for timesteps in (50, 200, 4000):
        assert make_betas("linear", timesteps).sum() == pytest.approx(10.05, rel=1e-12)
        raw = make_betas("linear", timesteps, scaled=False)
        np.testing.assert_allclose(raw, np.linspace(1e-4, 0.02, timesteps), rtol=1e-12)
    assert make_betas("linear", 10).max() == LARGEST_BETA


def test_beta_start_and_end_are_used_and_the_cosine_takes_no_notice():
    betas = make_betas("linear", 1000, beta_start=0.001, beta_end=0.5)
    assert betas[[0, -1]] == pytest.approx([0.001, 0.5])
    np.testing.assert_array_equal(
        make_betas("cosine", 50), make_betas("cosine", 50, 0.1, 0.2, scaled=False)
    )


@given(st.integers(1, 3000))
@settings(max_examples=50, deadline=None)
def test_cosine_betas_give_back_the_curve_they_are_made_from(timesteps):
    """Eq. 17 of Nichol & Dhariwal, by half-angles instead of squares: cos² x = (1 + cos 2x) / 2."""
    angle = (np.arange(timesteps + 1) / timesteps + 0.008) / 1.008 * np.pi
    curve = (1 + np.cos(angle)) / (1 + np.cos(angle[0]))
    np.testing.assert_allclose(np.cumprod(1 - cosine_betas(timesteps)), curve[1:], atol=1e-12)


def test_the_first_cosine_step_is_just_below_a_grey_level():
    """That is how the offset was chosen (Nichol & Dhariwal 2021, section 3.2)."""
    assert 0.5 * 2 / 255 < np.sqrt(cosine_betas(1000)[0]) < 2 / 255


@given(
    st.sampled_from(["linear", "cosine"]),
    st.integers(1, 2000),
    st.floats(1e-6, 0.9),
    st.floats(1e-6, 0.9),
    st.booleans(),
)
@settings(deadline=None)
def test_betas_are_variances_that_never_shrink(name, timesteps, start, end, scaled):
    start, end = sorted((start, end))
    betas = make_betas(name, timesteps, start, end, scaled)
    assert betas.shape == (timesteps,)
    assert betas.dtype == np.float64
    assert (betas > 0).all()
    assert (betas <= LARGEST_BETA).all()
    assert (np.diff(betas) >= -1e-15).all()


# -- tables against evidence that does not know their formula ------------------------------------


@given(any_betas)
@settings(deadline=None)
def test_the_tables_are_what_the_chain_does(betas):
    """Follow mean factor and variance step by step, Eq. 2 alone, and compare with the tables."""
    schedule = schedule_from(betas)
    factor, variance = 1.0, 0.0
    for t, beta in enumerate(betas):
        assert schedule.alphas_cumprod_prev[t] == pytest.approx(factor**2, rel=1e-9)
        factor, variance = factor * np.sqrt(1 - beta), variance * (1 - beta) + beta
        assert schedule.sqrt_alphas_cumprod[t] == pytest.approx(factor, rel=1e-9)
        assert schedule.sqrt_one_minus_alphas_cumprod[t] ** 2 == pytest.approx(variance, rel=1e-9)
    assert schedule.signal_left == pytest.approx(factor, rel=1e-9)


@given(any_betas)
@settings(deadline=None)
def test_a_step_back_leads_to_the_step_before(betas):
    """Mean and variance of q(x_{t-1} | x_0), by the laws of total expectation and variance."""
    s = schedule_from(betas)
    weight = s.posterior_mean_coef1 + s.posterior_mean_coef2 * s.sqrt_alphas_cumprod
    np.testing.assert_allclose(weight, np.sqrt(s.alphas_cumprod_prev), rtol=1e-8)
    noise = s.sqrt_one_minus_alphas_cumprod
    variance = s.posterior_variance + (s.posterior_mean_coef2 * noise) ** 2
    np.testing.assert_allclose(variance, 1 - s.alphas_cumprod_prev, rtol=1e-8, atol=1e-15)
    # and x_{t-1} and x_t must vary together as one step of noise makes them do
    covariance = s.posterior_mean_coef2 * noise**2
    expected = np.sqrt(s.alphas) * (1 - s.alphas_cumprod_prev)
    np.testing.assert_allclose(covariance, expected, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("t", [1, 3, 11, 19])
def test_the_posterior_is_bayes_s_rule(t):
    """Multiply q(x_{t-1} | x_0) and q(x_t | x_{t-1}) on a grid and measure the product."""
    s = NoiseSchedule(make_betas("linear", 20))
    x_start, x_t, grid = 0.8, -0.6, np.linspace(-9, 9, 400_001)
    alpha_bar = np.prod(1 - s.betas[:t])
    prior = -((grid - np.sqrt(alpha_bar) * x_start) ** 2) / (2 * (1 - alpha_bar))
    likelihood = -((x_t - np.sqrt(1 - s.betas[t]) * grid) ** 2) / (2 * s.betas[t])
    weight = np.exp(prior + likelihood - (prior + likelihood).max())
    mean = np.average(grid, weights=weight)
    variance = np.average((grid - mean) ** 2, weights=weight)
    by_table = s.posterior_mean_coef1[t] * x_start + s.posterior_mean_coef2[t] * x_t
    assert by_table == pytest.approx(mean, abs=1e-6)
    assert s.posterior_variance[t] == pytest.approx(variance, rel=1e-6)


@given(any_betas)
@settings(deadline=None)
def test_tables_are_finite_ordered_and_of_one_shape(betas):
    s = schedule_from(betas)
    for name in EVERY_TABLE:
        table = getattr(s, name)
        assert table.shape == (len(betas),), name
        assert table.dtype == np.float64, name
        assert np.isfinite(table).all(), name
    assert (np.diff(s.alphas_cumprod) < 0).all()
    assert (np.diff(s.log_snr) < 0).all()
    assert (s.posterior_variance <= s.betas * (1 + 1e-9)).all()
    assert s.posterior_variance[0] == 0
    assert (s.posterior_variance[1:] > 0).all()


@given(any_betas)
@settings(deadline=None)
def test_the_recip_tables_solve_for_the_image(betas):
    """x_0 = √(1/ᾱ) x_t - √(1/ᾱ - 1) ε undoes Eq. 4."""
    s = schedule_from(betas)
    x_start, noise = 0.7, -1.3
    x_t = s.sqrt_alphas_cumprod * x_start + s.sqrt_one_minus_alphas_cumprod * noise
    solved = s.sqrt_recip_alphas_cumprod * x_t - s.sqrt_recipm1_alphas_cumprod * noise
    scale = s.sqrt_recip_alphas_cumprod.max()
    np.testing.assert_allclose(solved, x_start, atol=1e-9 + 1e-14 * scale)
    np.testing.assert_allclose(np.log(s.snr), s.log_snr, rtol=1e-12)
    # what the signal-to-noise ratio is, from the two factors of Eq. 4
    ratio = s.sqrt_alphas_cumprod / s.sqrt_one_minus_alphas_cumprod
    np.testing.assert_allclose(s.snr, ratio**2, rtol=1e-9)


def test_the_first_step_back_is_certain_and_its_log_variance_borrowed(linear):
    assert linear.posterior_mean_coef1[0] == pytest.approx(1.0, abs=1e-12)
    assert linear.posterior_mean_coef2[0] == 0.0
    log_variance = linear.posterior_log_variance_clipped
    assert log_variance[0] == log_variance[1]
    np.testing.assert_allclose(np.exp(log_variance[1:]), linear.posterior_variance[1:])


def test_a_single_step_has_tables_too():
    single = NoiseSchedule([0.25])
    assert single.signal_left == pytest.approx(np.sqrt(0.75))
    assert single.posterior_log_variance_clipped[0] == pytest.approx(np.log(0.25))
    assert len(single) == single.timesteps == 1


# -- the object ----------------------------------------------------------------------------------


def test_from_parameters_uses_every_parameter():
    for parameters in (
        ScheduleParameters(),
        ScheduleParameters(name="cosine", timesteps=77),
        ScheduleParameters(timesteps=50, beta_start=0.01, beta_end=0.3, scaled=False),
        ScheduleParameters(timesteps=500, beta_start=0.001, beta_end=0.03),
    ):
        expected = make_betas(
            name=parameters.name,
            timesteps=parameters.timesteps,
            beta_start=parameters.beta_start,
            beta_end=parameters.beta_end,
            scaled=parameters.scaled,
        )
        np.testing.assert_array_equal(NoiseSchedule.from_parameters(parameters).betas, expected)


def test_repr_says_what_is_left(linear, cosine):
    assert repr(linear) == "NoiseSchedule(T=1000, signal_left=0.0064)"
    assert repr(cosine) == "NoiseSchedule(T=1000, signal_left=4.9e-05)"


def test_a_schedule_keeps_its_own_copy_of_beta():
    betas = np.full(5, 0.1)
    schedule = NoiseSchedule(betas)
    betas[0] = 0.9
    assert schedule.betas[0] == 0.1


def test_tables_need_numpy_alone():
    code = (
        "import sys; from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas;"
        "NoiseSchedule(make_betas()); sys.exit('keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- errors name the value, the rule and the remedy ----------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "pieces"),
    [
        ({"name": "cosin"}, ValueError, ["name='cosin'", "must be one of", "mean 'cosine'"]),
        ({"name": None}, TypeError, ["name=None", "'linear', 'cosine'"]),
        ({"timesteps": 0}, ValueError, ["timesteps=0", "at least 1", "Use 1 or more"]),
        ({"timesteps": 200.0}, TypeError, ["timesteps=200.0", "whole", "Write timesteps=200"]),
        ({"timesteps": True}, TypeError, ["timesteps=True", "whole number"]),
        ({"timesteps": "200"}, TypeError, ["timesteps='200'", "whole number"]),
        ({"beta_start": 0}, ValueError, ["beta_start=0", "above 0 and below 1", "range"]),
        ({"beta_end": 1.0}, ValueError, ["beta_end=1.0", "above 0 and below 1", "range"]),
        ({"beta_end": float("nan")}, ValueError, ["beta_end=nan", "finite"]),
        ({"beta_start": 0.5}, ValueError, ["beta_end=0.02", "beta_start=0.5", "Exchange"]),
        ({"scaled": "no"}, TypeError, ["scaled='no'", "True or False"]),
    ],
)
def test_make_betas_refuses_wrong_values(arguments, error, pieces):
    with pytest.raises(error) as caught:
        make_betas(**arguments)
    for piece in pieces:
        assert piece in str(caught.value)


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, 1.5, 1e-9, np.nan, np.inf])
def test_a_wrong_beta_is_named_with_its_place(wrong):
    with pytest.raises(ValueError, match=r"betas\[1\] = .* at least 1e-08 and below 1.*make_betas"):
        NoiseSchedule([0.1, wrong, 0.2])


def test_the_unclipped_cosine_leaves_nothing_and_the_remedy_works():
    betas = cosine_betas(1000)
    assert NoiseSchedule(betas).signal_left == 0
    clipped = NoiseSchedule(np.clip(betas, SMALLEST_BETA, LARGEST_BETA))
    np.testing.assert_allclose(clipped.betas, make_betas("cosine", 1000))


def test_only_the_last_beta_may_be_1():
    with pytest.raises(ValueError, match=r"betas\[1\] = 1\.0 .*np\.clip\(betas, 1e-08, 0\.999\)"):
        NoiseSchedule([0.1, 1.0, 0.1])


@pytest.mark.parametrize("betas", [[], 0.1, [[0.1, 0.2]]])
def test_betas_must_be_a_list_of_steps(betas):
    with pytest.raises(ValueError, match=r"betas has shape .* one-dimensional .*make_betas"):
        NoiseSchedule(betas)


@pytest.mark.parametrize("betas", [["a"], [1j], [True], [None]])
def test_betas_are_numbers(betas):
    with pytest.raises(ValueError, match=r"betas are of type .* must be numbers.*make_betas"):
        NoiseSchedule(betas)


def test_masked_betas_are_refused():
    with pytest.raises(ValueError, match="betas are masked in some places"):
        NoiseSchedule(np.ma.masked_greater(np.linspace(0.1, 0.5, 5), 0.4))


def test_nothing_left_of_the_image_is_refused():
    with pytest.raises(ValueError, match=r"alphas_cumprod\[102\] = .* nothing .* fewer steps"):
        NoiseSchedule(np.full(200, 0.999))


# -- extract -------------------------------------------------------------------------------------


def numpy_of(tensor):
    from keras import ops

    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("ndim", [1, 2, 4])
def test_extract_looks_up_one_value_for_each_image(linear, ndim):
    t = np.array([999, 0, 500, 0], dtype="int32")
    values = numpy_of(extract(linear.alphas_cumprod, t, ndim))
    assert values.shape == (4,) + (1,) * (ndim - 1)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.ravel(), linear.alphas_cumprod[t], rtol=1e-6)


def test_extract_multiplies_each_image_by_its_own_value(linear):
    t = np.array([0, 99, 999], dtype="int32")
    images = np.ones((3, 8, 8, 1), dtype="float32")
    scaled = numpy_of(extract(linear.sqrt_alphas_cumprod, t, ndim=4)) * images
    assert scaled.shape == images.shape
    for i in range(3):
        expected = np.sqrt(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: t[i] + 1]))
        np.testing.assert_allclose(scaled[i], expected, rtol=1e-5)


def test_extract_takes_tensors_and_single_steps(linear):
    from keras import ops

    t = ops.convert_to_tensor([3, 7], dtype="int32")
    np.testing.assert_allclose(
        numpy_of(extract(linear.betas, t, 2))[:, 0], linear.betas[[3, 7]], rtol=1e-6
    )
    assert numpy_of(extract(linear.betas, [5], 4)).shape == (1, 1, 1, 1)


@given(st.lists(st.integers(0, 199), min_size=1, max_size=8), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_extract_knows_nothing_of_the_rest_of_the_batch(steps, ndim):
    """The value of one image depends on its own t alone: no product or order over the batch."""
    table = NoiseSchedule(make_betas("cosine", 200)).log_snr
    together = numpy_of(extract(table, np.array(steps, dtype="int32"), ndim)).ravel()
    np.testing.assert_allclose(together, [np.float32(table[step]) for step in steps], rtol=1e-6)


def test_every_table_is_finite_in_float32():
    """The network computes in float32, and a table that overflows there is no table."""
    for name in ("linear", "cosine"):
        s = NoiseSchedule(make_betas(name, 1000))
        for table in EVERY_TABLE:
            values = numpy_of(extract(getattr(s, table), np.arange(1000, dtype="int32"), 1))
            assert np.isfinite(values).all(), (name, table)


def test_a_table_that_float32_cannot_hold_is_not_looked_up():
    s = NoiseSchedule(make_betas("const", 1000, beta_end=0.2))
    assert np.isfinite(s.sqrt_recip_alphas_cumprod).all()
    for name in ("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"):
        with pytest.raises(ValueError, match=r"holds 3\.\de\+38 at t = 79\d.*fewer steps"):
            extract(getattr(s, name), np.array([0], dtype="int32"), 1)
    infinite = NoiseSchedule(make_betas("jsd", 10)).sqrt_recip_alphas_cumprod
    assert numpy_of(extract(infinite, np.array([9], dtype="int32"), 1)) == np.inf


@pytest.mark.parametrize("t", [[-1], np.array([0, 10]), [3, -10]])
def test_steps_outside_the_schedule_are_refused(t):
    with pytest.raises(ValueError, match=r"0 … 9: steps count from 0"):
        extract(np.linspace(0, 1, 10), t, 2)


@pytest.mark.parametrize("kind", ["int32", "float32"])
@pytest.mark.parametrize("t", [[-2, 3], [10, 3]])
def test_steps_in_a_tensor_are_seen(t, kind):
    from keras import ops

    with pytest.raises(ValueError, match=rf"t = {t[0]}(\.0)? must lie in -1 … 9"):
        NoiseSchedule(make_betas("linear", 10)).rates(ops.convert_to_tensor(t, kind), 2)


@pytest.mark.parametrize("t", ["3", True, [True], None, [None]])
def test_what_is_no_number_is_no_step(linear, t):
    for look in (lambda: extract(linear.betas, t, 2), lambda: linear.rates(t, 2)):
        with pytest.raises(TypeError, match="steps must be whole or real numbers"):
            look()


def test_steps_may_be_whole_numbers_of_any_type(linear):
    for kind in ("uint8", "uint64", "int16", "int64"):
        t = np.array([3, 200], kind)
        np.testing.assert_array_equal(
            numpy_of(extract(linear.betas, t, 1)), np.float32(linear.betas[[3, 200]])
        )
        np.testing.assert_array_equal(linear.rates(t, 1), linear.rates([3, 200], 1))


# -- rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine", "jsd"])
@pytest.mark.parametrize("ndim", [1, 2, 4])
def test_rates_are_the_factors_of_image_and_noise_and_their_squares_add_up_to_1(name, ndim):
    """Against the product of all that was kept, in float64; and t = -1 is the clean image."""
    schedule = NoiseSchedule(make_betas(name, 50))
    t = np.arange(-1, 50)
    signal, noise = schedule.rates(t, ndim)
    left = np.append(1.0, np.cumprod(1 - make_betas(name, 50)))
    for rate, expected in ((signal, np.sqrt(left)), (noise, np.sqrt(1 - left))):
        assert rate.shape == (51,) + (1,) * (ndim - 1)
        np.testing.assert_allclose(rate.ravel(), expected, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(np.square(signal) + np.square(noise), 1, atol=1e-6)
    assert (signal.ravel()[0], noise.ravel()[0]) == (1, 0)


def test_rates_are_of_the_kind_of_t(linear):
    from keras import ops

    t = np.array([-1, 0, 999], dtype="int32")
    arrays = linear.rates(t, 4)
    tensors = linear.rates(ops.convert_to_tensor(t), 4)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float32
        assert not isinstance(tensor, np.ndarray)
        np.testing.assert_array_equal(array, ops.convert_to_numpy(tensor))


def test_rates_take_one_look_at_each_image(linear):
    t = np.array([500, 3, 500, -1])
    signal, noise = linear.rates(t, 3)
    for i, step in enumerate(t):
        alone = linear.rates(np.array([step]), 3)
        np.testing.assert_array_equal((signal[i : i + 1], noise[i : i + 1]), alone)


@pytest.mark.parametrize("t", [-2, 1000])
def test_rates_of_steps_that_there_are_not_are_refused(linear, t):
    with pytest.raises(ValueError, match=rf"t = {t} must lie in -1 … 999"):
        linear.rates(np.array([0, t]), 4)


@pytest.mark.parametrize("name", ["linear", "cosine", "jsd", "const"])
@pytest.mark.parametrize("timesteps", [1, 50, 1000])
def test_rates_at_a_real_t_that_is_whole_are_the_table_to_the_last_bit(name, timesteps):
    schedule = NoiseSchedule(make_betas(name, timesteps))
    t = np.arange(-1, timesteps)
    expected = schedule.rates(t, 2)
    for kind in ("float32", "float64"):
        for rate, whole in zip(schedule.rates(t.astype(kind), 2), expected, strict=True):
            assert rate.dtype == np.float32
            np.testing.assert_array_equal(rate, whole)
    np.testing.assert_allclose(schedule.alpha_bar(t[1:] + 0.0), schedule.alphas_cumprod, atol=1e-15)


@pytest.mark.parametrize("name", ["linear", "cosine", "jsd"])
def test_between_two_steps_log_snr_is_a_straight_line(name):
    """Against NumPy in float64; up to the last step of "jsd", at which it falls without end."""
    schedule = NoiseSchedule(make_betas(name, 200))
    t = np.random.default_rng(0).uniform(0, 198, 500).astype("float32")
    signal, noise = (rate[:, 0, 0].astype("float64") for rate in schedule.rates(t, 3))
    log_snr = np.interp(t, np.arange(200), np.log(schedule.snr.clip(1e-300)))
    np.testing.assert_allclose(np.square(signal) + np.square(noise), 1, atol=1e-6)
    np.testing.assert_allclose(2 * np.log(signal / noise), log_snr, atol=2e-6, rtol=1e-6)
    np.testing.assert_allclose(schedule.alpha_bar(t), 1 / (1 + np.exp(-log_snr)), rtol=1e-12)


def test_real_rates_are_of_the_kind_of_t(linear):
    from keras import ops

    t = np.array([-1, 0.25, 998.5], "float32")
    arrays, tensors = linear.rates(t, 4), linear.rates(ops.convert_to_tensor(t), 4)
    for array, tensor, listed in zip(arrays, tensors, linear.rates(t.tolist(), 4), strict=True):
        assert isinstance(array, np.ndarray)
        assert array.shape == (3, 1, 1, 1)
        assert not isinstance(tensor, np.ndarray)
        np.testing.assert_array_equal(array, ops.convert_to_numpy(tensor))
        np.testing.assert_array_equal(array, listed)


def test_past_the_last_but_one_step_of_jsd_nothing_is_left():
    rates = NoiseSchedule(make_betas("jsd", 10)).rates(np.array([8.01, 8.5, 8.999, 9.0]), 1)
    np.testing.assert_allclose(rates, [[0] * 4, [1] * 4], atol=1e-6)
    with np.errstate(all="raise"):
        assert NoiseSchedule(make_betas("jsd", 10)).alpha_bar([8.5]) < 1e-6


@pytest.mark.parametrize("t", [-2.0, -0.5, 999.5, float("nan")])
def test_real_steps_that_there_are_not_are_refused(linear, t):
    with pytest.raises(ValueError, match=rf"t = {t} must lie in -1 … 999"):
        linear.rates(np.array([0.0, t]), 4)
    with pytest.raises(ValueError, match=rf"t = {t} must lie in 0 … 999"):
        linear.alpha_bar([t])


def test_a_table_has_whole_steps_only(linear):
    from keras import ops

    for t in ([1.5], np.array([2.0]), ops.convert_to_tensor([3.5])):
        with pytest.raises(TypeError, match=r"t is real.* give t as int32, or ask schedule.rates"):
            extract(linear.betas, t, 2)


def test_the_logarithm_of_what_is_kept_adds_up(linear):
    np.testing.assert_allclose(linear.log_alphas_cumprod, np.cumsum(np.log1p(-linear.betas)))
    assert NoiseSchedule(make_betas("jsd", 10)).log_alphas_cumprod[-1] == -np.inf
