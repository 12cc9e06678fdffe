import re

import numpy as np
import pytest
from keras import ops
from scipy import integrate, stats

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.classroom.figures import loss as figures
from diffusion_walkthrough.data import companion_digit, load_images
from diffusion_walkthrough.exact_denoiser import optimal_denoiser
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD as WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.predictions import predict_noise_from_x_start

SCHEDULE = NoiseSchedule(make_betas("linear", 200))


def zero(x_t, t):
    return ops.zeros_like(x_t)


def curve(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def panels(figure):
    return [axes.images[0].get_array().data for axes in figure.axes]


@pytest.fixture(scope="module")
def memorizer():
    """Guesses the noise as someone who knows all training images by heart."""
    denoise = optimal_denoiser(load_images("digits")[0], SCHEDULE)
    return lambda x_t, t: predict_noise_from_x_start(SCHEDULE, x_t, t, denoise(x_t, t))


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_possible_pasts_draws_the_exact_posterior_and_the_average():
    pasts, answers = np.array([-0.5, 0.1, 0.7]), np.array([-0.4, 0.1, 0.6])
    top, bottom = figures.possible_pasts(pasts, 0.2, 0.4, answers, np.array([3.0, 1.0, 2.0])).axes
    x, density = top.lines[0].get_data()
    np.testing.assert_allclose(density, WORLD.posterior_pdf(x, 0.2, 0.4))
    assert "their average, 0.10" in texts(top)
    assert "the cheapest answer, 0.10" in texts(bottom)
    assert all(axes.lines[-1].get_xdata()[0] == pytest.approx(0.1) for axes in (top, bottom))
    np.testing.assert_array_equal(bottom.lines[0].get_data(), (answers, [3.0, 1.0, 2.0]))


def test_best_guesses_draws_averages_on_the_exact_curve():
    places, means = np.linspace(-1, 1, 5), np.linspace(-0.5, 0.5, 5)
    figure = figures.best_guesses(SCHEDULE, [10, 150], places, [means] * 2)
    for axes, t in zip(figure.axes, (10, 150), strict=True):
        assert axes.get_title() == f"t = {t}, √ᾱ = {SCHEDULE.sqrt_alphas_cumprod[t]:.2f}"
        x, y = curve(axes, "exact").get_data()
        np.testing.assert_allclose(y, WORLD.expected_x_start(x, SCHEDULE.alphas_cumprod[t]))
        np.testing.assert_array_equal(curve(axes, "averages").get_data(), (places, means))


def test_the_arrows_lead_uphill_and_to_the_best_guess():
    figure = figures.uphill(SCHEDULE, [10, 120])
    for axes, t in zip(figure.axes, (10, 120), strict=True):
        alpha_bar = SCHEDULE.alphas_cumprod[t]
        noised = WORLD.noised(alpha_bar)
        x, density = axes.lines[0].get_data()
        np.testing.assert_allclose(density, noised.pdf(x))
        starts = np.array([arrow.xyann[0] for arrow in axes.texts])
        ends = np.array([arrow.xy[0] for arrow in axes.texts])
        best = np.sqrt(alpha_bar) * WORLD.expected_x_start(starts, alpha_bar)
        np.testing.assert_allclose(ends, best, atol=1e-9)
        slope = noised.pdf(starts + 1e-4) - noised.pdf(starts - 1e-4)
        np.testing.assert_array_equal(np.sign(ends - starts), np.sign(slope))


def test_what_two_bells_add_up_to_is_their_kl():
    _, bottom = figures.two_bells(1.0, 0.25, 0.0, 1.0).axes
    x, added = bottom.lines[0].get_data()
    assert integrate.trapezoid(added, x) == pytest.approx(
        0.5 * (np.log(4) + 0.25 + 1 - 1), abs=2e-3
    )
    _, bottom = figures.two_bells(0.3, 1.0, 0.3, 1.0).axes
    np.testing.assert_allclose(bottom.lines[0].get_ydata(), 0, atol=1e-12)


def test_weights_run_from_the_first_counted_step_to_the_last():
    figure = figures.weights({"one": SCHEDULE, "two": NoiseSchedule(make_betas("cosine", 50))})
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    axes = figure.axes[0]
    t, weight = curve(axes, "the bound").get_data()
    assert (t[0], t[-1]) == (1, 199)
    beta, alpha_bar = SCHEDULE.betas[50], SCHEDULE.alphas_cumprod[50]
    expected = beta**2 / (2 * SCHEDULE.posterior_variance[50] * (1 - beta) * (1 - alpha_bar))
    assert weight[49] == pytest.approx(expected, rel=1e-4)
    assert set(curve(axes, "the simple loss").get_ydata()) == {1.0}
    assert axes.get_yscale() == "log"
    assert texts(axes) == ["the bound, Eq. 12", "the simple loss, Eq. 14"]


def test_loss_over_t_draws_each_curve_and_names_it_in_its_colour():
    curves = {"one": [1, 1], "two": [0.1, 0.2], "three": [1e-9, 0.3], "4": [1, 2], "5": [3, 4]}
    axes = figures.loss_over_t([0, 100], curves).axes[0]
    named = {text.get_text(): text.get_color() for text in axes.texts if text.get_text()}
    assert list(named) == list(curves)
    for name, values in curves.items():
        line = curve(axes, name)
        np.testing.assert_array_equal(line.get_data(), ([0, 100], np.maximum(values, 1e-6)))
        assert named[name] == plots.ink(line.get_color())
    arrows = [text for text in axes.texts if not text.get_text()]
    assert len(arrows) == 2
    at, height = arrows[0].xy
    assert height == pytest.approx(np.exp(np.interp(at, [0, 100], np.log([0.1, 0.2]))))


@pytest.mark.parametrize("t", [0, 100, 199])
def test_the_caption_of_a_guess_says_its_losses(t):
    _, caption = figures.guessed_noise(zero, SCHEDULE, t)
    noise = np.random.default_rng(18).standard_normal((1, 8, 8, 1))
    loss = np.mean(noise**2)
    alpha_bar = SCHEDULE.alphas_cumprod[t]
    image_error = loss * (1 - alpha_bar) / alpha_bar  # x_t / √ᾱ - x_0 is noise, magnified
    captioned = caption.split(":", 1)[1].replace(",", "")
    numbers = [float(number) for number in re.findall(r"\d+\.?\d*", captioned)]
    assert caption.startswith(f"t = {t}:")
    found_loss, answer, baseline, found_image_error = numbers
    assert answer == 0
    assert found_loss == baseline == pytest.approx(loss, abs=6e-4)
    assert found_image_error == pytest.approx(image_error, abs=6e-4, rel=2e-4)


def test_a_guess_is_drawn_beside_the_truth():
    figure = figures.guessed_noise_rows(zero, SCHEDULE, [60, 10])
    x_t, noise, guess, implied, truth = panels(figure)[:5]
    alpha_bar = SCHEDULE.alphas_cumprod[60]
    np.testing.assert_array_equal(truth, companion_digit()[0][..., 0])
    np.testing.assert_allclose(
        x_t, np.sqrt(alpha_bar) * truth + np.sqrt(1 - alpha_bar) * noise, atol=1e-5
    )
    assert np.all(guess == 0)
    np.testing.assert_allclose(implied, x_t / np.sqrt(alpha_bar), rtol=1e-5)
    assert len(panels(figure)) == 10
    first = figure.axes[:5]
    assert first[0].get_ylabel() == f"t = 60\n√ᾱ = {np.sqrt(alpha_bar):.2f}"
    assert [axes.get_title() for axes in first][0::4] == ["x_t", "the true x₀"]
    assert first[2].get_xlabel() == f"loss {np.mean(noise**2):.2f}"
    assert first[3].get_xlabel() == f"error {np.mean((implied - truth) ** 2):.2f}"


def test_the_explorers_picture_is_five_images_and_a_gauge():
    page, _ = figures.guessed_noise(zero, SCHEDULE, 60)
    assert re.findall(r'<img alt="([^"]+)"', page) == [
        "x_t", "its noise", "guessed noise", "implied x₀", "the true x₀"
    ]  # fmt: skip
    assert f"√ᾱ = {SCHEDULE.sqrt_alphas_cumprod[60]:.3f}" in page


def test_who_knows_the_digit_by_heart_implies_it(memorizer):
    figure = figures.guessed_noise_rows(memorizer, SCHEDULE, [15])
    *_, implied, truth = panels(figure)
    np.testing.assert_allclose(implied, truth, atol=1e-3)
    assert "implied image 0.000" in figures.guessed_noise(memorizer, SCHEDULE, 15)[1]


def test_a_held_out_three_is_a_three_that_no_training_saw(memorizer):
    images, _ = load_images("digits")
    digit = figures.held_out_digit()
    assert digit.shape == (8, 8, 1)
    assert np.abs(images - digit).max(axis=(1, 2, 3)).min() > 0.1
    page, caption = figures.guessed_noise(memorizer, SCHEDULE, 5, held_out=True)
    assert live.pixels(digit, "the true x₀") in page
    assert float(caption.rsplit(" ", 1)[1]) > 0.01  # it answers with another three


def test_the_picture_follows_the_controls_and_nothing_else(memorizer):
    first = figures.guessed_noise(memorizer, SCHEDULE, 20)
    assert first == figures.guessed_noise(memorizer, SCHEDULE, 20)
    others = [
        figures.guessed_noise(memorizer, SCHEDULE, 120),
        figures.guessed_noise(zero, SCHEDULE, 20),
        figures.guessed_noise(memorizer, SCHEDULE, 20, held_out=True),
    ]
    assert len({first[0], *(page for page, _ in others)}) == 4
    assert len({first[1], *(caption for _, caption in others)}) == 4


def test_steps_back_draws_each_beside_its_bell():
    x = np.linspace(-1, 1, 5)
    figure = figures.steps_back(x, {"a": (x, x**2), "b": (x**3, x**4)}, [(-1, 1), (0, 0.5)])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert figure.axes[1].get_xlim() == (0, 0.5)
    np.testing.assert_array_equal(curve(figure.axes[1], "true").get_data(), (x, x**3))
    np.testing.assert_array_equal(curve(figure.axes[1], "bell").get_data(), (x, x**4))


def test_levels_of_a_bell_are_its_areas():
    mean, deviation = 0.8, 0.2
    top, bottom = figures.levels_of_a_bell(mean, deviation).axes
    bars = [bar.get_height() for bar in bottom.patches]
    edges = [-np.inf, *np.arange(-15, 16, 2) / 16, np.inf]
    np.testing.assert_allclose(bars, np.diff(stats.norm(mean, deviation).cdf(edges)), atol=1e-6)
    drawn_edges = sorted(line.get_xdata()[0] for line in top.lines[1:])
    np.testing.assert_allclose(drawn_edges, edges[1:-1], atol=1e-12)


def test_bits_over_t_draws_terms_and_the_error_after_the_bits_so_far():
    left, right = figures.bits_over_t([0.5, 0.1, 0.01], [0.0, 0.1, 0.4]).axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [0.5, 0.1, 0.01])
    told, errors = right.lines[0].get_data()
    np.testing.assert_allclose(told, [0.11, 0.01, 0.0], atol=1e-12)  # at the last t, nothing yet
    np.testing.assert_array_equal(errors, [0.0, 0.1, 0.4])
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
