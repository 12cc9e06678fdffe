"""The pictures of chapters 00 and 05 show what they say."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_walkthrough.classroom.figures import start_here, training
from diffusion_walkthrough.classroom.plots import figure_to_array
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas


def test_the_caption_counts_images_and_measures_their_spread():
    images = np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 1)).astype("float32")
    picture, caption = training.drawn(30, images)
    assert picture.shape == (2 * 66 + 2, 8 * 66 + 2, 3)
    assert caption == f"16 images drawn after 30 epochs; their pixels spread by {images.std():.2f}"
    assert "before any training" in training.drawn(0, images)[1]


def test_the_slider_shows_the_images_of_its_epoch():
    history = {e: np.full((8, 8, 8, 1), e / 90, "float32") for e in (0, 90)}
    early, late = (training.progress(history, e)[0] for e in (0, 90))
    assert early[10, 10, 0] == 128
    assert late[10, 10, 0] == 255


def test_the_strip_has_a_row_for_each_epoch_in_order():
    history = {e: np.full((16, 8, 8, 1), v, "float32") for e, v in ((0, -1.0), (10, 1.0))}
    first, second = training.progress_strip(history, [0, 10]).axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("0 epochs", "10 epochs")
    for axis, colour in ((first, 0), (second, 255)):
        picture = axis.images[0].get_array()
        assert picture.shape == (50 + 2, 8 * 50 + 2, 3)
        assert picture[10, 10, 0] == colour


def test_curves_carry_the_data_they_were_given():
    x = np.linspace(-1, 1, 5)
    axes = training.learned_curve(x, {0: np.zeros((5, 1)), 7: x}, 0.7).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), x)
    np.testing.assert_allclose(
        axes.lines[2].get_ydata(), ONE_DIMENSIONAL_WORLD.expected_noise(x, 0.7)
    )
    assert axes.lines[1].get_label() == "network after 7 steps"
    loss = training.loss_curve([1.0, 0.5], {"zero": 1.0}).axes[0]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1.0, 0.5])
    rates = training.learning_rates([0.0, 0.1]).axes[0]
    np.testing.assert_allclose(rates.lines[0].get_ydata(), [0.0, 0.1])


def test_the_moving_average_is_that_of_a_constant_and_forgets_geometrically():
    np.testing.assert_allclose(training.moving_average(np.full(50, 3.0), 0.9), 3.0)
    step = np.concatenate([[0.0], np.ones(100)])
    expected = 1 - 0.9 ** np.arange(101)
    np.testing.assert_allclose(training.moving_average(step, 0.9), expected, atol=1e-12)
    figure = training.averages(step, {"0.9": 0.9})
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), expected, atol=1e-12)
    assert figure.axes[0].lines[1].get_label() == "average, momentum 0.9"


def test_a_momentum_of_its_own_for_each_step():
    values = np.random.default_rng(0).standard_normal(30)
    n = np.arange(30)
    plain_mean = np.cumsum(values) / (n + 1)
    np.testing.assert_allclose(training.moving_average(values, n / (n + 1)), plain_mean, atol=1e-12)


def test_the_logs_stand_in_three_panels_with_the_limit_of_the_norm():
    history = {"loss": [1.0, 0.5], "learning_rate": [0.1, 0.2], "gradient_norm": [3.0, 0.25]}
    axes = training.training_logs(history, clip=1.5).axes
    for axis, values in zip(axes, history.values(), strict=True):
        np.testing.assert_array_equal(axis.lines[0].get_xdata(), [1, 2])
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), values)
    assert [axis.get_title() for axis in axes] == ["loss", "learning rate", "gradient norm"]
    assert list(axes[2].lines[1].get_ydata()) == [1.5, 1.5]
    low, high = axes[2].get_ylim()
    assert low < 0.25 < 3 < high < 10


@pytest.mark.parametrize("t", [0, 50, 99])
def test_the_right_guess_uncovers_the_image(t):
    schedule = NoiseSchedule(make_betas("cosine", 100))
    rng = np.random.default_rng(0)
    image, noise = rng.uniform(-1, 1, (8, 8, 1)), rng.standard_normal((8, 8, 1))
    x_t = schedule.sqrt_alphas_cumprod[t] * image
    x_t = x_t + schedule.sqrt_one_minus_alphas_cumprod[t] * noise
    figure = start_here.question(schedule, t, x_t, noise, noise)
    np.testing.assert_allclose(
        figure.axes[3].images[0].get_array(), image[..., 0], atol=1e-4 if t < 99 else 0.1
    )


def test_the_journeys_stand_in_rows_under_their_stops():
    journey = np.random.default_rng(0).uniform(-1, 1, (4, 2, 8, 8, 1)).astype("float32")
    figure = start_here.journeys([9, 6, 3, 0], journey)
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        "9 left", "6 left", "3 left", "0 left",
    ]  # fmt: skip
    np.testing.assert_array_equal(figure.axes[6].images[0].get_array(), journey[2, 1, ..., 0])
    assert figure_to_array(figure).std() > 10
