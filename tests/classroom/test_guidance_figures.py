"""Pictures of chapter 10: right numbers, and pictures that change with what they show."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom.figures import guidance as figures
from diffusion_walkthrough.classroom.plots import figure_to_array
from diffusion_walkthrough.gaussian_mixture import GaussianMixture

RANDOM = np.random.default_rng(0)


def test_marks_are_means_with_the_range_of_the_seeds():
    values = np.array([[0.1, 0.3], [0.5, 0.9]])
    one, two = figures.marks(
        [1, 4], {"right": {"": values}, "two": {"a": values, "b": -values}}
    ).axes
    np.testing.assert_allclose(one.lines[0].get_xydata(), [[1, 0.2], [4, 0.7]])
    (band,) = one.collections
    ends = band.get_paths()[0].vertices
    assert {(1.0, 0.1), (1.0, 0.3), (4.0, 0.5), (4.0, 0.9)} <= {tuple(x.round(6)) for x in ends}
    assert one.get_legend() is None
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["a", "b"]
    assert one.get_title() == "right"
    assert len(one.lines) == 2
    real = figures.marks([1, 4], {"right": {"": values}}, {"right": 0.8}).axes[0].lines[-1]
    np.testing.assert_allclose(real.get_ydata(), 0.8)


def test_a_world_shows_its_classes_and_what_was_drawn_as_densities():
    line = np.linspace(-2, 2, 401)
    left, right = GaussianMixture([1.0], [-1.0], [0.2]), GaussianMixture([1.0], [1.0], [0.1])
    drawn = right.sample(500, RANDOM)
    classes, guided = figures.world(
        {"left": left, "right": right}, line, {"guided": (drawn, left.pdf(line))}
    ).axes
    for curve, mixture in zip(classes.lines, (left, right), strict=True):
        np.testing.assert_allclose(curve.get_ydata(), mixture.pdf(line))
    bars = guided.patches
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    assert all(bar.get_height() == 0 for bar in bars if bar.get_x() < 0)
    np.testing.assert_allclose(guided.lines[0].get_ydata(), left.pdf(line))


def test_the_scale_is_said_in_both_conventions_and_the_picture_follows_it():
    drawn = {"digits": {s: RANDOM.uniform(-1, 1, (20, 8, 8, 1)) for s in (0, 0.5, 1, 3)}}
    pictures = {s: figures.at_scale(drawn, s) for s in (0, 0.5, 1, 3)}
    assert len({picture for picture, _ in pictures.values()}) == 4
    assert pictures[3][1] == "s = 3, or w = 2 as Ho and Salimans count: guided"
    assert "w = -1" in pictures[0][1]
    assert "nothing is said" in pictures[0][1]
    assert "off" in pictures[1][1]
    assert "between" in pictures[0.5][1]
    assert "digits" in pictures[1][0]


def test_holes_are_painted_over_and_the_rest_is_left():
    images, known = RANDOM.uniform(-1, 1, (3, 4, 4, 1)), np.arange(4).reshape(4, 1, 1) < 2
    shown = figures.with_holes(images, known, colour=(1, 0, -1))
    assert shown.shape == (3, 4, 4, 3)
    np.testing.assert_allclose(shown[:, :2], np.repeat(images[:, :2], 3, axis=-1))
    np.testing.assert_allclose(shown[:, 2:] - np.array([1, 0, -1]), 0)
    coloured = RANDOM.uniform(-1, 1, (2, 4, 4, 3))
    np.testing.assert_allclose(figures.with_holes(coloured, known)[:, :2], coloured[:, :2])


def test_a_sketch_stands_beside_what_became_of_it():
    sketch = np.zeros((4, 4, 3))
    drawn = {t: RANDOM.uniform(-1, 1, (2, 4, 4, 3)) for t in (50, 90)}
    pictures = {t: figures.from_sketch(sketch, drawn, t) for t in (50, 90)}
    assert pictures[50][0] != pictures[90][0]
    assert pictures[50][0].count("<figure") == 3
    assert "step 90" in pictures[90][1]


def test_the_figures_can_be_drawn():
    line = np.linspace(-1, 1, 11)
    shown = figures.marks([0, 1], {"mark": {"": np.zeros((2, 3))}})
    assert figure_to_array(shown).std() > 0
    bell = GaussianMixture([1.0], [0.0], [0.2])
    shown = figures.world({"one": bell}, line, {"drawn": (line, bell.pdf(line))})
    assert figure_to_array(shown).std() > 0
