"""Perfect denoise functions: of a data set and its patches against Bayes's rule; in 1D."""

import keras
import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.backward_sampling import p_mean_variance, p_sample_loop
from diffusion_walkthrough.exact_denoiser import MixtureDenoiser, optimal_denoiser, patch_denoiser
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD, GaussianMixture
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

SHORT = NoiseSchedule(make_betas("linear", 200))
EXACT = MixtureDenoiser(WORLD, SHORT)


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), dtype=np.float64)


def by_brute_force(images, x_t, alpha_bar):
    """E[x_0 | x_t] image by image in float64: Bayes's rule with weights that need no tricks."""
    guesses = []
    for one in x_t:
        distances = [np.sum((one - np.sqrt(alpha_bar) * image) ** 2) for image in images]
        weights = np.exp(-(np.array(distances) - min(distances)) / (2 * (1 - alpha_bar)))
        guesses.append(sum(w * x for w, x in zip(weights / weights.sum(), images, strict=True)))
    return np.array(guesses)


@pytest.mark.parametrize("t", [0, 5, 40, 100, 199])
def test_the_optimal_denoiser_agrees_with_brute_force(t):
    rng = np.random.default_rng(t)
    images = rng.uniform(-1, 1, (30, 3, 3, 1))
    alpha_bar = SHORT.alphas_cumprod[t]
    noise = rng.standard_normal((5, 3, 3, 1))
    x_t = np.sqrt(alpha_bar) * images[:5] + np.sqrt(1 - alpha_bar) * noise
    found = optimal_denoiser(images, SHORT)(x_t, np.full(5, t))
    assert tuple(found.shape) == x_t.shape
    np.testing.assert_allclose(numpy(found), by_brute_force(images, x_t, alpha_bar), atol=2e-5)


def test_the_optimal_denoiser_is_the_mixture_of_spikes():
    """In one batch, each number at a step of its own."""
    points = np.array([-0.7, -0.1, 0.4, 0.9])
    spikes = GaussianMixture(np.full(4, 0.25), points, np.full(4, 1e-6))
    x_t, t = np.tile(np.linspace(-2, 2, 21), 4), np.repeat([10, 60, 120, 199], 21)
    found = optimal_denoiser(points[:, None], SHORT)(
        ops.convert_to_tensor(x_t[:, None], "float32"), ops.convert_to_tensor(t, "int32")
    )
    expected = spikes.expected_x_start(x_t, SHORT.alphas_cumprod[t])
    np.testing.assert_allclose(numpy(found)[:, 0], expected, atol=2e-5)


def test_a_set_of_one_image_leaves_no_doubt():
    image = np.random.default_rng(0).uniform(-1, 1, (1, 4, 4, 1))
    x_t = np.random.default_rng(1).standard_normal((3, 4, 4, 1))
    found = optimal_denoiser(image, SHORT)(x_t, np.array([0, 100, 199]))
    np.testing.assert_allclose(numpy(found), image.repeat(3, axis=0), atol=1e-6)


def test_where_nothing_is_left_the_answer_is_the_average():
    images = np.random.default_rng(0).uniform(-1, 1, (7, 5))
    found = optimal_denoiser(images, NoiseSchedule(make_betas("jsd", 20)))(
        np.ones((2, 5)), [19, 19]
    )
    np.testing.assert_allclose(numpy(found), np.tile(images.mean(0), (2, 1)), atol=1e-6)


def test_no_answer_lies_outside_what_the_images_span():
    images = np.random.default_rng(0).uniform(-1, 1, (9, 6))
    x_t = 10 * np.random.default_rng(1).standard_normal((50, 6))
    found = numpy(
        optimal_denoiser(images, SHORT)(x_t, np.random.default_rng(2).integers(0, 200, 50))
    )
    assert (found >= images.min(0) - 1e-6).all()
    assert (found <= images.max(0) + 1e-6).all()


# Patches -----------------------------------------------------------------------------------------


def patch_at(image, row, column, reach):
    """The patch around a pixel and, as NaN, what the border cuts off."""
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), constant_values=np.nan)
    return padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]


def pixel_by_brute_force(images, x_t, place, reach, alpha_bar, anywhere):
    """One pixel of the guess, patch by patch: those that the border cuts off otherwise are none."""
    seen, (height, width) = patch_at(x_t, *place, reach), images.shape[1:3]
    weights, middles = [], []
    for image in images:
        for there in np.ndindex(height, width) if anywhere else [place]:
            patch = patch_at(image, *there, reach)
            if np.array_equal(np.isnan(patch), np.isnan(seen)):
                distance = np.nansum((seen - np.sqrt(alpha_bar) * patch) ** 2)
                weights.append(-distance / (2 * (1 - alpha_bar)))
                middles.append(image[there])
    weights = np.exp(np.array(weights) - max(weights))
    return weights @ np.array(middles) / weights.sum()


@pytest.mark.parametrize("anywhere", [True, False])
@pytest.mark.parametrize(("size", "t"), [(1, 40), (3, 5), (3, 100), (5, 40), (5, 199)])
def test_the_patch_denoiser_agrees_with_brute_force(size, t, anywhere):
    rng = np.random.default_rng(t)
    images = rng.uniform(-1, 1, (6, 5, 4, 2))
    alpha_bar = SHORT.alphas_cumprod[t]
    noise = rng.standard_normal((2, 5, 4, 2))
    x_t = np.sqrt(alpha_bar) * images[:2] + np.sqrt(1 - alpha_bar) * noise
    found = patch_denoiser(images, SHORT, size, anywhere)(x_t, np.full(2, t))
    assert tuple(found.shape) == x_t.shape
    for i, *place in np.ndindex(2, 5, 4):
        expected = pixel_by_brute_force(
            images, x_t[i], tuple(place), size // 2, alpha_bar, anywhere
        )
        np.testing.assert_allclose(numpy(found)[(i, *place)], expected, atol=2e-4)


@pytest.mark.parametrize("anywhere", [True, False])
def test_a_patch_that_holds_the_whole_image_from_everywhere_is_the_optimal_denoiser(anywhere):
    """In one batch, each image at a step of its own."""
    rng = np.random.default_rng(0)
    images, x_t = rng.uniform(-1, 1, (20, 4, 4, 1)), rng.standard_normal((4, 4, 4, 1))
    t = np.array([3, 50, 120, 199])
    exact = numpy(optimal_denoiser(images, SHORT)(x_t, t))
    found = numpy(patch_denoiser(images, SHORT, 7, anywhere)(x_t, t))
    np.testing.assert_allclose(found, exact, atol=1e-4)
    smaller = numpy(patch_denoiser(images, SHORT, 5, anywhere)(x_t, t))
    assert np.abs(smaller - exact).max() > 0.1


def test_patches_from_anywhere_know_no_place_but_the_border():
    """Rolled by one pixel, what is seen in the middle gets the same answer, one pixel farther."""
    rng = np.random.default_rng(1)
    images, x_t = rng.uniform(-1, 1, (9, 5, 5, 1)), rng.standard_normal((1, 5, 5, 1))
    everywhere, local = (patch_denoiser(images, SHORT, 3, anywhere) for anywhere in (True, False))
    for denoise, is_the_same in ((everywhere, True), (local, False)):
        here = numpy(denoise(x_t, [60]))[:, 1:-1, 1:-2]
        there = numpy(denoise(np.roll(x_t, 1, axis=2), [60]))[:, 1:-1, 2:-1]
        assert np.allclose(here, there, atol=1e-5) is is_the_same


def test_walking_with_patches_draws_what_no_image_shows_and_every_patch_does():
    """Two images, one with stripes across and one with stripes down."""
    schedule, shape = NoiseSchedule(make_betas("cosine", 12)), (40, 4, 4, 1)
    across = np.tile(np.where(np.arange(4) % 2, 1.0, -1.0)[:, None, None], (1, 4, 1))
    images = np.stack([across, np.swapaxes(across, 0, 1)])
    copied, drawn = (
        numpy(p_sample_loop(denoise, schedule, shape, seed=0))
        for denoise in (optimal_denoiser(images, schedule), patch_denoiser(images, schedule, 3))
    )
    farthest = [
        np.abs(x[:, None] - images).max(axis=(2, 3, 4)).min(axis=1) for x in (copied, drawn)
    ]
    assert np.all(farthest[0] < 1e-3)
    assert np.mean(farthest[1] > 0.5) > 0.2
    assert np.abs(np.abs(drawn) - 1).mean() < 0.1


@pytest.mark.parametrize(
    ("shape", "size", "error", "message"),
    [
        ((2, 4, 4, 1), 4, ValueError, "size=4: .*Use 5"),
        ((2, 4, 4, 1), -1, ValueError, "size=-1"),
        ((2, 4, 4, 1), 3.0, TypeError, "Write size=3"),
        ((2, 4, 4), 3, ValueError, r"shape \(2, 4, 4\): must be \(n, height, width, channels\)"),
    ],
)
def test_patches_without_a_middle_and_images_without_channels_are_refused(
    shape, size, error, message
):
    with pytest.raises(error, match=message):
        patch_denoiser(np.zeros(shape), SHORT, size)


# In one dimension --------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 20, 120])
def test_the_exact_answer_and_its_width_are_those_found_by_integration(t):
    x_t = np.array([[-0.5], [0.3], [1.1]])
    x_start, log_variance = map(numpy, EXACT.with_variance(x_t, np.full(3, t)))
    assert x_start.shape == log_variance.shape == (3, 1)
    alpha_bar, grid = SHORT.alphas_cumprod[t], np.linspace(-1.5, 1.5, 60_001)
    signal, coef1 = np.sqrt(alpha_bar), SHORT.posterior_mean_coef1[t]
    for i, x in enumerate(x_t[:, 0]):
        weight = WORLD.pdf(grid) * np.exp(-((x - signal * grid) ** 2) / (2 * (1 - alpha_bar)))
        weight = weight / weight.sum()
        mean = (weight * grid).sum()
        width = SHORT.posterior_variance[t] + coef1**2 * (weight * (grid - mean) ** 2).sum()
        assert x_start[i, 0] == pytest.approx(mean, abs=1e-4)
        assert np.exp(log_variance[i, 0]) == pytest.approx(width, rel=1e-3)


def test_the_exact_answer_without_width_is_the_same_at_steps_of_their_own():
    x_t, t = np.array([[-0.5, 0.3], [0.3, 1.0]]), np.array([50, 7])
    alone = EXACT(ops.convert_to_tensor(x_t), ops.convert_to_tensor(t))
    np.testing.assert_allclose(numpy(alone), numpy(EXACT.with_variance(x_t, t)[0]), rtol=1e-6)
    for i in range(2):
        expected = WORLD.expected_x_start(x_t[i], SHORT.alphas_cumprod[t[i]])
        np.testing.assert_allclose(numpy(alone)[i], expected, rtol=1e-5)
    assert keras.backend.standardize_dtype(alone.dtype) == "float32"


def test_a_step_back_takes_the_exact_width_when_told_to():
    x_t, t = np.array([[-0.5], [0.3]], "float32"), np.array([50, 7], "int32")
    exact = numpy(p_mean_variance(EXACT, SHORT, x_t, t, "learned").log_variance)
    np.testing.assert_allclose(exact, numpy(EXACT.with_variance(x_t, t)[1]), rtol=1e-6)
    small = numpy(p_mean_variance(EXACT, SHORT, x_t, t).log_variance)
    assert (small < exact).all(), "with x_0 known, less is left open"
