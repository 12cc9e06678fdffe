"""Pictures of chapter 11: right numbers, and pictures that change with what they show."""

import time

import numpy as np
import pytest

from diffusion_walkthrough.classroom.figures import flow_matching as figures
from diffusion_walkthrough.classroom.plots import figure_to_array
from diffusion_walkthrough.flow_matching import euler, share_of_noise, x_start_weight
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

SCHEDULES = {name: NoiseSchedule(make_betas(name, 20)) for name in ("cosine", "straight")}
RANDOM = np.random.default_rng(0)
STARTS = RANDOM.standard_normal((50, 2))
WALKS = euler(lambda x, s: x - 1, STARTS, 4)


def some_lines():
    noise = np.array([-1.0, 0.0, 1.0, 2.0])
    x_start = np.array([0.65, 0.05, -0.6, 0.7])
    return figures.lines_and_walks((x_start, noise), np.stack([noise, noise / 2, x_start]))


def test_lines_and_walks_run_from_noise_at_the_left_to_clean():
    lines, walks = some_lines().axes
    assert lines.get_xlim() == (1, 0)
    for axis, stops in ((lines, 2), (walks, 3)):
        assert len(axis.lines) == 4
        for line in axis.lines:
            np.testing.assert_allclose(line.get_xdata(), np.linspace(1, 0, stops))
        assert axis.lines[0].get_ydata()[0] == -1
        assert axis.lines[0].get_ydata()[-1] == 0.65
        colours = [line.get_color() for line in axis.lines]
        assert colours[0] == colours[3]
        assert len(set(colours)) == 3


def test_rays_carry_the_steps_from_the_circle_to_the_line():
    places, over_time = figures.rays(SCHEDULES, marked=5).axes
    circle, straight = (line.get_xydata() for line in places.lines[-2:])
    np.testing.assert_allclose((circle**2).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(straight.sum(axis=1), 1, atol=1e-5)
    cross = circle[:, 0] * straight[:, 1] - circle[:, 1] * straight[:, 0]
    np.testing.assert_allclose(cross, 0, atol=1e-6)
    for line, schedule in zip(over_time.lines, SCHEDULES.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), share_of_noise(schedule, np.arange(-1, 20)))
    np.testing.assert_allclose(*over_time.lines[1].get_data(), atol=1e-6)


def test_the_plane_shows_whole_walks_with_their_ends():
    figure = figures.plane({"lines": WALKS[[0, -1]], "walks": WALKS}, shown=30)
    for axis, stops in zip(figure.axes, (2, 5), strict=True):
        (lines,) = axis.collections
        assert len(lines.get_segments()) == 30
        assert len(lines.get_segments()[0]) == stops
        begin, end = (line.get_xydata() for line in axis.lines)
        np.testing.assert_allclose(begin, STARTS[:30])
        np.testing.assert_allclose(end, WALKS[-1, :30])
        np.testing.assert_allclose(lines.get_segments()[3][0], STARTS[3])


def test_crowds_stand_in_rows_and_columns():
    figure = figures.crowds({"a": {"1": STARTS, "2": WALKS[1]}, "b": {"1": WALKS[2]}}, shown=20)
    first, second, third, empty = figure.axes
    np.testing.assert_allclose(second.lines[0].get_xydata(), WALKS[1, :20])
    np.testing.assert_allclose(third.lines[0].get_xydata(), WALKS[2, :20])
    assert [axis.get_title() for axis in (first, second, third)] == ["1", "2", ""]
    assert (first.get_ylabel(), third.get_ylabel()) == ("a", "b")
    assert not empty.lines
    assert first.get_xlim() == first.get_ylim() == (-2.5, 2.5)


def test_weights_are_those_of_the_chapter():
    (axis,) = figures.weights().axes
    for line in axis.lines:
        expected = x_start_weight(line.get_label(), np.exp(line.get_xdata()))
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert len({line.get_linestyle() for line in axis.lines}) == len(axis.lines) == 4


def density_shown(monkeypatch, walks, *where):
    seen = {}

    def pixels(image, name, size):
        seen[name] = image
        return name

    monkeypatch.setattr(figures.live, "pixels", pixels)
    caption = figures.crowd_at(walks, *where)[1]
    return seen, caption


def test_a_crowd_stands_between_two_stops_on_a_straight_line(monkeypatch):
    """All at one point: the dark cell is where the walk is at that s."""
    stops = np.zeros((3, 9, 2)) + np.array([[-2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])[:, None]
    for s, (x, y) in ((1.0, (-2, 0)), (0.75, (-1, 1)), (0.25, (1, 2)), (0.0, (2, 2))):
        seen, caption = density_shown(monkeypatch, {"walk": {2: stops}}, 2, s)
        (row, column) = np.argwhere(seen["walk"] < 0)[0]
        cell = 2 * figures.REACH / 64
        assert -figures.REACH + (column + 0.5) * cell == pytest.approx(x, abs=cell)
        assert figures.REACH - (row + 0.5) * cell == pytest.approx(y, abs=cell)
        assert caption.startswith(f"2 evaluations, s = {s:.2f}: ")
    assert caption.endswith("where the walk ends")


def test_the_slider_follows_the_hand():
    walks = {name: {1: WALKS[[0, -1]].repeat(120, axis=1)} for name in "abc"}
    assert figures.crowd_at(walks, 1, 1.0)[0] != figures.crowd_at(walks, 1, 0.5)[0]
    assert figures.crowd_at(walks, 1, 0.5)[1].startswith("1 evaluation, s = 0.50")
    took = []
    for _ in range(5):
        start = time.perf_counter()
        figures.crowd_at(walks, 1, 0.5)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.06


@pytest.mark.parametrize(
    "draw",
    [
        some_lines,
        lambda: figures.rays(SCHEDULES),
        lambda: figures.plane({"walks": WALKS}),
        lambda: figures.crowds({"a": {"1": STARTS}}),
        figures.weights,
    ],
)
def test_pictures_render_the_same_each_time(draw):
    first = figure_to_array(draw())
    assert first.std() > 0
    np.testing.assert_array_equal(first, figure_to_array(draw()))
