"""The pictures of chapter 08 show the counted and measured numbers, and change with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from diffusion_walkthrough.classroom.figures import scaling_up as figures
from diffusion_walkthrough.classroom.plots import BLUE, ORANGE, figure_to_array
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.planner.counting import multiply_adds_by_part, operations_per_epoch
from diffusion_walkthrough.planner.machines import MACHINES, find_machine
from diffusion_walkthrough.planner.plan import plan
from diffusion_walkthrough.scaling_up import (
    HalfPrecisionAttention,
    half_precision_attention,
    original_attempt,
)

CIFAR10 = DiffusionParameters.cifar10().unet
SPEED = operations_per_epoch(original_attempt(), 50_000) / (8 * 86_400)
DIGIT = companion_digit()[0].repeat(8, axis=0).repeat(8, axis=1)


def same(one, other) -> bool:
    return np.array_equal(figure_to_array(one), figure_to_array(other))


def test_at_the_attempts_side_stands_the_attempts_network():
    assert figures.at_side(CIFAR10, 256) == original_attempt()
    assert figures.at_side(CIFAR10, 32) == CIFAR10
    assert figures.at_side(CIFAR10, 8).attention_sizes == ()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (8 * 86_400, "8.0 days"),
        (20 * 86_400, "20 days"),
        (26 * 3_600, "26 hours"),
        (3.3 * 3_600, "3.3 hours"),
        (80 * 60, "80 minutes"),
        (90, "1.5 minutes"),
        (89, "89 seconds"),
        (1.254, "1.3 seconds"),
        (0.96, "1.0 seconds"),
        (0.4, "400 ms"),
    ],
)
def test_durations_are_said_in_the_unit_that_fits(seconds, words):
    assert figures.duration(seconds) == words


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (8, ["1.08e+14", "11 minutes"]),
        (32, ["1.87e+15", "3.3 hours"]),
        (256, ["1.10e+17", "8.0 days"]),
    ],
)
def test_the_slider_says_the_operations_and_the_time(side, words):
    figure, caption = figures.epoch_at_side(CIFAR10, side, 50_000, SPEED)
    assert caption.startswith(f"side {side}:")
    assert all(word in caption for word in [*words, "1.6e+11"])
    line, mark = figure.axes[0].lines
    assert list(line.get_xdata()) == list(figures.SIDES)
    assert mark.get_xdata() == [side]
    costs = dict(zip(figures.SIDES, line.get_ydata(), strict=True))
    assert mark.get_ydata() == [costs[side]]
    assert costs[32] == operations_per_epoch(CIFAR10, 50_000)


def test_the_slider_changes_the_picture_and_repeats_itself():
    first, _ = figures.epoch_at_side(CIFAR10, 32, 50_000, SPEED)
    again, _ = figures.epoch_at_side(CIFAR10, 32, 50_000, SPEED)
    other, _ = figures.epoch_at_side(CIFAR10, 64, 50_000, SPEED)
    assert same(first, again)
    assert not same(first, other)


def test_the_shares_of_the_parts_sum_to_a_hundred():
    work = multiply_adds_by_part(CIFAR10)
    figure = figures.shares_of_parts({"work": work, "one": {"a": 1, "b": 3}})
    first, second = figure.axes
    widths = [bar.get_width() for bar in first.patches]
    assert sum(widths) == pytest.approx(100)
    assert widths[2] == pytest.approx(100 * work["down 32"] / sum(work.values()))
    assert [label.get_text() for label in first.get_yticklabels()] == list(work)
    assert [bar.get_width() for bar in second.patches] == [25, 75]
    assert [axes.get_title() for axes in figure.axes] == ["work", "one"]


def test_the_ruler_has_each_mark_at_its_number_and_float16_between_its_ends():
    figure = figures.ruler({"far": 3e5, "near": 2.0})
    axis = figure.axes[0]
    marked = sorted(line.get_xdata()[0] for line in axis.lines)
    assert marked == [2.0, 3e5]
    words = {text.get_text(): getattr(text, "xy", (1,))[0] for text in axis.texts}
    assert (words["far"], words["near"]) == (3e5, 2.0)
    (band,) = axis.patches
    left, right = band.get_extents().transformed(axis.transData.inverted()).intervalx
    assert (left, right) == pytest.approx((2.0**-24, 65_504), rel=1e-3)
    low, high = axis.get_xlim()
    assert low < 2.0**-24 < 3e5 < high


def weights_with_a_lost_row():
    weights = np.full((1, 4, 4), 0.25, np.float16)
    weights[0, 2] = np.nan
    weights[0, 0] = [1, 0, 0, 0]
    return HalfPrecisionAttention(weights, weights, weights)


def test_lost_rows_are_orange_and_large_weights_are_white():
    figure = figures.weight_maps([weights_with_a_lost_row()], ["title"])
    assert [axes.get_title() for axes in figure.axes] == ["title"]
    (image,) = figure.axes[0].images
    colours = image.to_rgba(image.get_array(), bytes=True)[..., :3]
    orange = tuple(int(ORANGE[i : i + 2], 16) for i in (1, 3, 5))
    assert (colours[2] == orange).all()
    assert not (colours[[0, 1, 3]] == orange).all(axis=-1).any()
    assert (colours[0, 0] == 255).all()
    assert (colours[0, 1] == 0).all()
    assert 100 < colours[1, 0, 0] < 150  # a quarter, shown as its root


def test_the_attention_slider_says_what_was_measured():
    _, caption = figures.attention_at(DIGIT, 255)
    measured = half_precision_attention((DIGIT[None] + 1) * 127.5, seed=1)
    lost = round(64 * measured.lost)
    assert lost > 5
    assert f"largest score is {measured.largest_score:.1e}" in caption
    assert f"{lost} of 64 pixels lost to NaN" in caption
    assert f"the others give {measured.largest_weight:.0%} to one pixel" in caption


def test_the_attention_slider_changes_with_each_control_and_repeats_itself():
    first, caption = figures.attention_at(DIGIT, 16)
    again, same_caption = figures.attention_at(DIGIT, 16)
    assert same(first, again)
    assert caption == same_caption
    assert "0 of 64 pixels lost" in caption
    for other in [
        figures.attention_at(DIGIT, 255),
        figures.attention_at(DIGIT, 16, normalized=True),
        figures.attention_at(DIGIT, 16, scaled=True),
    ]:
        assert not same(first, other[0])
        assert other[1] != caption


def test_the_attention_slider_works_when_all_is_lost():
    _, caption = figures.attention_at(-DIGIT, 5000, seed=0)  # white paper, absurdly bright
    assert "64 of 64 pixels lost to NaN" in caption
    assert "nan" not in caption
    _, caption = figures.attention_at(DIGIT, 1e-3)
    assert "0 of 64 pixels lost" in caption


def test_gradients_are_counted_as_they_are_and_where_the_scale_moves_them():
    exact = np.array([1e-8, -1e-8, 2e-8, 0.0, 1e-3])
    in_float16 = np.array([0, 0, 0, 0, 1e-3])
    figure = figures.gradients(exact, in_float16, loss_scale=1000)
    axis = figure.axes[0]
    assert "80%" in axis.get_title()
    bars = {"orange": [], "blue": []}
    for patch in axis.patches[1:]:
        if patch.get_height():
            colour = "orange" if patch.get_facecolor()[0] > 0.5 else "blue"
            bars[colour].append((patch.get_x(), patch.get_width(), patch.get_height()))
    assert sum(height for *_, height in bars["orange"]) == 4  # a gradient of 0 has no size
    for x, width, height in bars["orange"]:
        shifted = [h for left, w, h in bars["blue"] if left < 1000 * (x + width / 2) < left + w]
        assert shifted == [height]
    assert BLUE[1:3] == "00"  # how the two were told apart


# --- the plan -----------------------------------------------------------------------------------

PAPERS = figures.NETWORKS["CIFAR-10"][0]


def test_the_menu_offers_the_published_runs():
    assert DiffusionParameters.cifar10() == PAPERS
    for name, (run, images) in figures.NETWORKS.items():
        words = figures.plan_of(name, "H200")[1]
        assert words == figures.plan_in_words(plan(run, device="H200", images=images))


def test_the_plan_says_what_the_plan_says():
    _, words = figures.plan_of("CIFAR-10", "RTX 2060 SUPER", 128)
    planned = plan(PAPERS, device="RTX 2060 SUPER")
    assert f"{planned.memory.total / 1e9:.1f} GB of 7.4: does not fit." in words
    assert f"An epoch takes {figures.duration(planned.seconds_per_epoch)}." in words
    assert planned.remedies
    assert all(remedy.words in words for remedy in planned.remedies)


def test_in_parts_the_same_batch_fits():
    _, words = figures.plan_of("CIFAR-10", "RTX 2060 SUPER", parts=4)
    assert ": fits." in words
    assert "would fit" not in words


def test_more_parts_than_images_are_as_many_as_there_are():
    one_each = figures.plan_of("CIFAR-10", "T4", 8, parts=8)
    too_many = figures.plan_of("CIFAR-10", "T4", 8, parts=64)
    assert one_each[1] == too_many[1]
    assert same(one_each[0], too_many[0])


@pytest.mark.parametrize(
    "changed",
    [
        ("MNIST", "T4", 128, "float32"),
        ("CIFAR-10", "K80", 128, "float32"),
        ("CIFAR-10", "T4", 64, "float32"),
        ("CIFAR-10", "T4", 128, "mixed_float16"),
        ("CIFAR-10", "T4", 128, "float32", 2),
    ],
)
def test_each_control_of_the_plan_changes_the_picture(changed):
    one, again = (figures.plan_of("CIFAR-10", "T4", 128, "float32") for _ in range(2))
    other = figures.plan_of(*changed)
    assert one[1] != other[1]
    assert not same(one[0], other[0])
    assert same(one[0], again[0])


def test_where_nothing_helps_the_words_say_so(monkeypatch):
    tiny = dataclasses.replace(MACHINES["T4"], memory=1e6)
    monkeypatch.setitem(MACHINES, "T4", tiny)
    assert figures.plan_of("CIFAR-10", "T4")[1].endswith("nothing that was tried.")


def test_the_bar_ends_where_the_memory_does():
    planned = plan(PAPERS, device="T4")
    (axis,) = figures.memory_bar(planned).axes
    ends = [bar.get_x() + bar.get_width() for bar in axis.patches]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(planned.memory.total / 1e9)
    assert axis.lines[0].get_xdata()[0] == pytest.approx(planned.machine.memory / 1e9)


def test_every_device_of_the_menu_can_be_found():
    assert [find_machine(name).name for name in figures.DEVICES] == figures.DEVICES


def test_loss_curves_are_the_losses():
    (axis,) = figures.loss_curves({"float32": [1.0, 0.5], "half": [1.0, 0.6]}).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[1.0, 0.5], [1.0, 0.6]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["float32", "half"]
