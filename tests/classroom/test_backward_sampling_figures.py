"""Pictures of chapter 06: right numbers, and pictures that change with what they show."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom.figures import backward_sampling as figures
from diffusion_walkthrough.classroom.plots import figure_to_array
from diffusion_walkthrough.evaluation import density_coverage, precision_recall
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

SCHEDULE = NoiseSchedule(make_betas("linear", 10))


def some_walk(seed=0, walkers=5):
    return np.random.default_rng(seed).standard_normal((11, walkers))


def some_frames():
    frames = np.zeros((3, 4, 2, 2, 1), dtype=np.float32)
    frames[0, :2] = 1.5  # half of the pixels are out of range
    frames[1, 0, 0, 0] = -1.01  # one of sixteen
    return frames


def test_paths_run_from_noise_at_the_left_to_the_result_at_the_right():
    walk = some_walk()
    axes = figures.paths(SCHEDULE, {"one": walk}).axes[0]
    assert axes.get_xlim() == (10, 0)
    assert axes.get_title() == "one"
    for line, walker in zip(axes.lines, walk.T, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(10, -1, -1))
        np.testing.assert_array_equal(line.get_ydata(), walker)


def test_paths_lie_on_the_exact_density_of_their_step():
    axes = figures.paths(SCHEDULE, {"one": some_walk()}).axes[0]
    shade = np.asarray(axes.images[0].get_array())  # (x, steps left)
    assert shade.shape == (300, 11)
    x = np.linspace(-3, 3, 300)
    for column, alpha_bar in ((0, 1.0), (4, SCHEDULE.alphas_cumprod[3])):
        density = ONE_DIMENSIONAL_WORLD.noised(alpha_bar).pdf(x)
        np.testing.assert_allclose(shade[:, column], density / density.max())


def test_paths_show_as_many_walkers_as_asked_and_a_panel_for_each_walk():
    walks = {"a": some_walk(0, 90), "b": some_walk(1, 3)}
    figure = figures.paths(SCHEDULE, walks, shown=60)
    assert [len(axes.lines) for axes in figure.axes] == [60, 3]


def test_heaps_count_what_they_are_given():
    numbers = np.array([-1.0, 0.5, 0.5, 0.5])
    axes = figures.heaps({"four": numbers, "others": numbers + 0.1}).axes
    for panel, shift in zip(axes, (0, 0.1), strict=True):
        middles = np.array([bar.get_x() + bar.get_width() / 2 for bar in panel.patches])
        areas = np.array([bar.get_height() * bar.get_width() for bar in panel.patches])
        assert areas[np.abs(middles - (-1 + shift)) < 0.03].sum() == pytest.approx(0.25)
        assert areas[np.abs(middles - (0.5 + shift)) < 0.03].sum() == pytest.approx(0.75)
    line = axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), ONE_DIMENSIONAL_WORLD.pdf(line.get_xdata()))


def test_the_balls_show_what_precision_and_coverage_count():
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(0, 1, (12, 2)), rng.normal(1.2, 1, (9, 2))
    left, right = figures.balls(real, drawn, k=3).axes
    circles = [(np.array(c.center), c.radius) for c in left.patches]
    hits = [any(np.linalg.norm(p - c) <= r + 1e-12 for c, r in circles) for p in drawn]
    precision, coverage = precision_recall(real, drawn)[0], density_coverage(real, drawn, k=3)[1]
    assert np.mean(hits) == pytest.approx(precision)
    full, hollow = (line.get_xydata() for line in left.lines[1:])
    np.testing.assert_array_equal(full, drawn[hits])
    np.testing.assert_array_equal(hollow, drawn[~np.array(hits)])
    assert f"precision: {len(full)} of 9 " in left.get_title()
    reached = [c.get_facecolor() == left.patches[0].get_facecolor() for c in right.patches]
    assert 0 < coverage < 1
    assert np.mean(reached) == pytest.approx(coverage)
    assert f"coverage: {sum(reached)} of 12 " in right.get_title()


SCHEDULE_100 = NoiseSchedule(make_betas("linear", 100))
SCHEDULE_20 = NoiseSchedule(make_betas("linear", 20))


def test_the_journey_says_where_it_is():
    page, caption = figures.journey(SCHEDULE_20, [19, 9, -1], some_frames(), 0)
    assert "t = 19, 20 steps left" in caption
    assert "50%" in caption
    assert "stop 0 of 2" in page
    assert f"√ᾱ = {SCHEDULE_20.signal_left:.2f}" in page
    page, caption = figures.journey(SCHEDULE_20, [19, 9, -1], some_frames(), 1)
    assert "10 steps left; 6%" in caption
    page, caption = figures.journey(SCHEDULE_20, [19, 9, -1], some_frames(), 2)
    assert "0 steps left; 0%" in caption
    assert "√ᾱ = 1.00" in page


def test_the_journey_changes_with_the_stop_and_repeats():
    pages = [figures.journey(SCHEDULE_20, [19, 9, -1], some_frames(), i)[0] for i in range(3)]
    assert len({page[page.index("base64") :] for page in pages}) == 3
    assert figures.journey(SCHEDULE_20, [19, 9, -1], some_frames(), 1)[0] == pages[1]


def test_the_signal_at_a_t_is_the_schedule_s_and_1_where_it_is_clean():
    signal = figures.signal_at(SCHEDULE_20, [19, 0, -1])
    expected = [*np.sqrt(SCHEDULE_20.alphas_cumprod[[19, 0]]), 1.0]
    np.testing.assert_allclose(signal, expected)


def test_rows_carry_their_names_and_as_many_images_as_asked():
    images = {"black": -np.ones((9, 4, 4, 1)), "white": np.ones((9, 4, 4, 1))}
    black, white = figures.rows(images, columns=3).axes
    assert (black.get_ylabel(), white.get_ylabel()) == ("black", "white")
    for axis, level in ((black, 0), (white, 255)):
        picture = axis.images[0].get_array()
        assert picture.shape == (28, 3 * 26 + 2, 3)
        assert picture[5, 5, 0] == level


def test_walkers_have_the_colour_of_the_heap_in_which_they_end():
    walk = np.zeros((11, 4))
    walk[-1] = (-0.6, 0.05, 0.65, 0.7)
    colours = [line.get_color() for line in figures.paths(SCHEDULE, {"one": walk}).axes[0].lines]
    assert len(set(colours)) == 3
    assert colours[2] == colours[3]


def test_neighbours_are_the_nearest_ones_and_the_titles_say_how_near():
    training = np.stack([np.full((2, 2, 1), value) for value in (-1.0, 0.0, 1.0)])
    images = np.stack([np.full((2, 2, 1), value) for value in (0.9, -0.75)])
    axes = figures.neighbours(images, training).axes
    assert [a.get_title() for a in axes[:2]] == ["0.2", "0.5"]  # √4 pixels · 0.1 and · 0.25
    shown = [np.asarray(a.images[0].get_array()).mean() for a in axes]
    np.testing.assert_allclose(shown, [0.9, -0.75, 1.0, -1.0])
    assert [axes[0].get_ylabel(), axes[2].get_ylabel()] == ["drawn", "nearest"]


def test_ways_back_stand_in_the_row_of_their_t():
    clean = np.zeros((2, 2, 1))
    hidden = np.full((2, 2, 2, 1), 0.1)
    returned = np.arange(6).reshape(2, 3, 1, 1, 1) / 10 * np.ones((2, 3, 2, 2, 1))
    axes = figures.returns(SCHEDULE_100, clean, hidden, returned, [5, 60]).axes
    assert len(axes) == 10
    for axis, t in ((axes[0], 5), (axes[5], 60)):
        signal = np.sqrt(SCHEDULE_100.alphas_cumprod[t])
        assert axis.get_ylabel() == f"t = {t}\n√ᾱ = {signal:.2f}"
    assert [a.get_title() for a in axes[:3]] == ["clean", "noised", "way back 1"]
    shown = [np.asarray(a.images[0].get_array()).mean() for a in axes]
    np.testing.assert_allclose(shown, [0, 0.1, 0, 0.1, 0.2, 0, 0.1, 0.3, 0.4, 0.5])


def means_shown(figure):
    return [float(np.asarray(axis.images[0].get_array()).mean()) for axis in figure.axes]


def test_ways_with_shared_noise_stand_in_rows():
    images = {n: np.array([n / 100, 0.5])[:, None, None, None] * np.ones((2, 4, 4, 1))
              for n in (0, 40)}  # fmt: skip
    figure = figures.shared_ways(images)
    np.testing.assert_allclose(means_shown(figure), [0, 0.5, 0.4, 0.5])
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["0 shared", "40 shared"]
    assert [axis.get_title() for axis in figure.axes] == ["1", "2", "", ""]


def test_what_lies_between_stands_below_the_mix_of_pixels():
    drawn = {t: np.full((2, 4, 4, 1), t / 100) for t in (5, 90)}
    figure = figures.between(np.full((2, 4, 4, 1), -0.5), drawn, [0.0, 0.25])
    np.testing.assert_allclose(means_shown(figure), [-0.5, -0.5, 0.05, 0.05, 0.9, 0.9])
    assert [figure.axes[i].get_ylabel() for i in (0, 2, 4)] == ["pixels", "t = 5", "t = 90"]
    assert [figure.axes[i].get_title() for i in (0, 1)] == ["λ = 0.0", "λ = 0.2"]
    width, height = figure.get_size_inches()
    assert width < 7.5
    assert height < 9


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.paths(SCHEDULE, {"one": some_walk()}),
        lambda: figures.heaps({"none": np.array([0.0])}),
        lambda: figures.balls(np.eye(4, 2), np.ones((5, 2)) * np.arange(5)[:, None], k=1),
        lambda: figures.neighbours(np.zeros((1, 8, 8, 1)), np.zeros((1, 8, 8, 1))),
        lambda: figures.shared_ways({0: np.zeros((1, 8, 8, 1))}),
        lambda: figures.rows({"one": np.zeros((2, 8, 8, 1))}, columns=2),
        lambda: figures.between(np.zeros((1, 8, 8, 1)), {}, [0.5]),
    ],
)
def test_pictures_render_the_same_each_time(draw):
    first = figure_to_array(draw())
    assert first.std() > 0
    np.testing.assert_array_equal(first, figure_to_array(draw()))
