"""Backward sampling against the paper's other form, exact worlds, and its published mistakes."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import ops
from keras.random import SeedGenerator
from scipy.stats import energy_distance

from diffusion_walkthrough import backward_sampling
from diffusion_walkthrough.backward_sampling import (
    fixed_variance,
    interpolate,
    optimal_denoiser,
    p_mean_variance,
    p_sample,
    p_sample_loop,
    p_sample_loop_progressive,
    p_sample_loop_trajectory,
    predict_from_x_start,
    predict_x_start,
)
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import precision_recall
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.gaussian_mixture import GaussianMixture
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import DiffusionParameters

PAPER = NoiseSchedule(make_betas("linear", 1000))
SHORT = NoiseSchedule(make_betas("linear", 200))
FEW = NoiseSchedule(make_betas("linear", 20))

# Heaps so thin that noise left on the result would show.
THIN = GaussianMixture((0.5, 0.2, 0.3), (-0.6, 0.05, 0.65), (0.002, 0.002, 0.002))


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), dtype=np.float64)


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x), dtype="float32")


def steps(*t):
    return ops.convert_to_tensor(np.array(t), dtype="int32")


def says(answer):
    """A denoise function that gives the same answer whatever it is asked."""
    return lambda x_t, t: tensor(answer)


def exact(mixture, schedule):
    def denoise(x_t, t):
        alpha_bar = schedule.alphas_cumprod[ops.convert_to_numpy(t)]
        return tensor(mixture.expected_noise(ops.convert_to_numpy(x_t), alpha_bar))

    return denoise


# One step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_one_step_is_algorithm_2_in_its_other_form(variance):
    """mu = (x_t - β / √(1-ᾱ) ε) / √α, from β alone, in float64."""
    t = np.array([0, 1, 2, 10, 100, 500, 999])
    x_t, guess, z = np.random.default_rng(0).standard_normal((3, len(t), 4, 4, 1))
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bars = np.cumprod(1 - betas)
    beta, alpha_bar = (table[t].reshape(-1, 1, 1, 1) for table in (betas, alpha_bars))
    mean = (x_t - beta / np.sqrt(1 - alpha_bar) * guess) / np.sqrt(1 - beta)
    earlier = np.append(1.0, alpha_bars)[t].reshape(-1, 1, 1, 1)
    small = (1 - earlier) / (1 - alpha_bar) * beta
    sigma = np.sqrt(small if variance == "fixed_small" else beta * (t > 0).reshape(-1, 1, 1, 1))

    ours = p_sample(says(guess), PAPER, tensor(x_t), steps(*t), tensor(z), variance, clip=False)
    np.testing.assert_allclose(numpy(ours), mean + sigma * z, rtol=0, atol=2e-5)


def test_numbers_of_numpy_are_taken_as_they_come():
    """NumPy makes float64, which the backends would not multiply with float32."""
    t = np.array([0, 3])
    x_t, z = np.random.default_rng(0).standard_normal((2, 2, 3))
    perfect = optimal_denoiser(np.array([[0.1, 0.2, 0.3], [-0.5, 0.0, 0.5]]), FEW)
    plain = p_sample(perfect, FEW, x_t, t, z)
    ours = p_sample(perfect, FEW, tensor(x_t), steps(*t), tensor(z))
    np.testing.assert_array_equal(numpy(plain), numpy(ours))


def test_golden_log_variances_of_the_first_steps():
    _, small = fixed_variance(PAPER, "fixed_small")
    _, large = fixed_variance(PAPER, "fixed_large")
    np.testing.assert_allclose(small[:3], [-9.8167251, -9.8167251, -9.3671215], atol=5e-8)
    np.testing.assert_allclose(large[:3], [-9.8167251, -9.0286864, -8.8750128], atol=5e-8)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_variance_and_log_variance_agree_after_the_first_step(variance):
    variances, logs = fixed_variance(PAPER, variance)
    np.testing.assert_allclose(np.exp(logs[1:]), variances[1:], rtol=1e-12)
    assert (fixed_variance(PAPER, "fixed_small")[0] <= PAPER.betas).all()


def test_only_images_at_t_0_get_no_noise():
    """In one batch: the noise is left out for the first image and no other."""
    x_t, z = np.zeros((3, 5)), np.ones((3, 5))
    t = steps(0, 1, 7)
    moved = numpy(p_sample(says(x_t), FEW, tensor(x_t), t, tensor(z)))
    np.testing.assert_array_equal(moved[0], np.zeros(5))
    expected = np.sqrt(FEW.posterior_variance[[1, 7]])[:, None].repeat(5, axis=1)
    np.testing.assert_allclose(moved[1:], expected, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(t=st.integers(0, 199), seed=st.integers(0, 2**31))
def test_whoever_guesses_the_true_noise_finds_the_image_and_its_posterior(t, seed):
    rng = np.random.default_rng(seed)
    x_start, noise = rng.uniform(-1, 1, (2, 6)), rng.standard_normal((2, 6))
    alpha_bar, earlier, beta = (
        table[t] for table in (SHORT.alphas_cumprod, SHORT.alphas_cumprod_prev, SHORT.betas)
    )
    x_t = np.sqrt(alpha_bar) * x_start + np.sqrt(1 - alpha_bar) * noise
    step = p_mean_variance(says(noise), SHORT, tensor(x_t), steps(t, t))
    np.testing.assert_allclose(numpy(step.x_start), x_start, atol=5e-3)
    if t > 0:  # Bayes's rule: precisions add, and means are weighted by them
        from_start, from_x_t = 1 / (1 - earlier), (1 - beta) / beta
        mean = from_start * np.sqrt(earlier) * x_start + from_x_t * x_t / np.sqrt(1 - beta)
        mean = mean / (from_start + from_x_t)
        np.testing.assert_allclose(numpy(step.mean), mean, atol=1e-3)
        np.testing.assert_allclose(numpy(step.variance)[0, 0], 1 / (from_start + from_x_t), 1e-4)
    else:
        np.testing.assert_allclose(numpy(step.mean), x_start, atol=1e-4)


def test_shapes_of_a_step_and_the_limits_of_the_guess():
    x_t = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    wild = says(100 * x_t)
    step = p_mean_variance(wild, FEW, tensor(x_t), steps(19, 3))
    assert tuple(step.mean.shape) == tuple(step.x_start.shape) == (2, 8, 8, 3)
    assert tuple(step.variance.shape) == tuple(step.log_variance.shape) == (2, 1, 1, 1)
    assert np.abs(numpy(step.x_start)).max() == 1
    free = p_mean_variance(wild, FEW, tensor(x_t), steps(19, 3), clip=False)
    assert np.abs(numpy(free.x_start)).max() > 10


# Data that are one bell: everything is linear, and known in closed form --------------------------

MEAN, DEVIATION = 0.3, 0.2


def bell_recursion(schedule, variances):
    """Mean and variance of the result of Algorithm 2 for data N(MEAN, DEVIATION²), in float64.

    The true backward mean is E[x_{t-1} | x_t], linear in x_t: the regression of two Gaussians.
    """
    mean, variance = 0.0, 1.0
    for t in reversed(range(len(schedule))):
        before, now = (
            table[t] for table in (schedule.alphas_cumprod_prev, schedule.alphas_cumprod)
        )
        variance_before = before * DEVIATION**2 + 1 - before
        variance_now = now * DEVIATION**2 + 1 - now
        slope = np.sqrt(schedule.alphas[t]) * variance_before / variance_now
        mean = np.sqrt(before) * MEAN + slope * (mean - np.sqrt(now) * MEAN)
        variance = slope**2 * variance + (variances[t] if t > 0 else 0.0)
    return mean, variance


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_mean_and_variance_of_the_result_when_the_data_are_a_bell(variance):
    bell = GaussianMixture([1.0], [MEAN], [DEVIATION])
    mean, expected = bell_recursion(FEW, fixed_variance(FEW, variance)[0])
    n = 40_000
    x = numpy(p_sample_loop(exact(bell, FEW), FEW, (n,), seed=1, variance=variance, clip=False))
    assert x.mean() == pytest.approx(mean, abs=5 * np.sqrt(expected / n))
    assert x.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / n))


def test_the_two_variances_are_a_lower_and_an_upper_guess_and_meet_with_many_steps():
    found = {}
    for schedule in (FEW, SHORT, PAPER):
        pair = [bell_recursion(schedule, fixed_variance(schedule, v)[0])[1]
                for v in ("fixed_small", "fixed_large")]  # fmt: skip
        assert pair[0] < DEVIATION**2 < pair[1]
        found[len(schedule)] = pair[1] - pair[0]
    assert found[20] > 3 * found[200] > 9 * found[1000]


def test_without_noise_a_bell_of_variance_1_shrinks_to_nothing():
    """The mean alone multiplies by √α in each step, so √ᾱ of the spread is left."""
    standard = GaussianMixture([1.0], [0.0], [1.0])
    x = start = tensor(np.linspace(-2, 2, 11))
    for t in reversed(range(len(FEW))):
        x = p_mean_variance(exact(standard, FEW), FEW, x, steps(*[t] * 11), clip=False).mean
    np.testing.assert_allclose(numpy(x), FEW.signal_left * numpy(start), atol=1e-6)


def test_large_variance_is_exact_for_noise_and_small_variance_for_a_single_image():
    """What the docstring of fixed_variance says, in the whole chain."""
    noise, point = (GaussianMixture([1.0], [0.0], [d]) for d in (1.0, 1e-6))
    n = 20_000
    x = numpy(
        p_sample_loop(exact(noise, FEW), FEW, (n,), seed=2, variance="fixed_large", clip=False)
    )
    # The last step adds no noise, so β of the first step is missing.
    assert x.var() == pytest.approx(1 - FEW.betas[0], rel=5 * np.sqrt(2 / n))
    journey = p_sample_loop_progressive(exact(point, FEW), FEW, (n,), seed=2, clip=False)
    for steps_left, x, _ in journey:
        expected = 1 - np.append(1.0, FEW.alphas_cumprod)[steps_left]
        if steps_left < len(FEW):
            assert numpy(x).var() == pytest.approx(expected, rel=5 * np.sqrt(2 / n), abs=1e-6)


# The whole way in the world of one dimension ------------------------------------------------------

N = 8000


def thin_distance():
    """Energy distance of a walk back to the thin world, in multiples of the noise floor."""
    truth = THIN.sample(N, 1)
    floor = np.mean([energy_distance(truth, THIN.sample(N, seed)) for seed in range(3, 9)])
    x = numpy(p_sample_loop(exact(THIN, SHORT), SHORT, (N,), seed=0, clip=False))
    return energy_distance(np.clip(x, -1e3, 1e3), truth) / floor


LIMIT = 3.0  # times the noise floor; a right walk of 200 steps takes about 2


def test_the_walk_back_ends_in_the_true_distribution():
    assert thin_distance() < LIMIT


def noise_at_the_last_step(patch):
    def add_step_noise(step, t, noise):
        return step.mean + ops.exp(0.5 * step.log_variance) * noise

    patch.setattr(backward_sampling, "add_step_noise", add_step_noise)


def variance_for_its_root(patch):
    small = fixed_variance(SHORT, "fixed_small")
    patch.setattr(backward_sampling, "fixed_variance", lambda *_: (small[0], 2 * small[1]))


def alpha_bar_off_by_one_in_the_guess(patch):
    earlier = np.maximum(SHORT.alphas_cumprod_prev, 1e-12)
    patch.setattr(SHORT, "sqrt_recip_alphas_cumprod", np.sqrt(1 / earlier))
    patch.setattr(SHORT, "sqrt_recipm1_alphas_cumprod", np.sqrt(1 / earlier - 1))


def alpha_bar_off_by_one_in_the_posterior(patch):
    wrong = NoiseSchedule(SHORT.betas)
    wrong.alphas_cumprod_prev = wrong.alphas_cumprod
    wrong._compute_posterior(1 - wrong.alphas_cumprod)
    for table in ("posterior_mean_coef1", "posterior_mean_coef2", "posterior_log_variance_clipped"):
        patch.setattr(SHORT, table, getattr(wrong, table))


def first_weight_without_beta(patch):
    patch.setattr(SHORT, "posterior_mean_coef1", SHORT.posterior_mean_coef1 / SHORT.betas)


def weights_exchanged(patch):
    first, second = SHORT.posterior_mean_coef1, SHORT.posterior_mean_coef2
    patch.setattr(SHORT, "posterior_mean_coef1", second)
    patch.setattr(SHORT, "posterior_mean_coef2", first)


@pytest.mark.parametrize(
    "mistake",
    [
        noise_at_the_last_step,
        variance_for_its_root,
        alpha_bar_off_by_one_in_the_guess,
        alpha_bar_off_by_one_in_the_posterior,
        first_weight_without_beta,
        weights_exchanged,
    ],
)
def test_the_distance_notices_each_published_mistake(mistake, monkeypatch):
    mistake(monkeypatch)
    assert thin_distance() > LIMIT


# The exact denoise function of a finite data set -------------------------------------------------


def denoise_by_brute_force(images, x_t, alpha_bar):
    """E[ε | x_t] image by image in float64: Bayes's rule with weights that need no tricks."""
    guesses = []
    for one in x_t:
        distances = [np.sum((one - np.sqrt(alpha_bar) * image) ** 2) for image in images]
        weights = np.exp(-(np.array(distances) - min(distances)) / (2 * (1 - alpha_bar)))
        x_start = sum(w * image for w, image in zip(weights / weights.sum(), images, strict=True))
        guesses.append((one - np.sqrt(alpha_bar) * x_start) / np.sqrt(1 - alpha_bar))
    return np.array(guesses)


@pytest.mark.parametrize("t", [0, 5, 40, 100, 199])
def test_the_optimal_denoiser_agrees_with_brute_force(t):
    rng = np.random.default_rng(t)
    images = rng.uniform(-1, 1, (30, 3, 3, 1))
    alpha_bar = SHORT.alphas_cumprod[t]
    x_t = np.sqrt(alpha_bar) * images[:5] + np.sqrt(1 - alpha_bar) * rng.standard_normal(
        (5, 3, 3, 1)
    )
    found = optimal_denoiser(images, SHORT)(tensor(x_t), steps(*[t] * 5))
    assert tuple(found.shape) == x_t.shape
    expected = denoise_by_brute_force(images, x_t, alpha_bar)
    np.testing.assert_allclose(numpy(found), expected, atol=2e-3 if t < 10 else 2e-4)


def test_the_optimal_denoiser_is_the_mixture_of_spikes():
    points = np.array([-0.7, -0.1, 0.4, 0.9])
    spikes = GaussianMixture(np.full(4, 0.25), points, np.full(4, 1e-6))
    x_t = np.tile(np.linspace(-2, 2, 21), 4)
    t = np.repeat([10, 60, 120, 199], 21)
    found = optimal_denoiser(points[:, None], SHORT)(tensor(x_t[:, None]), steps(*t))
    expected = spikes.expected_noise(x_t, SHORT.alphas_cumprod[t])
    np.testing.assert_allclose(numpy(found)[:, 0], expected, atol=2e-4)


def test_a_perfect_memory_draws_each_of_its_images_and_nothing_else():
    images = np.sign(np.random.default_rng(0).standard_normal((3, 2, 2, 1)))
    drawn = numpy(p_sample_loop(optimal_denoiser(images, SHORT), SHORT, (60, 2, 2, 1), seed=0))
    distances = np.abs(drawn[:, None] - images).max(axis=(2, 3, 4))  # (drawn, images)
    assert distances.min(axis=1).max() < 1e-5
    assert set(distances.argmin(axis=1)) == {0, 1, 2}


# The loops ------------------------------------------------------------------------------------


def quarter(x_t, t):
    return 0.25 * x_t


@pytest.mark.parametrize("stops", [2, 3, 6, 21])
def test_a_trajectory_goes_from_the_noise_to_the_result_of_the_loop(stops):
    left, pictures = p_sample_loop_trajectory(quarter, FEW, (2, 3, 3, 1), seed=5, stops=stops)
    assert left[0] == 20
    assert left[-1] == 0
    assert len(left) == stops
    assert np.all(np.diff(left) < 0)
    assert np.ptp(np.diff(left)) <= 1
    assert pictures.shape == (stops, 2, 3, 3, 1)
    assert pictures.dtype == np.float32
    noise = keras.random.normal((2, 3, 3, 1), seed=keras.random.SeedGenerator(5))
    np.testing.assert_array_equal(pictures[0], numpy(noise))
    np.testing.assert_array_equal(
        pictures[-1], numpy(p_sample_loop(quarter, FEW, (2, 3, 3, 1), seed=5))
    )


def test_each_stop_follows_from_the_one_before():
    """The loop is p_sample again and again, with fresh noise for each step."""
    generator = keras.random.SeedGenerator(9)
    x = keras.random.normal((4, 2), seed=generator)
    for steps_left, found, x_start in p_sample_loop_progressive(quarter, FEW, (4, 2), seed=9):
        if steps_left < len(FEW):
            z = keras.random.normal((4, 2), seed=generator)
            expected = p_mean_variance(quarter, FEW, x, steps(*[steps_left] * 4)).x_start
            np.testing.assert_allclose(numpy(x_start), numpy(expected), atol=1e-6)
            x = p_sample(quarter, FEW, x, steps(*[steps_left] * 4), z)
        np.testing.assert_allclose(numpy(found), numpy(x), atol=1e-6)


def test_seeds_repeat_and_differ():
    draw = {
        name: numpy(p_sample_loop(quarter, FEW, (2, 4), seed=seed))
        for name, seed in (("a", 1), ("again", 1), ("b", 2), ("free", None), ("free too", None))
    }
    np.testing.assert_array_equal(draw["a"], draw["again"])
    assert not np.allclose(draw["a"], draw["b"])
    assert not np.allclose(draw["free"], draw["free too"])


def test_a_given_start_is_used_and_kept_as_it_is():
    start = np.linspace(-2, 2, 6).reshape(2, 3)
    kept = start.copy()
    left, first, nothing = next(p_sample_loop_progressive(quarter, FEW, (2, 3), x_T=start))
    assert (left, nothing) == (20, None)
    np.testing.assert_allclose(numpy(first), start, atol=1e-6)
    a, b = (numpy(p_sample_loop(quarter, FEW, (2, 3), x_T=start, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(start, kept)


def test_the_denoise_function_is_asked_once_for_each_step_from_the_last_to_the_first():
    asked = []

    def spy(x_t, t):
        asked.append(ops.convert_to_numpy(t))
        return quarter(x_t, t)

    p_sample_loop(spy, FEW, (3, 2), seed=0)
    assert [int(t[0]) for t in asked] == list(range(19, -1, -1))
    assert all(t.shape == (3,) and t.dtype == np.int32 and np.ptp(t) == 0 for t in asked)


def test_images_lie_in_range_whatever_the_denoise_function_says():
    images = numpy(p_sample_loop(lambda x_t, t: -50 * x_t, FEW, (3, 4, 4, 1), seed=0))
    assert np.abs(images).max() <= 1


def test_a_chain_of_a_single_step():
    left, pictures = p_sample_loop_trajectory(
        quarter, NoiseSchedule([0.9]), (2, 2), seed=0, stops=2
    )
    assert left == [1, 0]
    assert np.isfinite(pictures).all()


def test_progress_is_shown_when_asked_for_and_changes_nothing(capsys):
    quiet = numpy(p_sample_loop(quarter, FEW, (2, 2), seed=0))
    assert capsys.readouterr().out == ""
    shown = numpy(p_sample_loop(quarter, FEW, (2, 2), seed=0, progress=True))
    assert "20/20" in capsys.readouterr().out
    np.testing.assert_array_equal(quiet, shown)


def test_memory_does_not_grow_with_the_gradients_of_the_walk():
    """PyTorch would keep every step for a gradient nobody wants if the denoiser has weights."""
    weight = keras.Variable(0.25)
    x = p_sample_loop(lambda x_t, t: weight * x_t, FEW, (2, 2), seed=0)
    assert not getattr(x, "requires_grad", False)


# What is predicted ------------------------------------------------------------------------------

# Five corners of a cube, far enough apart for the last step to know them.
POINTS = 0.8 * np.array([[-1, -1, -1], [1, 1, -1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]], "float32")
PREDICTIONS = ("noise", "x_start", "x_prev")


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_prediction_is_the_clean_image_in_other_words(prediction):
    """Against the formulas written out: Eq. 4 solved for the noise, Eq. 7's mean."""
    rng = np.random.default_rng(0)
    x_start, x_t = rng.standard_normal((2, 6, 4))
    t = np.array([0, 1, 5, 10, 18, 19])
    betas = make_betas("linear", 20)
    bar = np.cumprod(1 - betas)
    before, now = np.append(1, bar)[t][:, None], bar[t][:, None]
    beta = betas[t][:, None]
    mean = np.sqrt(before) * beta * x_start + np.sqrt(1 - beta) * (1 - before) * x_t
    answer = {
        "noise": (x_t - np.sqrt(now) * x_start) / np.sqrt(1 - now),
        "x_start": x_start,
        "x_prev": mean / (1 - now),
    }[prediction]
    found = predict_from_x_start(FEW, tensor(x_t), steps(*t), tensor(x_start), prediction)
    np.testing.assert_allclose(numpy(found), answer, rtol=1e-4, atol=1e-5)
    found = predict_x_start(FEW, tensor(x_t), steps(*t), tensor(answer), prediction)
    # √(1/ᾱ) is 1e4 at the last step: float32 cannot solve for the image there.
    np.testing.assert_allclose(numpy(found)[:4], x_start[:4], atol=2e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "jsd"])
def test_all_predictions_of_the_exact_denoiser_draw_the_same_images(schedule):
    schedule = NoiseSchedule(make_betas(schedule, 20))
    drawn = {}
    for prediction in PREDICTIONS[schedule.signal_left == 0 :]:
        denoise = optimal_denoiser(POINTS, schedule, prediction)
        options = {"seed": 4, "prediction": prediction}
        drawn[prediction] = numpy(p_sample_loop(denoise, schedule, (7, 3), **options))
        nearest = np.abs(drawn[prediction][:, None] - POINTS).max(-1).min(-1)
        np.testing.assert_allclose(nearest, 0, atol=1e-3)
    for other in drawn.values():
        np.testing.assert_allclose(other, drawn["x_start"], atol=1e-3)


def test_noise_cannot_be_predicted_where_nothing_is_left_of_the_image():
    schedule = NoiseSchedule(make_betas("jsd", 20))
    for refused in (
        lambda: p_sample_loop(never, schedule, (2, 3)),
        lambda: p_mean_variance(quarter, schedule, POINTS, steps(*[3] * 5)),
        lambda: optimal_denoiser(POINTS, schedule),
    ):
        with pytest.raises(ValueError, match=r"'noise' cannot be used .*ᾱ = 0.*Predict 'x_start'"):
            refused()


def test_an_unknown_prediction_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"prediction = 'epsilon' must be one of \('noise'"):
        p_sample_loop(never, FEW, (2, 2), prediction="epsilon")


@pytest.mark.slow
def test_the_variance_of_the_digits_draws_well_and_leaves_little_out():
    """Both marks nearly those of real digits; with the other variance it leaves more of them out.

    Of 1,000 digits the marks are 0.93 to 0.95 and 0.93 to 0.96 in three drawings, and the other
    variance has 0.02 to 0.04 less recall.
    """
    model, (real, _) = load_model("digits"), load_images("digits")
    best = precision_recall(real, load_images("digits", split="test")[0], k=3)
    marks = {}
    for variance in ("fixed_small", "fixed_large"):
        drawn = model.sample(600, seed=1, variance=variance)
        marks[variance] = np.divide(precision_recall(real, drawn, k=3), best)
    preset = DiffusionParameters.digits().variance
    assert min(marks[preset]) > 0.88
    assert max(marks, key=lambda variance: marks[variance][1]) == preset


def test_few_steps_are_too_few_for_the_large_variance():
    """A published mistake: in ten steps of a network it puts noise where no digit is."""
    model, (real, _) = load_model("digits"), load_images("digits")
    levels = np.arange(9, 100, 10, dtype="int32")
    alpha_bars = np.append(1.0, model.schedule.alphas_cumprod[levels])
    few = NoiseSchedule(1 - alpha_bars[1:] / alpha_bars[:-1])

    def denoise(x_t, t):
        return model.denoise(x_t, ops.take(levels, t))

    small, large = (
        precision_recall(
            real, numpy(p_sample_loop(denoise, few, (200, 8, 8, 1), seed=5, variance=v))
        )[0]
        for v in ("fixed_small", "fixed_large")
    )
    assert small > large + 0.1


# A learned variance -----------------------------------------------------------------------------


def test_a_learned_variance_is_taken_from_the_second_half_of_the_channels():
    x_t = np.random.default_rng(0).standard_normal((3, 2, 2, 2))
    log_variance = np.random.default_rng(1).uniform(-6, 0, x_t.shape)
    answer = np.concatenate([0.25 * x_t, log_variance], axis=-1)
    t, z = steps(4, 1, 0), np.ones_like(x_t)
    step = p_mean_variance(says(answer), FEW, tensor(x_t), t, "learned", clip=False)
    fixed = p_mean_variance(says(0.25 * x_t), FEW, tensor(x_t), t, clip=False)
    np.testing.assert_allclose(numpy(step.mean), numpy(fixed.mean), atol=1e-6)
    np.testing.assert_allclose(numpy(step.log_variance), log_variance, atol=1e-6)
    np.testing.assert_allclose(numpy(step.variance), np.exp(log_variance), rtol=1e-5)
    moved = numpy(p_sample(says(answer), FEW, tensor(x_t), t, tensor(z), "learned", clip=False))
    moved -= numpy(step.mean)
    np.testing.assert_allclose(moved[:2], np.exp(log_variance / 2)[:2], rtol=1e-3)
    np.testing.assert_allclose(moved[2], 0, atol=1e-6)


def test_an_answer_that_does_not_fit_the_variance_is_refused():
    x_t, t = tensor(np.zeros((2, 4, 4, 1))), steps(1, 2)
    with pytest.raises(ValueError, match=r"needs an answer with 2 channels.*\(2, 4, 4, 1\)"):
        p_mean_variance(says(np.zeros((2, 4, 4, 1))), FEW, x_t, t, "learned")
    with pytest.raises(ValueError, match=r"shape \(2, 4, 4, 2\).*needs variance='learned'"):
        p_mean_variance(says(np.zeros((2, 4, 4, 2))), FEW, x_t, t)


# Part of the way, and noise in common ------------------------------------------------------------


def test_a_walk_can_start_half_way():
    """From x_t of known points, with the exact denoiser: back to the points."""
    t = 9
    noisy = q_sample(FEW, POINTS, steps(*[t] * 5), np.random.default_rng(0).normal(size=(5, 3)))
    stops = list(
        p_sample_loop_progressive(
            optimal_denoiser(POINTS, FEW), FEW, (5, 3), x_T=noisy, steps=t + 1, seed=0
        )
    )
    assert [stop.steps_left for stop in stops] == list(range(10, -1, -1))
    found = numpy(stops[-1].x)
    np.testing.assert_allclose(np.abs(found[:, None] - POINTS).max(-1).min(-1), 0, atol=1e-3)


@pytest.mark.parametrize("shared", [None, 0, 1, 7, 20])
def test_images_are_alike_as_long_as_they_share_their_noise(shared):
    journey = p_sample_loop_progressive(quarter, FEW, (3, 4), seed=1, shared_noise_steps=shared)
    for left, x, _ in journey:
        spread = np.ptp(numpy(x), axis=0).max()
        walked = 20 - left
        if shared is None or walked > shared:
            assert spread > 1e-3
        else:
            assert spread == 0


def test_predictions_on_the_way_can_be_kept():
    left, pictures = p_sample_loop_trajectory(
        optimal_denoiser(POINTS, FEW), FEW, (2, 3), seed=0, stops=5, x_start=True
    )
    assert left == [19, 14, 10, 5, 0]
    np.testing.assert_allclose(pictures[0], np.tile(POINTS.mean(0), (2, 1)), atol=0.05)
    assert np.abs(pictures[-1][:, None] - POINTS).max(-1).min(-1).max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0, "x_T": np.zeros((2, 2))}, r"steps = 0 must lie in 1 … 20"),
        ({"steps": 21, "x_T": np.zeros((2, 2))}, r"steps = 21 must lie in 1 … 20"),
        ({"steps": 5}, r"steps = 5 of 20 .* pass them as x_T"),
        ({"shared_noise_steps": 21}, r"shared_noise_steps = 21 must lie in 0 … 20"),
        ({"shared_noise_steps": -1}, r"shared_noise_steps = -1 must lie in 0 … 20"),
    ],
)
def test_a_walk_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        p_sample_loop(never, FEW, (2, 2), **options)


# Interpolation ------------------------------------------------------------------------------------


def test_the_ends_of_an_interpolation_are_the_two_images():
    found = numpy(interpolate(optimal_denoiser(POINTS, FEW), FEW, POINTS[0], POINTS[3], 1, seed=0))
    assert found.shape == (6, 3)
    np.testing.assert_allclose(found[0], POINTS[0], atol=1e-3)
    np.testing.assert_allclose(found[-1], POINTS[3], atol=1e-3)


def test_the_noisy_images_are_mixed_each_with_noise_of_its_own():
    """Not the clean ones before the noise (a published mistake): the mixed noise has less variance.

    With a denoise function that takes away nothing of it, what comes out is a multiple of x_t.
    """
    zeros, ones = np.zeros(40_000, "float32"), np.ones(40_000, "float32")
    weights = [0.0, 0.25, 0.5, 1.0]
    mixed = numpy(backward_sampling._mixed(FEW, zeros, ones, 12, weights, SeedGenerator(0)))
    alpha_bar = FEW.alphas_cumprod[12]
    for row, share in zip(mixed, weights, strict=True):
        assert row.mean() == pytest.approx(np.sqrt(alpha_bar) * share, abs=0.02)
        expected = (1 - alpha_bar) * ((1 - share) ** 2 + share**2)
        assert row.var() == pytest.approx(expected, rel=0.03)


def test_an_interpolation_repeats_with_its_seed_and_parts_with_noise_of_its_own():
    draw = lambda **options: numpy(  # noqa: E731
        interpolate(quarter, FEW, POINTS[0], POINTS[1], 15, [0.5, 0.5], **options)
    )
    np.testing.assert_array_equal(draw(seed=1), draw(seed=1))
    np.testing.assert_array_equal(draw(seed=1)[0], draw(seed=1)[1])
    own = draw(seed=1, shared_noise_steps=None)
    assert np.abs(own[0] - own[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_2": np.zeros(4)}, r"image_1 has shape \(3,\) and image_2 \(4,\)"),
        ({"t": 20}, r"t = 20 must lie in 0 … 19"),
        ({"weights": [0.5, 1.5]}, r"weights = .* numbers from 0 to 1"),
        ({"weights": []}, r"weights = .* numbers from 0 to 1"),
    ],
)
def test_an_interpolation_that_cannot_be_is_refused(change, message):
    arguments = {"image_1": POINTS[0], "image_2": POINTS[1], "t": 3, **change}
    with pytest.raises(ValueError, match=message):
        interpolate(never, FEW, **arguments)


# Errors ----------------------------------------------------------------------------------------


def never(x_t, t):
    raise AssertionError("the denoise function must not be asked")


def test_an_unknown_variance_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"variance = 'fixed_medium'.*fixed_small.*fixed_large"):
        p_sample_loop(never, FEW, (2, 2), variance="fixed_medium")


@pytest.mark.parametrize("stops", [-1, 0, 1, 22])
def test_too_few_or_too_many_stops_are_refused(stops):
    with pytest.raises(ValueError, match=rf"stops = {stops} must lie between 2 and 21"):
        p_sample_loop_trajectory(never, FEW, (2, 2), stops=stops)


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"x_T has shape \(3, 2\).*\(2, 2\).*x_T.shape"):
        p_sample_loop(never, FEW, (2, 2), x_T=np.zeros((3, 2)))


def test_a_misspelt_option_is_refused():
    with pytest.raises(TypeError, match="clipping"):
        p_sample_loop(never, FEW, (2, 2), clipping=False)
