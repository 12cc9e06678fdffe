"""Pictures of chapter 02: captions say the right numbers, pictures follow their controls."""

import re
import time

import numpy as np
import pytest

from diffusion_walkthrough.classroom.exercises import noise_schedule as ask
from diffusion_walkthrough.classroom.figures import noise_schedule as figures
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import SCHEDULE_NAMES


@pytest.fixture(scope="module")
def both():
    return {name: NoiseSchedule(make_betas(name, 100)) for name in ("linear", "cosine")}


def gauge(axes):
    """How full the bar under an image is."""
    whole, filled = axes.patches
    return filled.get_width() / whole.get_width()


# -- the slider ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "timesteps", "left", "verdict"),
    [
        ("linear, raw", 10, "0.95", "not noise"),
        ("linear, raw", 300, "0.22", "not noise"),
        ("linear, raw", 500, "0.08", "A trace"),
        ("linear, raw", 1000, "0.0064", "As good as pure noise"),
        ("linear, scaled", 300, "0.0059", "As good as pure noise"),
        ("cosine", 1000, "below 0.0001", "As good as pure noise"),
        ("quad", 1000, "0.027", "A trace"),
        ("jsd", 50, "0", "As good as pure noise"),
    ],
)
def test_caption_says_the_signal_left(kind, timesteps, left, verdict):
    drawn, caption = figures.schedule_at(kind, timesteps)
    assert caption.startswith(f"{kind}, T = {timesteps}: signal left {left}. ")
    assert verdict in caption
    assert f"signal left: {left}<" in drawn


def test_the_curve_ends_at_the_signal_left():
    drawn, _ = figures.schedule_at("linear, raw", 50)
    points = re.search(r'polyline points="([^"]*)"', drawn)[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == 51
    assert heights == sorted(heights)  # down on the page is down on the curve
    top, bottom = map(float, re.search(r"M\d+ (\d+)V(\d+)H", drawn).groups())
    left = figures.schedule_of("linear, raw", 50).signal_left
    mark = float(re.search(r'circle cx="[^"]*" cy="([^"]*)"', drawn)[1])
    assert (bottom - mark) / (bottom - top) == pytest.approx(left, abs=0.01)


def test_the_picture_follows_each_control_and_repeats_itself():
    first = figures.schedule_at("linear, raw", 50)[0]
    assert first == figures.schedule_at("linear, raw", 50)[0]
    assert first != figures.schedule_at("linear, raw", 100)[0]
    assert first != figures.schedule_at("cosine", 50)[0]


def test_the_gallery_shows_each_number_of_steps_and_points_at_the_chosen_one():
    drawn, _ = figures.schedule_at("cosine", 50)
    said = re.findall(r"<figcaption[^>]*>(▸ )?T=(\d+)<", drawn)
    assert [int(steps) for _, steps in said] == list(figures.STEPS)
    assert [steps for arrow, steps in said if arrow] == ["50"]


def test_the_explorer_follows_the_hand():
    figures.schedule_at("quad", 1000)
    begin = time.perf_counter()
    for timesteps in figures.STEPS:
        figures.schedule_at("quad", timesteps)
    assert (time.perf_counter() - begin) / len(figures.STEPS) < 0.06


@pytest.mark.parametrize("kind", figures.KINDS)
@pytest.mark.parametrize("timesteps", [1, 2, 4000])
def test_extremes_can_be_drawn(kind, timesteps):
    drawn, caption = figures.schedule_at(kind, timesteps)
    assert "nan" not in drawn
    assert f"T = {timesteps}" in caption


# -- the digit -----------------------------------------------------------------------------------


def test_the_digit_is_noised_by_eq_4_with_the_same_noise_always():
    digit, _ = companion_digit()
    np.testing.assert_allclose(figures.noised_companion(1.0), digit)
    noise = figures.noised_companion(0.0)
    mixed = figures.noised_companion(0.36)
    np.testing.assert_allclose(mixed, 0.6 * digit + 0.8 * noise, atol=1e-6)
    assert abs(noise.mean()) < 0.3
    assert noise.std() == pytest.approx(1, abs=0.2)


def test_along_the_way_each_schedule_goes_from_the_digit_to_its_end(both):
    drawn = np.array(figures.along_the_way(both, columns=5).axes).reshape(2, 5)
    assert [axes.get_ylabel() for axes in drawn[:, 0]] == list(both)
    assert [axes.get_title() for axes in drawn[0]] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    for row, schedule in zip(drawn, both.values(), strict=True):
        for axes, alpha_bar in ((row[0], 1.0), (row[2], schedule.alphas_cumprod[49])):
            shown = axes.images[0].get_array()
            np.testing.assert_allclose(
                shown, figures.noised_companion(alpha_bar)[..., 0], atol=1e-6
            )
            assert gauge(axes) == pytest.approx(np.sqrt(alpha_bar))


def test_of_the_strips_only_b_gains_signal():
    drawn = np.array(figures.strips().axes).reshape(4, 5)
    assert [axes.get_ylabel() for axes in drawn[:, 0]] == list("abcd")
    shown = drawn[1, 3].images[0].get_array()
    np.testing.assert_allclose(shown, figures.noised_companion(0.75)[..., 0], atol=1e-6)
    gains = {letter: max(np.diff(shares)) > 0 for letter, shares in figures.STRIPS.items()}
    assert [letter for letter, gain in gains.items() if gain] == [ask.solution_impossible_strip]


def test_small_and_large_shows_three_pictures():
    small, noisy = figures.noised_companion(0.1), np.zeros((64, 64, 1))
    figure = figures.small_and_large(0.1, noisy, np.zeros((8, 8, 1)))
    shapes = [axes.images[0].get_array().shape for axes in figure.axes]
    assert shapes == [(8, 8), (64, 64), (8, 8)]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), small[..., 0], atol=1e-6)


# -- one dimension -------------------------------------------------------------------------------


def test_ends_draw_the_digit_and_the_world_at_the_last_step(both):
    drawn = np.array(figures.ends(both).axes).reshape(2, 2)
    assert [axes.get_title() for axes in drawn[0]] == list(both)
    alpha_bar = both["cosine"].alphas_cumprod[-1]
    shown = drawn[0, 1].images[0].get_array()
    np.testing.assert_allclose(shown, figures.noised_companion(alpha_bar)[..., 0], atol=1e-6)
    assert gauge(drawn[0, 1]) == pytest.approx(np.sqrt(alpha_bar))
    x, y = drawn[1, 1].lines[0].get_data()
    np.testing.assert_allclose(y, ONE_DIMENSIONAL_WORLD.noised(alpha_bar).pdf(x))
    assert len(drawn[1, 1].collections) == 1


def test_the_ruler_has_a_tick_for_every_twentieth_step():
    schedules = {name: NoiseSchedule(make_betas(name, 100)) for name in ("linear", "cosine")}
    above, below = figures.steps_on_the_ruler([5.0, 0.0, -5.0], [0.1, 0.6, 1.0], schedules).axes
    np.testing.assert_allclose(above.lines[0].get_data(), [[5.0, 0.0, -5.0], [0.1, 0.6, 1.0]])
    for line, schedule in zip(below.lines, schedules.values(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), schedule.log_snr[::20])
    left, right = below.get_xlim()
    assert left > right  # images on the left, as everywhere


def test_the_shares_of_the_heaps_stand_side_by_side():
    shares = {"the world": [0.5, 0.2, 0.3], "drawn": np.array([0.4, 0.2, 0.4])}
    (axes,) = figures.shares_of_heaps(shares).axes
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, [0.5, 0.2, 0.3, 0.4, 0.2, 0.4])
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert np.round(middles).tolist() == [0, 1, 2, 0, 1, 2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(shares)


# -- curves --------------------------------------------------------------------------------------


def test_the_spread_of_the_work_draws_what_it_is_given(both):
    shares = {"linear": [0.9, 0.1], "cosine": [0.9, 0.5]}
    left, right = figures.spread_of_the_work(both, shares).axes
    for line, schedule in zip(left.lines, both.values(), strict=True):
        x, y = line.get_data()
        assert (x[0], x[-1]) == (0.01, 1)
        np.testing.assert_allclose(y, schedule.alphas_cumprod)
    np.testing.assert_allclose(right.lines[1].get_data(), [[0.5, 1.0], [0.9, 0.5]])
    assert {"linear", "cosine"} <= {text.get_text() for text in right.texts}
    styles = {line.get_linestyle() for line in left.lines}
    assert len(styles) == 2  # to be told apart on a grey print


def test_every_schedule_can_be_chosen():
    """But for rectified flow's, which chapter 11 is about."""
    shown = {name for name, _ in figures.KINDS.values()}
    assert shown == set(SCHEDULE_NAMES) - {"straight"}
    for kind in set(figures.KINDS) - {"linear, raw", "linear, scaled"}:
        betas = figures.schedule_of(kind, 40).betas
        np.testing.assert_array_equal(betas, make_betas(kind, 40))


def test_the_family_shows_each_schedule_over_all_others():
    family = {name: NoiseSchedule(make_betas(name, 1000)) for name in SCHEDULE_NAMES[:8]}
    drawn = figures.family(family).axes
    assert [axes.get_title().split("\n")[0] for axes in drawn] == list(family)
    for axes, schedule in zip(drawn, family.values(), strict=True):
        assert axes.get_title().endswith(f"signal left {schedule.signal_left:.2g}")
        *others, own = axes.lines
        assert len(others) == len(family)
        x, y = own.get_data()
        assert (x[0], y[0], x[-1]) == (0, 1, 1)
        np.testing.assert_allclose(y[1:], schedule.alphas_cumprod)
        assert own.get_color() != others[0].get_color()


def test_posterior_tables_draw_the_tables(both):
    left, right = figures.posterior_tables(both["linear"], steps=30).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), both["linear"].betas[:30])
    np.testing.assert_allclose(left.lines[1].get_ydata(), both["linear"].posterior_variance[:30])
    np.testing.assert_allclose(right.lines[0].get_ydata()[0], 1)
    np.testing.assert_allclose(right.lines[1].get_ydata()[0], 0)
