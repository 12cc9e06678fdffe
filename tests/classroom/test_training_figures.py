"""The pictures of chapter 05 show what they say."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.classroom.figures import training
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD


def test_the_caption_counts_images_and_measures_their_spread():
    images = np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 1)).astype("float32")
    picture, caption = training.drawn(30, images)
    assert picture.shape == (2 * 66 + 2, 8 * 66 + 2, 3)
    assert caption == "16 images in rows of eight, drawn after 30 epochs"
    assert "before any training" in training.drawn(0, images)[1]


def test_the_slider_shows_the_images_of_its_epoch_beside_the_loss_there():
    history = {e: np.full((8, 8, 8, 1), e / 90, "float32") for e in (0, 90)}
    losses = np.linspace(1.0, 0.25, 91)
    early, late = (training.progress(history, losses, e) for e in (0, 90))
    for (page, caption), value, level in ((early, "1.00", 128), (late, "0.25", 255)):
        picture = shown(page)
        assert picture[10, 10, 0] == level
        assert f"here {value}" in page
        assert caption == training.drawn(0 if value == "1.00" else 90, history[0] * 0)[1]
    dots = [re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page) for page, _ in (early, late)]
    assert float(dots[0][1]) < float(dots[1][1])  # later
    assert float(dots[0][2]) < float(dots[1][2])  # lower on the page


def shown(page):
    """The first image of a page, as an array."""
    source = re.search(r"data:image/png;base64,([^\"]+)", page)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))


def test_the_strip_has_a_row_for_each_epoch_in_order():
    history = {e: np.full((16, 8, 8, 1), v, "float32") for e, v in ((0, -1.0), (10, 1.0))}
    first, second = training.progress_strip(history, [0, 10]).axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("0 epochs", "10 epochs")
    plots.figure_to_array(first.figure)  # where the names were cut off
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


def test_averages_stand_beside_the_weight_under_their_momentum():
    step = np.concatenate([[0.0], np.ones(100)])
    figure = training.averages(step, {"0.9": 0.9})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), step)
    expected = 1 - 0.9 ** np.arange(101)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), expected, atol=1e-12)
    assert figure.axes[0].lines[1].get_label() == "average, momentum 0.9"


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
