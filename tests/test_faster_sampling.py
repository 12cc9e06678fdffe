"""Fewer steps: against the papers' formulas in float64, the exact curve, and each other."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras import layers, ops
from pocket import pocket_model
from scipy.integrate import solve_ivp

from diffusion_walkthrough import faces
from diffusion_walkthrough.backward_sampling import (
    Denoiser,
    ddpm_step,
    p_sample_loop,
    stops,
    times,
    walk,
)
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine.drawing import CompiledNetwork
from diffusion_walkthrough.engine.noise import STRIDE
from diffusion_walkthrough.evaluation import frechet_distance, precision_recall
from diffusion_walkthrough.exact_denoiser import MixtureDenoiser
from diffusion_walkthrough.faster_sampling import (
    SAMPLERS,
    SPACING_NAMES,
    ddim_step,
    dpm_2m_step,
    heun_step,
    karras_sigmas,
    named,
    restart,
    restarted,
    spaced,
    time_of,
)
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

PAPER = NoiseSchedule(make_betas("linear", 1000))
SHORT = NoiseSchedule(make_betas("linear", 200))
FEW = NoiseSchedule(make_betas("linear", 20))
JSD = NoiseSchedule(make_betas("jsd", 50))
DIGITS = NoiseSchedule(make_betas("cosine", 100))
EXACT = MixtureDenoiser(WORLD, PAPER)

NEW_STEPS = [ddim_step, dpm_2m_step, heun_step]


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), dtype=np.float64)


def squashed(x_t, t):
    """A denoise function that bends: not linear, and what it says does not depend on t."""
    return ops.tanh(1.3 * ops.convert_to_tensor(x_t, "float32") + 0.2)


def columns(schedule, *places):
    """a and b at some places, float64 columns; (1, 0) at -1."""
    kept = np.append(1.0, schedule.alphas_cumprod)
    return [(np.sqrt(kept[p + 1])[:, None], np.sqrt(1 - kept[p + 1])[:, None]) for p in places]


T_AND_S = (np.array([0, 1, 60, 150, 199, 199, 199]), np.array([-1, 0, 3, 149, 198, 50, -1]))


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# One step: the papers' formulas, in float64 -------------------------------------------------------


@pytest.mark.parametrize("eta", [0, 0.4, 1.0])
def test_ddim_is_equations_12_and_16(eta):
    t, s = T_AND_S
    x_t, guess, z = drawn((3, len(t), 5))
    before, now = (np.append(1.0, SHORT.alphas_cumprod)[place + 1][:, None] for place in (s, t))
    sigma = eta * np.sqrt((1 - before) / (1 - now)) * np.sqrt(1 - now / before)
    noise = (x_t - np.sqrt(now) * guess) / np.sqrt(1 - now)
    expected = np.sqrt(before) * guess + np.sqrt(1 - before - sigma**2) * noise + sigma * z
    found, x_start = ddim_step(lambda *_: guess, SHORT, x_t, t, s, z, eta)
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=5e-6)
    np.testing.assert_array_equal(numpy(x_start), np.float32(guess))


def test_2m_is_algorithm_2_with_ddim_at_both_ends():
    t, s = T_AND_S
    earlier = np.array([5, 3, 110, 190, -1, -1, -1])
    x_t, guess, last = drawn((3, len(t), 5))
    (a_r, b_r), (a_t, b_t), (a_s, b_s) = columns(SHORT, earlier, t, s)
    with np.errstate(divide="ignore", invalid="ignore"):
        lambdas = [np.log(a / b) for a, b in ((a_r, b_r), (a_t, b_t), (a_s, b_s))]
        h, h_before = lambdas[2] - lambdas[1], lambdas[1] - lambdas[0]
        r = h_before / h
        ahead = (1 + 1 / (2 * r)) * guess - 1 / (2 * r) * last
    ahead = np.where(((s < 0) | (earlier < 0))[:, None], guess, ahead)
    expected = b_s / b_t * x_t - a_s * np.expm1(-h) * ahead
    z = np.zeros_like(x_t)
    found, x_start = dpm_2m_step(lambda *_: guess, SHORT, x_t, t, s, z, before=(earlier, last))
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(numpy(x_start), np.float32(guess))
    alone, _ = dpm_2m_step(lambda *_: guess, SHORT, x_t, t, s, z)
    ddim, _ = ddim_step(lambda *_: guess, SHORT, x_t, t, s, z)
    np.testing.assert_array_equal(numpy(alone), numpy(ddim))


def test_heun_is_algorithm_1_on_the_image_over_a():
    t, s = T_AND_S
    x_t = drawn((len(t), 5))
    (a_t, b_t), (a_s, b_s) = columns(SHORT, t, s)
    bent = lambda x: np.tanh(1.3 * x + 0.2)  # noqa: E731
    x, sigma, sigma_next = x_t / a_t, b_t / a_t, b_s / a_s
    slope = (x - bent(a_t * x)) / sigma
    euler = x + (sigma_next - sigma) * slope
    with np.errstate(divide="ignore", invalid="ignore"):
        slope_there = (euler - bent(a_s * euler)) / sigma_next
    heun = x + (sigma_next - sigma) * (slope + slope_there) / 2
    expected = a_s * np.where(sigma_next > 0, heun, euler)
    found, x_start = heun_step(squashed, SHORT, x_t, t, s, np.zeros_like(x_t))
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=5e-5)
    np.testing.assert_allclose(numpy(x_start), bent(x_t), atol=1e-6)


@pytest.mark.parametrize("step", [ddpm_step, *NEW_STEPS])
@pytest.mark.parametrize("schedule", [SHORT, JSD], ids=["linear", "jsd"])
@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_a_step_to_the_clean_image_is_the_guess_to_the_last_bit(step, schedule, kind):
    """Also from where nothing is left of the image, and with all that a walk hands on."""
    guess, x_t, z = np.float32(drawn((3, 3, 7)))
    t, s = np.array([0, 7, len(schedule) - 1], kind), np.full(3, -1, kind)
    options = {"before": (np.minimum(t + 1, len(schedule) - 1), x_t)} if step is dpm_2m_step else {}
    options = {"eta": 1.0} if step is ddim_step else options
    found, x_start = step(lambda *_: guess, schedule, x_t, t, s, z, **options)
    np.testing.assert_array_equal(numpy(found), guess)
    np.testing.assert_array_equal(numpy(x_start), guess)


@pytest.mark.parametrize("step", NEW_STEPS)
def test_from_where_nothing_is_left_of_the_image_all_steps_are_ddim_s(step):
    guess, x_t, z = drawn((3, 2, 4))
    t, s = np.array([49, 49]), np.array([40, 3])
    none_before = {"before": (np.array([-1, -1]), x_t)} if step is dpm_2m_step else {}
    found, _ = step(lambda *_: guess, JSD, x_t, t, s, z, **none_before)
    (_, _), (a_s, b_s) = columns(JSD, t, s)
    np.testing.assert_allclose(numpy(found), a_s * guess + b_s * x_t, rtol=0, atol=1e-6)
    next_one, _ = step(lambda *_: guess, JSD, x_t, t - 9, s - 3, z)
    assert np.isfinite(numpy(next_one)).all()


@pytest.mark.parametrize("step", [ddpm_step, *NEW_STEPS])
@pytest.mark.parametrize("options", [{"steps": 7}, {"steps": [999.0, 950.5, 810.25, 5.0]}], ids=str)
def test_where_float32_sees_nothing_of_the_image_for_many_steps_none_is_nan(step, options):
    """√ᾱ is below 1e-38 over 200 of 1000 steps, and then it is 0 in float32."""
    noisy = NoiseSchedule(make_betas("const", 1000, beta_end=0.2))
    options = {"seed": 0, **options}
    for eta in [{"eta": 1.0}, {}] if step is ddim_step else [{}]:
        x = numpy(walk(step, squashed, noisy, (2, 3), **options, **eta))
        assert np.isfinite(x).all()
        assert np.abs(x).max() <= 1.01


def test_the_step_after_one_from_where_nothing_is_left_is_of_first_order():
    guess, x_t, z = drawn((3, 2, 4))
    t, s, before = np.array([40, 40]), np.array([30, 3]), np.array([49, 49])
    found, _ = dpm_2m_step(lambda *_: guess, JSD, x_t, t, s, z, before=(before, x_t))
    expected, _ = ddim_step(lambda *_: guess, JSD, x_t, t, s, z)
    np.testing.assert_allclose(numpy(found), numpy(expected), atol=1e-6)


# DDIM with all the noise is DDPM ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine", "jsd"])
def test_with_eta_1_a_step_is_that_of_ddpm_with_the_small_variance(name):
    """From every t to t - 1, and some longer ones."""
    schedule = NoiseSchedule(make_betas(name, 200))
    t = np.append(np.arange(200), [199, 199, 120])
    s = np.append(np.arange(-1, 199), [100, 3, 7])
    guess, x_t, z = drawn((3, len(t), 3))
    ours, _ = ddim_step(lambda *_: guess, schedule, x_t, t, s, z, 1.0)
    ddpm, _ = ddpm_step(lambda *_: guess, schedule, x_t, t, s, z, "fixed_small")
    np.testing.assert_allclose(numpy(ours), numpy(ddpm), rtol=0, atol=5e-6)


def test_with_eta_1_and_all_steps_the_walk_is_that_of_ddpm():
    world = MixtureDenoiser(WORLD, SHORT)
    ours = walk(ddim_step, world, SHORT, (500,), seed=3, eta=1.0)
    ddpm = p_sample_loop(world, SHORT, (500,), seed=3, variance="fixed_small")
    np.testing.assert_allclose(numpy(ours), numpy(ddpm), rtol=0, atol=1e-4)


# Without noise: the curve through each start is known -------------------------------------------


def test_without_noise_quantiles_go_to_quantiles():
    """The map is monotone, so that as many lie below each number as lay below its start."""
    shares = np.linspace(0.02, 0.98, 25)
    start = WORLD.noised(PAPER.alphas_cumprod[-1])
    grid = np.linspace(-4, 4, 20_001)
    x_T = np.interp(shares, start.cdf(grid), grid)
    asked = spaced(PAPER, 200, "log_snr")
    x = numpy(walk(ddim_step, EXACT, PAPER, (25,), x_T=x_T, steps=asked))
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(WORLD.cdf(x), shares, atol=0.01)
    noisy = numpy(walk(ddim_step, EXACT, PAPER, (25,), x_T=x_T, steps=asked, eta=1.0, seed=0))
    assert np.abs(WORLD.cdf(noisy) - shares).max() > 0.1


SIGMA_MAX, X_T = 20.0, np.linspace(-2.5, 2.5, 41)


@functools.cache
def exact_end():
    """Where the probability-flow curves through X_T at σ = 20 are at t = 0, by SciPy."""

    def slope(log_sigma, x_over_a):
        alpha_bar = 1 / (1 + np.exp(2 * log_sigma))
        return np.exp(log_sigma) * WORLD.expected_noise(np.sqrt(alpha_bar) * x_over_a, alpha_bar)

    last = PAPER.alphas_cumprod[0]
    between = np.log(SIGMA_MAX), np.log(1 / last - 1) / 2
    x_over_a = X_T * np.sqrt(1 + SIGMA_MAX**2)
    solved = solve_ivp(slope, between, x_over_a, rtol=1e-10, atol=1e-12)
    return np.sqrt(last) * solved.y[:, -1]


def mean_error(step, steps):
    """How far from there a walk is at t = 0, before its last step."""
    asked = spaced(PAPER, steps, "log_snr", SIGMA_MAX)
    way = list(stops(step, EXACT, PAPER, X_T.shape, steps=asked, x_T=X_T))
    assert way[-2].t == 0
    return np.abs(numpy(way[-2].x) - exact_end()).mean()


@pytest.mark.parametrize(
    ("step", "order", "counts"),
    [
        (ddim_step, 1, (16, 32, 64)),
        (dpm_2m_step, 2, (16, 32, 64)),
        (heun_step, 2, (40, 80)),
    ],
)
def test_the_order_of_a_step_is_the_slope_of_its_error(step, order, counts):
    errors = [mean_error(step, count) for count in counts]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.2)


def test_a_higher_order_is_nearer_with_as_many_evaluations():
    """Of 64; Heun's two a step do not pay here."""
    multistep, heun, euler = (
        mean_error(step, steps)
        for step, steps in ((dpm_2m_step, 64), (heun_step, 32), (ddim_step, 64))
    )
    assert multistep < heun / 3 < euler / 6


# Where to ask -------------------------------------------------------------------------------------


def sigmas_of(schedule, asked):
    return np.sqrt(1 / schedule.alpha_bar(np.asarray(asked)) - 1)


def test_even_times_are_those_of_every_walk():
    assert spaced(DIGITS, 10) == times(DIGITS, 10) == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert spaced(DIGITS) == list(range(99, -1, -1))


@pytest.mark.parametrize("sigma_max", [None, 80.0])
@pytest.mark.parametrize("steps", [2, 5, 30, 300])
def test_times_from_the_first_sigma_to_that_of_t_0(sigma_max, steps):
    """Evenly in what each spacing is named for."""
    ends = (
        sigma_max or DIGITS.sqrt_recipm1_alphas_cumprod[-1],
        DIGITS.sqrt_recipm1_alphas_cumprod[0],
    )
    for spacing, even in (("log_snr", np.log), ("karras", lambda sigma: sigma ** (1 / 7))):
        asked = spaced(DIGITS, steps, spacing, sigma_max)
        assert len(asked) == steps
        assert all(type(t) is float for t in asked)
        assert (np.diff(asked) < 0).all()
        sigmas = sigmas_of(DIGITS, asked)
        np.testing.assert_allclose(sigmas[[0, -1]], ends, rtol=1e-9)
        np.testing.assert_allclose(even(sigmas), np.linspace(*map(even, ends), steps), atol=1e-6)


def test_karras_s_sigmas_are_those_of_the_paper_s_table():
    """18 steps from 80 to 0.002, as EDM's program has them for CIFAR-10 (the first and some)."""
    found = karras_sigmas(80.0, 0.002, 18)
    np.testing.assert_allclose(found[[0, 1, 9, 17]], [80, 57.586, 1.9236, 0.002], rtol=1e-3)


@pytest.mark.parametrize("spacing", SPACING_NAMES)
def test_one_time_is_the_first(spacing):
    assert spaced(DIGITS, 1, spacing) == [99]
    assert spaced(DIGITS, 1, spacing, 80) == [time_of(DIGITS, 80)]


def test_even_times_from_a_sigma():
    start = time_of(DIGITS, 80)
    asked = spaced(DIGITS, 4, sigma_max=80)
    assert asked[0] == start
    np.testing.assert_allclose(np.diff([*asked, -1]), -(start + 1) / 4)


def test_the_time_of_a_sigma_is_where_the_rates_have_it():
    for sigma in (0.1, 1, 17.3, 80, 2029):
        a, b = DIGITS.rates(np.array([time_of(DIGITS, sigma)]), 1)
        assert b / a == pytest.approx(sigma, rel=1e-4)
    table = DIGITS.sqrt_recipm1_alphas_cumprod
    np.testing.assert_allclose([time_of(DIGITS, s) for s in table], range(100), atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((10, "kerras"), ValueError, "spacing='kerras': .*Did you mean 'karras'"),
        ((0,), ValueError, "steps=0: steps must be a whole number of at least 1"),
        ((0, "karras"), ValueError, "steps=0: steps must be a whole number of at least 1"),
        ((2.5, "karras"), TypeError, "steps=2.5: steps must be a whole number"),
        ((10_001, "karras"), ValueError, "steps=10001: steps must be .* at most 10000"),
        ((101,), ValueError, "steps = 101 must be a whole number in 1 … 100"),
        ((100, "even", 80), ValueError, "steps = 100 must be a whole number in 1 … 99"),
        ((10, "karras", 5000), ValueError, "sigma_max=5000: .* between .*0.0251 and 2029"),
        ((10, "log_snr", 0.01), ValueError, "sigma_max=0.01: .* between .*0.0251 and 2029"),
        ((10, "log_snr", "80"), TypeError, "sigma_max='80': .* without quotes"),
    ],
)
def test_times_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        spaced(DIGITS, *arguments)


@pytest.mark.parametrize("spacing", ["log_snr", "karras"])
def test_an_infinite_sigma_is_no_place_to_begin(spacing):
    with pytest.raises(ValueError, match=f"spacing = '{spacing}' .*infinite.*sigma_max=80"):
        spaced(JSD, 5, spacing)
    asked = spaced(JSD, 5, spacing, 5)
    np.testing.assert_allclose(sigmas_of(JSD, asked)[0], 5)


# Walks between the steps ------------------------------------------------------------------------


@pytest.mark.parametrize("step", [ddpm_step, *NEW_STEPS])
def test_at_whole_steps_a_walk_of_real_ones_is_the_same(step):
    asked = times(SHORT, 10)
    world = MixtureDenoiser(WORLD, SHORT)
    whole = walk(step, world, SHORT, (50,), steps=asked, seed=0)
    real = walk(step, world, SHORT, (50,), steps=[float(t) for t in asked], seed=0)
    np.testing.assert_allclose(numpy(real), numpy(whole), rtol=0, atol=2e-5)


@pytest.mark.parametrize("step", [ddpm_step, *NEW_STEPS])
@pytest.mark.parametrize("spacing", SPACING_NAMES)
def test_every_step_walks_every_spacing_to_the_world(step, spacing):
    """In fifty steps, by the largest difference of the two distribution functions."""
    asked = spaced(PAPER, 50, spacing, 80)
    x = numpy(walk(step, EXACT, PAPER, (2000,), steps=asked, seed=1))
    shares = np.sort(WORLD.cdf(x))
    assert np.abs(shares - np.linspace(0, 1, 2000)).max() < 0.06  # Kolmogorov and Smirnov's D


@pytest.mark.parametrize(
    ("step", "asked"),
    [(ddpm_step, 6), (ddim_step, 6), (dpm_2m_step, 6), (heun_step, 11)],
)
def test_how_often_a_walk_asks(step, asked):
    """Heun twice a step, but once in the last."""
    count = 0

    def counting(x_t, t):
        nonlocal count
        count += 1
        return squashed(x_t, t)

    walk(step, counting, SHORT, (3, 2), steps=6, seed=0)
    assert count == asked


def test_a_denoise_function_is_asked_at_the_real_t():
    seen = []

    def spy(x_t, t):
        seen.append(ops.convert_to_numpy(t))
        return squashed(x_t, t)

    way = list(stops(heun_step, spy, SHORT, (3, 2), steps=[150.5, 20.25, 3.0], seed=0))
    assert [stop.t for stop in way] == [150.5, 20.25, 3.0, -1]
    assert [float(t[0]) for t in seen] == [150.5, 20.25, 20.25, 3.0, 3.0]
    assert all(t.shape == (3,) and t.dtype == np.float32 for t in seen)


# Many steps in one call -------------------------------------------------------------------------


@functools.cache
def network():
    """A tiny network that looks at real t, compiled."""
    keras.utils.set_random_seed(1)
    x_t, t = keras.Input((2, 2, 1)), keras.Input(())
    waves = ops.sin(ops.reshape(t, (-1, 1)) * np.array([0.02, 0.1, 0.5], "float32"))
    h = layers.Dense(8, "tanh")(ops.concatenate([layers.Flatten()(x_t), waves], axis=-1))
    answer = layers.Reshape((2, 2, 1))(layers.Dense(4)(h))
    return CompiledNetwork(keras.Model([x_t, t], answer))


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (ddim_step, {"steps": spaced(DIGITS, 7, "karras", 80), "eta": 0.5}),
        (ddim_step, {"steps": 7, "eta": 1}),
        (dpm_2m_step, {"steps": STRIDE + 4}),
        (dpm_2m_step, {"steps": spaced(DIGITS, 2 * STRIDE + 1, "log_snr")}),
        (heun_step, {"steps": 5}),
        (heun_step, {"steps": spaced(DIGITS, STRIDE + 1, "karras", 80)}),
        (ddpm_step, {"steps": spaced(DIGITS, 9, "log_snr", 80), "variance": "fixed_large"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_long_strides_lead_where_single_steps_do(step, options):
    """2M also across the end of a stride, where the last guess must be handed on."""
    denoise = Denoiser(network(), DIGITS, "x_start", clip=False)
    found = numpy(walk(step, denoise, DIGITS, (3, 2, 2, 1), seed=4, **options))
    expected = numpy(list(stops(step, denoise, DIGITS, (3, 2, 2, 1), seed=4, **options))[-1].x)
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


# The shipped digits: two disasters, and what noise mends -----------------------------------------


@functools.cache
def digits():
    """The shipped model, the training images, and the precision of held-out ones."""
    real, held_out = (load_images("digits", split=split)[0] for split in ("train", "test"))
    return load_model("digits"), real, precision_recall(real, held_out)[0]


def digit_marks(step, clip=True, seed=0, n=200, **options):
    """Fréchet distance and relative precision of n digits, and the largest pixel."""
    model, real, best = digits()
    step, options = named(model.schedule, step, **options)
    denoise = dataclasses.replace(model.denoise, clip=clip)
    x = numpy(walk(step, denoise, model.schedule, (n, 8, 8, 1), seed=seed, **options))
    return frechet_distance(real, x), precision_recall(real, x)[0] / best, np.abs(x).max()


def test_what_is_not_clipped_explodes_from_a_sigma_of_2029():
    """The guess of x_0 at first is that many times the network's error. Two cures."""
    distance, precision, largest = digit_marks("ddim", clip=False, steps=20)
    assert distance > 10_000
    assert precision == 0
    assert largest > 100
    clipped, precise, largest = digit_marks("ddim", steps=20)
    assert clipped < 1.5
    assert precise > 0.7
    assert largest == 1
    later, precise, largest = digit_marks(
        "ddim", clip=False, steps=20, spacing="log_snr", sigma_max=80
    )
    assert later < 4
    assert precise > 0.6
    assert largest < 20


def test_heun_fails_across_a_sigma_of_2029():
    """It takes the mean of two slopes over a stretch on which they say nothing of each other."""
    distance, precision, _ = digit_marks("heun", steps=10)
    assert distance > 30
    assert precision < 0.05
    later, precise, _ = digit_marks("heun", steps=10, spacing="karras", sigma_max=80)
    assert later < 1.5
    assert precise > 0.5


def test_noise_on_the_way_mends_what_the_network_gets_wrong():
    """That of held-out digits with it (which is ancestral sampling), four fifths without."""
    without, fresh = (digit_marks("ddim", steps=20, eta=eta)[1] for eta in (0.0, 1.0))
    assert without < 0.9
    assert fresh > without + 0.05


def test_where_it_is_asked_counts():
    """In eight evaluations; with 1000 digits as near as a hundred ancestral steps are."""
    fast = digit_marks("dpm++2m", n=600, steps=8, spacing="log_snr", sigma_max=80)[0]
    assert fast < digit_marks("ddim", n=600, steps=8)[0] - 0.05


# By name ------------------------------------------------------------------------------------------


# Once more ----------------------------------------------------------------------------------------


def shares(x):
    """How many of each heap of the world."""
    heaps = np.abs(numpy(x)[:, None] - WORLD.means).argmin(axis=1)
    return np.bincount(heaps, minlength=3) / len(x)


@pytest.mark.parametrize("sigma", [0.2, 2.0])
def test_with_the_exact_denoiser_a_crowd_stays_as_it_is(sigma):
    crowd = WORLD.sample(6000, np.random.default_rng(0)).astype("float32")
    again = numpy(restart(EXACT, PAPER, crowd, sigma, seed=1, steps=50))
    np.testing.assert_allclose(shares(again), WORLD.weights, atol=0.03)
    assert np.abs(again - crowd).mean() > 0.02
    assert again.std() == pytest.approx(crowd.std(), rel=0.03)


@pytest.mark.parametrize("sigma", [0.2, 2.0])
def test_a_restart_begins_from_the_crowd_and_the_noise_of_equation_4(sigma):
    asked = []

    def listening(x_t, t):
        asked.append(numpy(x_t))
        return EXACT(x_t, t)

    restart(listening, PAPER, np.full(4000, 0.65, "float32"), sigma, seed=1, steps=1)
    a = 1 / np.hypot(1, sigma)
    assert asked[0].mean() == pytest.approx(0.65 * a, abs=5 * sigma * a / 4000**0.5)
    assert asked[0].std() == pytest.approx(sigma * a, rel=0.05)


def test_under_much_noise_a_crowd_from_one_heap_becomes_the_world():
    crowd = np.full(4000, WORLD.means[1], "float32")
    again = restart(EXACT, PAPER, crowd, 20.0, seed=1, steps=100)
    np.testing.assert_allclose(shares(again), WORLD.weights, atol=0.03)
    near = restart(EXACT, PAPER, crowd, 0.05, seed=1, steps=10)
    assert shares(near)[1] == 1


def test_a_restart_has_the_noise_of_its_seed_and_the_steps_it_is_told():
    crowd = WORLD.sample(50, np.random.default_rng(0)).astype("float32")
    asked = []

    def listening(x_t, t):
        asked.append(float(numpy(t)[0]))
        return EXACT(x_t, t)

    one, same, other = (restart(listening, PAPER, crowd, 0.4, seed=s, steps=5) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(numpy(one) - numpy(other)).max() > 0
    assert asked[:5] == times(PAPER, 5, round(time_of(PAPER, 0.4)))
    with pytest.raises(ValueError, match=r"sigma=1000.*this schedule's first and last σ"):
        restart(EXACT, PAPER, crowd, 1000.0)


def test_images_are_restarted_by_a_number():
    noise = keras.random.SeedGenerator(3)
    again = p_sample_loop(EXACT, PAPER, (40,), steps=20, seed=noise)
    for _ in range(2):
        again = restart(EXACT, PAPER, again, 0.4, seed=noise, steps=10)
    found = restarted(ddpm_step, EXACT, PAPER, (40,), steps=20, seed=3, restarts=2)
    np.testing.assert_allclose(numpy(found), numpy(again), atol=1e-5)


def asks_nothing(x_t, t):
    raise AssertionError("asked before the options were looked at")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"restarts": -1}, ValueError, "restarts=-1: .* at least 0"),
        ({"restarts": True}, TypeError, "restarts=True"),
        ({"restarts": 1, "restart_sigma": 1e9}, ValueError, "restart_sigma=1.* first and last σ"),
        ({"restarts": 1, "restart_steps": 999}, ValueError, "restart_steps = 999 must be"),
        ({"restart_steps": 9}, ValueError, "restart_steps=9: .* there are none. Pass restarts=3"),
        ({"restart_sigma": 0.4}, ValueError, "restart_sigma=0.4: .* Pass restarts=3"),
        ({"restarts": 1, "eta": 2.0}, TypeError, "no option 'eta'.*restarts"),
    ],
)
def test_restarts_that_cannot_be_are_refused_before_anything_is_drawn(options, error, message):
    with pytest.raises(error, match=message):
        restarted(ddpm_step, asks_nothing, PAPER, (3,), **options)


def test_a_learned_variance_that_the_steps_of_a_restart_have_not_is_told_before():
    network = functools.partial(asks_nothing)
    network.variance = "learned"
    with pytest.raises(ValueError, match=r"learned variance.*variance='fixed_small'"):
        restarted(ddpm_step, network, PAPER, (3,), restarts=1)


def test_restarts_mend_faces():
    model = load_model("faces")
    drawn = model.sample(80, seed=0, steps=25)
    again = drawn
    for seed in (1, 2):
        again = restart(model.denoise, model.schedule, again, 0.4, seed=seed, steps=10)
    before, after = (faces.read(numpy(x)).legal.mean() for x in (drawn, again))
    assert after > before + 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_model_draws_by_name_as_by_function(name):
    model = pocket_model()
    by_name = model.sample(3, seed=1, step=name, steps=4, spacing="karras", sigma_max=12)
    asked = spaced(model.schedule, 4, "karras", 12)
    by_function = walk(
        SAMPLERS[name], model.denoise, model.schedule, by_name.shape, steps=asked, seed=1
    )
    np.testing.assert_array_equal(by_name, ops.convert_to_numpy(by_function))
    whole = model.sample(3, seed=1, step=SAMPLERS[name], steps=4)
    np.testing.assert_array_equal(whole, model.sample(3, seed=1, step=name, steps=4))


def test_names_become_a_step_and_its_options():
    step, options = named(DIGITS, "ddim", 5, "log_snr", 80, eta=0.5, seed=3)
    assert step is ddim_step
    assert options == {"steps": spaced(DIGITS, 5, "log_snr", 80), "eta": 0.5, "seed": 3}
    assert named(DIGITS, heun_step, [50, 20.5]) == (heun_step, {"steps": [50, 20.5]})
    assert named(DIGITS, "ddpm") == (ddpm_step, {"steps": None})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"step": "dimm"}, ValueError, "step='dimm': .*Did you mean 'ddim'"),
        ({"step": "2m"}, ValueError, r"Did you mean 'dpm\+\+2m'"),
        ({"step": 3}, TypeError, "step=3: .*Give one of these names as text"),
        ({"step": "ddim", "eta": 1.1}, ValueError, "eta=1.1: .* from 0 to 1"),
        ({"step": "ddim", "eta": -0.1}, ValueError, "eta=-0.1: .* from 0 to 1"),
        ({"step": "heun", "eta": 0.5}, TypeError, "heun_step has no option 'eta'; .*none"),
        ({"step": "dpm++2m", "eta": 0.5}, TypeError, "dpm_2m_step has no option 'eta'"),
        ({"step": "dpm++2m", "before": 3}, TypeError, "has no option 'before'"),
        ({"step": "ddim", "variance": "fixed_small"}, TypeError, "own are eta, "),
        ({"step": "ddim", "spacing": "even_"}, ValueError, "Did you mean 'even'"),
        ({"step": "ddim", "sigma_max": 1e9}, ValueError, "sigma_max=1000000000.0: "),
        ({"step": "ddim", "sigma_max": 3, "steps": 2}, ValueError, "pass them as x_T"),
        ({"step": "ddim", "steps": 0}, ValueError, "steps = 0 must be a whole number"),
        ({"step": "ddim", "steps": 0, "spacing": "karras"}, ValueError, "steps=0"),
        ({"step": "ddim", "steps": [3, 2], "spacing": "karras"}, TypeError, "steps=.3, 2."),
        ({"shape": (8, 8, 1)}, TypeError, "ddpm_step has no option 'shape'"),
        ({"every_stop": True}, TypeError, "ddpm_step has no option 'every_stop'"),
        ({"step": "ddim", "schedule": None}, TypeError, "ddim_step has no option 'schedule'"),
        ({"told": 3}, TypeError, "told=3: told must be a list"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        pocket_model().sample(2, **options)
