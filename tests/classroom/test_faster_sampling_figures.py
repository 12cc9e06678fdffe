"""Pictures of chapter 09: right numbers, and pictures that change with what they show."""

import time

import numpy as np
import pytest

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.classroom.figures import faster_sampling as figures
from diffusion_walkthrough.classroom.plots import figure_to_array
from diffusion_walkthrough.faster_sampling import spaced
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

SCHEDULE = NoiseSchedule(make_betas("cosine", 100))
SIGMAS = np.array([80.0, 1.0, 0.05])


def some_curves():
    exact = np.outer(np.hypot(1, SIGMAS), np.linspace(-1, 1, 6))
    return figures.curves(SIGMAS, exact, SIGMAS[::2], exact[::2])


def test_curves_are_drawn_as_x_over_log_snr():
    (axis,) = some_curves().axes
    assert len(axis.lines) == 6 + 2  # every fifth walker in straight steps
    for line, x in zip(axis.lines, np.linspace(-1, 1, 6), strict=False):
        np.testing.assert_allclose(line.get_xdata(), -2 * np.log(SIGMAS))
        np.testing.assert_allclose(line.get_ydata(), [x, x, x])
    for line, x in zip(axis.lines[6:], (-1, 1), strict=True):
        np.testing.assert_allclose(line.get_xdata(), -2 * np.log(SIGMAS[::2]))
        np.testing.assert_allclose(line.get_ydata(), [x, x])


def test_a_curve_has_the_colour_of_the_heap_in_which_it_ends():
    exact = np.array([[0.0, 0.0, 0.0, 0.0], [-0.6, 0.05, 0.65, 0.7]])
    axis = figures.curves([1, 0.1], exact, [1, 0.1], exact[:, :1]).axes[0]
    colours = [line.get_color() for line in axis.lines[:4]]
    assert len(set(colours)) == 3
    assert colours[2] == colours[3]


COUNTS = {"first": [4, 8], "second": [7, 15]}
ERRORS = {"first": [0.5, 0.25], "second": [0.4, 0.1]}


def test_orders_are_read_from_logarithmic_axes():
    (axis,) = figures.orders(COUNTS, ERRORS).axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    for line, name in zip(axis.lines, COUNTS, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), COUNTS[name])
        np.testing.assert_array_equal(line.get_ydata(), ERRORS[name])
        assert line.get_label() == name
    assert [label.get_text() for label in axis.get_xticklabels()] == ["4", "7", "8", "15"]
    dressed = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axis.lines}
    assert len(dressed) == 2


def test_the_ruler_marks_where_a_walk_asks():
    asked = {"even": spaced(SCHEDULE, 5, sigma_max=80), "log_snr": spaced(SCHEDULE, 5, "log_snr")}
    above, below = figures.ruler(SCHEDULE, asked).axes
    assert [label.get_text() for label in below.get_yticklabels()] == ["even", "log_snr"]
    even, by_log_snr = (line.get_xdata() for line in below.lines)
    ends = -2 * np.log(SCHEDULE.sqrt_recipm1_alphas_cumprod[[-1, 0]])
    np.testing.assert_allclose(by_log_snr, np.linspace(*ends, 5), atol=1e-6)
    assert even[0] == pytest.approx(-2 * np.log(80))
    assert len(even) == 5
    first, *_, last = below.lines
    assert (first.get_ydata()[0], last.get_ydata()[0]) == (0, 1)
    assert below.get_ylim()[0] > below.get_ylim()[1]  # the first row is on top
    (line,) = above.lines
    kept = 1 / (1 + np.exp(-line.get_xdata()))
    expected = ONE_DIMENSIONAL_WORLD.not_knowable(kept[::40])
    np.testing.assert_allclose(line.get_ydata()[::40], expected)


MARKS = {"a": [(5, 0.5, 0.8, 0.7), (10, 0.3, 0.9, 0.75)], "b": [(9, 1.1, 0.2, 0.1)]}


def test_marks_stand_in_three_panels_beside_the_walk_to_compare_with():
    figure = figures.marks(MARKS, (0.25, 0.96, 0.99), "ancestral, 100")
    for place, axis in enumerate(figure.axes):
        beside, a, b = axis.lines
        assert beside.get_ydata()[0] == (0.25, 0.96, 0.99)[place]
        np.testing.assert_array_equal(a.get_xdata(), [5, 10])
        np.testing.assert_array_equal(a.get_ydata(), [walk[place + 1] for walk in MARKS["a"]])
        np.testing.assert_array_equal(b.get_ydata(), [MARKS["b"][0][place + 1]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ancestral, 100", "a", "b"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0.5", "1"]


def some_drawings():
    levels = {("DDIM", 1): -1, ("DDIM", 5): 0.0, ("Heun", 1): 0.5, ("Heun", 5): 1.0}
    drawn = {"DDIM": {}, "Heun": {}}
    for (name, count), level in levels.items():
        drawn[name][count] = np.full((3, 4, 4, 1), level)
    return drawn


def test_the_slider_shows_a_row_for_each_kind_of_walk(monkeypatch):
    shown = []
    monkeypatch.setattr(
        figures.live, "pixels", lambda x, name, size: shown.append((name, x.mean())) or name
    )
    page, caption = figures.at_once(some_drawings(), 5)
    assert caption.startswith("5 evaluations each")
    assert [name for name, _ in shown] == ["DDIM", "Heun"]
    assert shown[0][1] < shown[1][1]
    assert page.index("DDIM") < page.index("Heun")
    assert figures.at_once(some_drawings(), 1)[1].startswith("1 evaluation each")


def test_the_slider_changes_with_the_number_and_follows_the_hand():
    drawn = some_drawings()
    one, five = (figures.at_once(drawn, count)[0] for count in (1, 5))
    assert one != five
    assert one == figures.at_once(drawn, 1)[0]
    took = []
    for _ in range(5):
        start = time.perf_counter()
        figures.at_once(drawn, 5)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.06


@pytest.mark.parametrize(
    "draw",
    [
        some_curves,
        lambda: figures.orders(COUNTS, ERRORS),
        lambda: figures.ruler(SCHEDULE, {"even": spaced(SCHEDULE, 4)}),
        lambda: figures.marks(MARKS, (0.25, 0.96, 0.99), "ancestral, 100"),
    ],
)
def test_pictures_render_the_same_each_time(draw):
    first = figure_to_array(draw())
    assert first.std() > 0
    np.testing.assert_array_equal(first, figure_to_array(draw()))


def test_lines_differ_also_without_colour():
    grey = {(line["linestyle"], line["marker"]) for line in figures._LINES}
    assert len(grey) == len(figures._LINES)
    assert plots.BLUE in {line["color"] for line in figures._LINES}
