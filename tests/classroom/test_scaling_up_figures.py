"""The pictures of chapters 08 and 08b show what was counted and measured, and change with it."""

from __future__ import annotations

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from diffusion_walkthrough.classroom.figures import scaling_up as figures
from diffusion_walkthrough.classroom.plots import BLUE, ORANGE, figure_to_array
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.planner.counting import multiply_adds_by_part, operations_per_epoch
from diffusion_walkthrough.planner.machines import MACHINES
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


def test_the_bars_are_the_days_of_an_epoch_and_say_them():
    (axis,) = figures.epochs_by_side(CIFAR10, 50_000, SPEED).axes
    days = [bar.get_width() for bar in axis.patches]
    assert days == sorted(days)
    assert days[-1] == pytest.approx(8)
    assert days[2] == pytest.approx(operations_per_epoch(CIFAR10, 50_000) / SPEED / 86_400)
    assert [label.get_text() for label in axis.get_yticklabels()][2] == "32 × 32"
    assert {text.get_text() for text in axis.texts} >= {"11 minutes", "3.3 hours", "8.0 days"}


PHOTOGRAPH = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3)).astype("float32")


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (8, ["1.1e+14", "11 minutes"]),
        (32, ["1.9e+15", "3.3 hours"]),
        (256, ["1.1e+17", "8.0 days"]),
    ],
)
def test_the_slider_says_the_operations_and_the_time(side, words):
    picture, caption = figures.epoch_at_side(CIFAR10, side, 50_000, SPEED, PHOTOGRAPH)
    assert caption.startswith(f"side {side}:")
    assert all(word in caption for word in words)
    assert f"{side} × {side}: {words[1]} ◀" in picture
    bars = [
        float(width)
        for width in re.findall(r'<rect width="([0-9.]+)" height="12" rx="3" fill="#', picture)
    ]
    assert bars == sorted(bars)
    assert bars[-1] == 220
    assert bars[2] == pytest.approx(220 / 58.9, abs=0.1)


def test_the_slider_changes_the_picture_and_repeats_itself():
    first, again, other = (
        figures.epoch_at_side(CIFAR10, side, 50_000, SPEED, PHOTOGRAPH) for side in (32, 32, 64)
    )
    assert first == again
    assert first[0] != other[0]


def test_a_photograph_at_another_side_keeps_its_mean():
    assert (figures.resized(PHOTOGRAPH, 32) == PHOTOGRAPH).all()
    large, small = figures.resized(PHOTOGRAPH, 256), figures.resized(PHOTOGRAPH, 8)
    assert (large.shape, small.shape) == ((256, 256, 3), (8, 8, 3))
    assert (large[4::8, 4::8] == PHOTOGRAPH).all()
    np.testing.assert_allclose(small[1, 2], PHOTOGRAPH[4:8, 8:12].mean((0, 1)), atol=1e-6)


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
    assert first == again
    assert caption == same_caption
    assert "0 of 64 pixels lost" in caption
    for other in [
        figures.attention_at(DIGIT, 255),
        figures.attention_at(DIGIT, 16, normalized=True),
        figures.attention_at(DIGIT, 16, scaled=True),
    ]:
        assert first != other[0]
        assert other[1] != caption


def shown(html):
    """The pictures in some HTML, each as an array of uint8."""
    sources = re.findall(r"base64,([^\"]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def test_the_attention_slider_shows_the_digit_and_lost_rows_in_orange():
    picture, _ = figures.attention_at(DIGIT, 255)
    digit, weights = shown(picture)
    assert digit.shape == (64, 64)
    lost = np.isnan(half_precision_attention((DIGIT[None] + 1) * 127.5, seed=1).weights[0])
    orange = [int(ORANGE[i : i + 2], 16) for i in (1, 3, 5)]
    near = (np.abs(weights.astype(int) - orange) <= 1).all(axis=-1)
    assert (near == lost).all()
    assert lost.any()


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
    said = {text.get_text().strip(): text.get_position()[0] for text in axis.texts}
    assert said["as they are"] < said["loss times\n1,000"]


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
    assert one_each == too_many


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
    assert one[0] != other[0]
    assert one == again


def test_where_nothing_helps_the_words_say_so(monkeypatch):
    tiny = dataclasses.replace(MACHINES["T4"], memory=1e6)
    monkeypatch.setitem(MACHINES, "T4", tiny)
    assert figures.plan_of("CIFAR-10", "T4")[1].endswith("nothing that was tried.")


def test_the_strip_ends_where_the_memory_does_and_says_whether_it_fits():
    for device, verdict in (("T4", "✓ fits"), ("RTX 2060 SUPER", "✗ does not fit")):
        planned = plan(PAPERS, device=device)
        strip = figures.memory_strip(planned, width=500)
        assert strip.count(verdict) == 2  # once for those who cannot see it
        rects = re.findall(r'<rect x="([0-9.]+)" y="\d" width="([0-9.]+)"', strip)
        *parts, end = [(float(x), float(width)) for x, width in rects]
        assert [x for x, _ in parts[1:]] == pytest.approx([sum(p) for p in parts[:-1]], abs=0.2)
        share = sum(parts[-1]) / (end[0] + 2)
        assert share == pytest.approx(planned.memory.total / planned.machine.memory, rel=0.01)
        assert f"activations {planned.memory.activations / 1e9:.2f} GB" in strip


def test_the_shares_of_memory_are_the_plans():
    plans = {device: plan(PAPERS, device=device) for device in ("T4", "i7-10700")}
    (axis,) = figures.memory_shares(plans).axes
    ends = [bar.get_x() + bar.get_width() for bar in axis.patches]
    assert ends[-2:] == pytest.approx([100, 100])
    memory = plans["T4"].memory
    assert axis.patches[0].get_width() == pytest.approx(100 * memory.program / memory.total)
    assert {text.get_text() for text in axis.texts} >= {"activations", "8.4 GB"}


def test_loss_curves_are_the_losses():
    (axis,) = figures.loss_curves({"float32": [1.0, 0.5], "half": [1.0, 0.6]}).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[1.0, 0.5], [1.0, 0.6]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["float32", "half"]
