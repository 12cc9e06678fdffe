"""Pictures of chapters 07 and 07b: right numbers, and pictures that change with what they show."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom.figures import evaluation as figures
from diffusion_walkthrough.classroom.plots import figure_to_array
from diffusion_walkthrough.evaluation import density_coverage, precision_recall


def some_points(seed=0, n=12):
    return np.random.default_rng(seed).standard_normal((n, 2))


def grey(*levels):
    return np.array(levels)[:, None, None, None] * np.ones((len(levels), 4, 4, 1))


def test_ways_lead_from_where_a_point_was_to_where_it_is():
    cloud, moved = some_points(0), some_points(1)
    axes = figures.ways(cloud, moved, shown=5).axes[0]
    before, after = (np.stack(line.get_data(), axis=1) for line in axes.lines)
    np.testing.assert_array_equal(before, cloud)
    np.testing.assert_array_equal(after, moved)
    (arrows,) = axes.collections
    np.testing.assert_array_equal(arrows.XY, cloud[:5])
    np.testing.assert_array_equal(np.stack([arrows.U, arrows.V], axis=1), (moved - cloud)[:5])


def test_the_floor_s_line_is_the_mean_and_others_stand_at_their_n():
    floors = np.array([[4.0, 6.0], [2.0, 3.0]])
    axes = figures.floor([50, 100], floors, {"network": (80, [0.5, 0.7])}).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [5.0, 2.5])
    np.testing.assert_array_equal(axes.lines[-1].get_xdata(), [80, 80])
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), [0.5, 0.7])
    assert "network" in [text.get_text() for text in axes.texts]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def within(points, circle):
    middle = np.array(circle.center)
    return [np.linalg.norm(p - middle) <= circle.radius + 1e-12 for p in points]


def test_the_balls_show_what_recall_and_coverage_count():
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(0, 1, (12, 2)), rng.normal(0.7, 1, (9, 2))
    left, right = figures.balls(real, drawn, k=3).axes
    inside = np.array([within(real, circle) for circle in left.patches])
    assert inside.any(axis=0).mean() == pytest.approx(precision_recall(real, drawn, k=3)[1])
    filled = [circle for circle in right.patches if circle.get_fill()]
    edged = [circle for circle in right.patches if not circle.get_fill()]
    assert len(filled) == 12
    coverage = density_coverage(real, drawn, k=3)[1]
    assert len(edged) / 12 == pytest.approx(coverage)
    assert all(any(within(drawn, circle)) for circle in edged)


def test_each_mark_has_its_panel_and_each_time_its_dot():
    values = {"density": {"real": [0.9, 1.1], "drawn": [0.5]}, "coverage": {"real": [0.6, 0.6]}}
    panels = figures.marks(values).axes
    assert [axes.get_title() for axes in panels] == ["density", "coverage"]
    dots, mean, others, _ = panels[0].lines
    np.testing.assert_array_equal(dots.get_xdata(), [0.9, 1.1])
    np.testing.assert_array_equal(mean.get_xdata(), [1.0, 1.0])
    assert others.get_marker() != dots.get_marker()
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["real", "drawn"]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1]  # the first stands on top


def test_distances_are_counted_in_outlines_of_area_1():
    axes = figures.distances({"a": [0.1, 0.1, 0.9], "b": [1.9]}, high=2.0).axes[0]
    for outline, middle in zip(axes.patches, (0.1, 1.9), strict=True):
        x, y = outline.get_xy().T
        area = np.sum((x[1:] - x[:-1]) * y[:-1])
        assert area == pytest.approx(1)
        assert abs(x[y.argmax()] - middle) < 0.06
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_pairs_stand_above_each_other_under_their_ratio():
    figure = figures.pairs(grey(0.1, 0.2), grey(0.3, 0.4), [0.0, 0.51])
    shown = [float(np.asarray(axes.images[0].get_array()).mean()) for axes in figure.axes]
    np.testing.assert_allclose(shown, [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert [axes.get_title() for axes in figure.axes] == ["0.00", "0.51", "", ""]
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["drawn", "nearest"]


def test_shares_are_shown_over_the_range_of_real_ones_and_marked_where_they_leave_it():
    real = [{"hat": 0.1, "eye_colour": 0.2}, {"hat": 0.3, "eye_colour": 0.25}]
    axes = figures.shares_apart({"hat": 0.2, "eye_colour": 0.4}, real).axes[0]
    ranges, bars = axes.patches[:2], axes.patches[2:]
    assert [r.get_x() for r in ranges] == pytest.approx([0.1, 0.2])
    assert [r.get_width() for r in ranges] == pytest.approx([0.2, 0.05])
    assert [b.get_width() for b in bars] == [0.2, 0.4]
    np.testing.assert_array_equal(axes.lines[0].get_data(), [[0.4], [1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hat", "eye colour"]
    assert axes.get_legend().get_texts()[0].get_text() == "2 sets of real ones"


def test_each_window_has_its_line():
    axes = figures.windows([1, 2], {"3 x 3": [0.1, 0.2], "all": [0.4, 0.3]}).axes[0]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [0.4, 0.3])
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["3 x 3", "all"]


def some_images(seed, n=3):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 8, 8, 1))


def test_images_from_one_noise_stand_above_the_network_s():
    by_window, training = {"3 x 3": some_images(0), "all": some_images(1)}, some_images(1)
    pages = [figures.one_noise(by_window, some_images(1), training, name) for name in by_window]
    assert pages[0][0] != pages[1][0]
    assert "pictures 1.00; 0.0 from" in pages[1][1]
    assert "1.00" not in pages[0][1]
    assert "drawn through all" in pages[1][0]
    assert pages[0] == figures.one_noise(by_window, some_images(1), training, "3 x 3")


def test_alike_is_the_mean_correlation_of_the_pairs():
    a, b = some_images(2), some_images(3)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    assert figures.alike(a, b) == pytest.approx(np.mean(expected))
    assert figures.alike(a, 0.1 - 2 * a) == pytest.approx(-1)


def test_rows_carry_their_names_and_colours():
    colours = np.zeros((2, 4, 4, 3))
    colours[..., 0] = 1.0
    first, second = figures.rows({"black": -np.ones((2, 4, 4, 1)), "red": colours}).axes
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("black", "red")
    assert np.asarray(first.images[0].get_array())[5, 5].tolist() == [0, 0, 0]
    assert np.asarray(second.images[0].get_array())[5, 5].tolist() == [255, 128, 128]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.ways(some_points(), some_points(1)),
        lambda: figures.floor([50, 100], [[2.0], [1.0]], {}),
        lambda: figures.balls(some_points(), some_points(1)),
        lambda: figures.marks({"one": {"a": [1.0]}}),
        lambda: figures.distances({"a": [1.0, 2.0]}),
        lambda: figures.pairs(some_images(0), some_images(1), [0.1, 0.2, 0.3]),
        lambda: figures.shares_apart({"a": 0.2, "b": 0.4}, [{"a": 0.3, "b": 0.1}]),
        lambda: figures.windows([1, 2], {"a": [1.0, 2.0]}),
        lambda: figures.rows({"a": some_images(0)}),
    ],
)
def test_pictures_render_the_same_each_time(draw):
    first = figure_to_array(draw())
    assert first.std() > 0
    np.testing.assert_array_equal(first, figure_to_array(draw()))
