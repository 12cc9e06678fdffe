"""The playground hides, asks and walks as the functions of the course do."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.classroom import playground, plots
from diffusion_walkthrough.classroom.playground import Playground
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import nearest_distance


@pytest.fixture(scope="module")
def model():
    return load_model("digits")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")[0]


@pytest.fixture
def field(model, digits):
    return Playground(model, digits, first=3, t=40)


def press(field, name):
    row = field.children[1]
    next(button for button in row.children if button.description == name).click()


def words(widget):
    return re.sub("<[^>]*>", " ", widget.value)


def shown(field):
    """The pictures on the page by their captions, in grey levels 0 … 255."""
    found = re.findall(r'alt="([^"]*)" src="data:image/png;base64,([^"]*)"', field.picture.value)
    opened = {name: Image.open(io.BytesIO(base64.b64decode(data))) for name, data in found}
    return {name: np.asarray(image, float) for name, image in opened.items()}


def test_slider_mixes_the_same_digit_and_noise_by_the_rates_of_t(field, model, digits):
    for t in (0, 40, 99):
        field.slider.value = t
        signal, sigma = (float(rate[0]) for rate in model.schedule.rates(np.array([t]), 1))
        np.testing.assert_allclose(field.x_t, signal * digits[3:4] + sigma * field.noise, atol=1e-6)
        assert (field.t, field.walking) == (t, False)
        assert f"noisy image, t = {t}" in shown(field)


def test_the_sum_comes_out_on_the_screen(field):
    pictures = list(shown(field).values())
    grey = 127.5
    total = pictures[0] - grey + pictures[1]
    inside = (pictures[2] > 0) & (pictures[2] < 255) & (pictures[1] > 0) & (pictures[1] < 255)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(pictures[2][inside], total[inside], atol=2)


def test_the_guess_is_the_networks_and_the_neighbour_the_nearest(field, model, digits):
    asked = np.asarray(model.denoise(field.x_t, np.array([40], "int32")))
    np.testing.assert_allclose(field.guess, asked, atol=1e-5)
    distance = np.linalg.norm(field.guess - digits[field._nearest()])
    assert distance == pytest.approx(nearest_distance(field.guess, digits)[0], rel=1e-4)


def test_a_step_back_goes_one_step_and_the_slider_follows(field):
    before = field.x_t
    press(field, "one step back")
    assert (field.t, field.slider.value, field.walking) == (39, 39, True)
    assert 0 < np.abs(field.x_t - before).mean() < 0.5
    assert "The digit was hidden at t = 40: the network goes back" in words(field.caption)


def test_nobody_has_hidden_a_digit_only_where_the_walk_begins_with_pure_noise(field):
    field.slider.value = 99
    press(field, "one step back")
    assert "Nobody has hidden a digit here" in words(field.caption)


def test_all_steps_end_at_an_image_near_the_training_digits(field, digits):
    field.slider.value = 99
    press(field, "all steps")
    assert field.t == -1
    assert np.abs(field.x_t).max() <= 1
    assert nearest_distance(field.x_t, digits)[0] < 4
    press(field, "one step back")  # nothing is left to do, and nothing breaks
    assert field.t == -1
    assert list(shown(field)) == ["drawn", "nearest training digit"]


def test_another_digit_keeps_the_noise_and_new_noise_the_digit(field):
    digit, noise = field.digit, field.noise
    press(field, "another digit")
    assert (field.digit != digit).any()
    assert (field.noise == noise).all()
    digit = field.digit
    press(field, "new noise")
    assert (field.digit == digit).all()
    assert (field.noise != noise).any()
    assert (field.t, field.walking) == (40, False)


def test_after_a_walk_another_digit_is_hidden_where_the_slider_had_been_put(field):
    press(field, "all steps")
    press(field, "another digit")
    assert field.t == field.slider.value == 40
    assert not field.walking


def test_what_is_shown_without_a_kernel_says_what_to_do(model, digits, monkeypatch):
    shown = []
    monkeypatch.setattr(playground.widgets, "show_widget", lambda *what: shown.append(what))
    field = playground.play(model, digits)
    ((widget, words, png),) = shown
    assert (widget, words) == (field, repr(field))
    assert repr(field).startswith("Run this cell")
    assert png == plots.to_png(field.still())


def test_the_still_picture_says_what_the_playground_shows(field):
    field.slider.value = 60
    titles = [axis.get_title() for axis in field.still().axes]
    signal = field.model.schedule.sqrt_alphas_cumprod[60]
    assert titles[0] == f"{signal:.2f} × digit"
    assert titles[2] == "= noisy, t = 60"
