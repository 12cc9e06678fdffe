"""Pictures of chapter 02: captions say the right numbers, pictures follow their controls."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom import plots
from diffusion_walkthrough.classroom.figures import noise_schedule as figures
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.parameters import SCHEDULE_NAMES

picture = plots.figure_to_array


@pytest.fixture(scope="module")
def both():
    return {name: NoiseSchedule(make_betas(name, 100)) for name in ("linear", "cosine")}


# -- the slider ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "timesteps", "left", "verdict"),
    [
        ("linear, raw", 10, "0.95", "not noise"),
        ("linear, raw", 300, "0.22", "not noise"),
        ("linear, raw", 500, "0.08", "A trace"),
        ("linear, raw", 1000, "0.0064", "As good as pure noise"),
        ("linear, scaled", 300, "0.0059", "As good as pure noise"),
        ("cosine", 1000, "4.9e-05", "As good as pure noise"),
        ("quad", 1000, "0.027", "A trace"),
        ("jsd", 50, "0", "As good as pure noise"),
    ],
)
def test_caption_says_the_signal_left(kind, timesteps, left, verdict):
    figure, caption = figures.schedule_at(kind, timesteps)
    assert caption.startswith(f"{kind}, T = {timesteps}: signal left at T {left}. ")
    assert verdict in caption
    gauge = figure.axes[1]
    assert gauge.get_title() == f"signal left: {left}"
    expected = figures.schedule_of(kind, timesteps).signal_left
    assert gauge.patches[-1].get_height() == pytest.approx(max(expected, 1e-5))


def test_the_curve_is_the_factor_of_the_digit_from_1_on():
    figure, _ = figures.schedule_at("cosine", 20)
    x, y = figure.axes[0].lines[0].get_data()
    assert (x[0], y[0], x[-1]) == (0, 1, 1)
    np.testing.assert_allclose(y[1:], figures.schedule_of("cosine", 20).sqrt_alphas_cumprod)


def test_the_picture_follows_each_control_and_repeats_itself():
    first = picture(figures.schedule_at("linear, raw", 50)[0])
    np.testing.assert_array_equal(first, picture(figures.schedule_at("linear, raw", 50)[0]))
    assert (first != picture(figures.schedule_at("linear, raw", 100)[0])).any()
    assert (first != picture(figures.schedule_at("cosine", 50)[0])).any()


@pytest.mark.parametrize("kind", figures.KINDS)
@pytest.mark.parametrize("timesteps", [1, 2, 4000])
def test_extremes_can_be_drawn(kind, timesteps):
    figure, caption = figures.schedule_at(kind, timesteps)
    assert picture(figure).ndim == 3
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


def test_last_steps_show_each_schedule_under_its_name(both):
    drawn = figures.last_steps(both).axes
    assert [axes.get_title() for axes in drawn] == ["linear", "cosine"]
    for axes, schedule in zip(drawn, both.values(), strict=True):
        shown = axes.images[0].get_array()
        expected = figures.noised_companion(schedule.alphas_cumprod[-1])[..., 0]
        np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_the_grid_has_a_row_for_each_kind_and_a_column_for_each_number_of_steps():
    drawn = np.array(figures.last_steps_grid((10, 50)).axes).reshape(3, 2)
    assert [axes.get_ylabel() for axes in drawn[:, 0]] == [
        "linear, raw",
        "linear, scaled",
        "cosine",
    ]
    assert [axes.get_title() for axes in drawn[0]] == ["T = 10", "T = 50"]
    shown = drawn[0, 1].images[0].get_array()
    alpha_bar = figures.schedule_of("linear, raw", 50).alphas_cumprod[-1]
    np.testing.assert_allclose(shown, figures.noised_companion(alpha_bar)[..., 0], atol=1e-6)


def test_small_and_large_shows_three_pictures():
    small, noisy = figures.noised_companion(0.1), np.zeros((64, 64, 1))
    figure = figures.small_and_large(0.1, noisy, np.zeros((8, 8, 1)))
    shapes = [axes.images[0].get_array().shape for axes in figure.axes]
    assert shapes == [(8, 8), (64, 64), (8, 8)]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), small[..., 0], atol=1e-6)


# -- one dimension -------------------------------------------------------------------------------


def test_ends_against_the_bell_draws_both(both):
    drawn = figures.ends_against_the_bell(both).axes
    assert [axes.get_title() for axes in drawn] == list(both)
    x, y = drawn[1].lines[0].get_data()
    end = ONE_DIMENSIONAL_WORLD.noised(both["cosine"].alphas_cumprod[-1])
    np.testing.assert_allclose(y, end.pdf(x))
    assert len(drawn[1].collections) == 1


# -- curves --------------------------------------------------------------------------------------


def test_two_views_show_alpha_bar_and_log_snr(both):
    left, right = figures.two_views(both).axes
    for line, schedule in zip(left.lines, both.values(), strict=True):
        x, y = line.get_data()
        assert (x[0], x[-1]) == (0.01, 1)
        np.testing.assert_allclose(y, schedule.alphas_cumprod)
    np.testing.assert_allclose(right.lines[1].get_ydata(), both["cosine"].log_snr)
    styles = {line.get_linestyle() for line in left.lines}
    assert len(styles) == 2  # to be told apart on a grey print


def test_every_schedule_can_be_chosen():
    assert {name for name, _ in figures.KINDS.values()} == set(SCHEDULE_NAMES)
    for kind in set(figures.KINDS) - {"linear, raw", "linear, scaled"}:
        betas = figures.schedule_of(kind, 40).betas
        np.testing.assert_array_equal(betas, make_betas(kind, 40))


def test_the_family_shows_each_schedule_over_all_others():
    family = {name: NoiseSchedule(make_betas(name, 1000)) for name in SCHEDULE_NAMES}
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


def test_worth_of_steps_draws_what_it_is_given():
    left, right = figures.worth_of_steps({"a": [0.1, 0.5]}, {"a": [1.0, 0.2], "b": [1.0, 0.9]}).axes
    np.testing.assert_allclose(left.lines[0].get_data(), [[0.5, 1.0], [0.1, 0.5]])
    np.testing.assert_allclose(right.lines[1].get_ydata(), [1.0, 0.9])
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["a", "b"]


def test_posterior_tables_draw_the_tables(both):
    left, right = figures.posterior_tables(both["linear"], steps=30).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), both["linear"].betas[:30])
    np.testing.assert_allclose(left.lines[1].get_ydata(), both["linear"].posterior_variance[:30])
    np.testing.assert_allclose(right.lines[0].get_ydata()[0], 1)
    np.testing.assert_allclose(right.lines[1].get_ydata()[0], 0)
