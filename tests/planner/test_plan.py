"""Plans: counts against networks that were built, laws of memory and time, remedies that fit."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from tiny import TINY

from diffusion_walkthrough.parameters import DiffusionParameters, TrainingParameters
from diffusion_walkthrough.planner import plan as planning
from diffusion_walkthrough.planner.counting import operations_per_epoch
from diffusion_walkthrough.planner.machines import GB, MACHINES, Machine
from diffusion_walkthrough.planner.plan import activation_bytes, count_variables, memory, plan
from diffusion_walkthrough.unet import build_unet

ROOT = Path(__file__).resolve().parents[2]
BACKEND = keras.backend.backend()
DIGITS, MNIST, CIFAR10, FACES = (
    DiffusionParameters.digits(),
    DiffusionParameters.mnist(),
    DiffusionParameters.cifar10(),
    DiffusionParameters.celeba_hq_256(),
)
PRESETS = [DIGITS, MNIST, CIFAR10, FACES]


def trained_with(run, **changes):
    return dataclasses.replace(run, training=dataclasses.replace(run.training, **changes))


# --- counts -------------------------------------------------------------------------------------


def test_the_published_numbers():
    planned = plan(CIFAR10, device="T4")
    assert planned.parameters == 35_746_307
    assert planned.operations_per_step == 128 * 6 * 6_221_856_768
    assert planned.operations_per_epoch == operations_per_epoch(CIFAR10.unet, 50_000)
    assert plan(FACES, device="T4").parameters == 113_673_219


@pytest.mark.parametrize(
    "run", [TINY, DIGITS, dataclasses.replace(TINY, variance="learned", loss="kl")]
)
def test_parameters_and_variables_are_those_of_the_network(run):
    network = build_unet(run.unet, run.variance == "learned")
    assert plan(run, device="T4").parameters == network.count_params()
    assert count_variables(run) == len(network.trainable_variables)


def test_an_epoch_is_as_many_steps_as_there_are_batches():
    planned = plan(DIGITS, device="i5-5300U", images=1280)
    assert planned.seconds_per_epoch == pytest.approx(10 * planned.seconds_per_step)


# --- memory -------------------------------------------------------------------------------------


def test_what_a_block_keeps_counted_by_hand():
    """A block of 8 channels on 8×8 pixels: its input normalized and bent, and so on."""
    pixels, width = 64, 8
    convolution = pixels * width  # the first one's result, which the first block normalizes
    block = 6 * pixels * width  # normalized, bent, convolved; normalized, bent, convolved
    attention = 8 * pixels * width + pixels**2
    wide = 2 * pixels * 16 + 16 * pixels + 4 * pixels * width  # two results joined, on the way up
    last = 2 * pixels * width + pixels * 1  # normalized, bent, and the answer
    time = 2 * 4 * width
    numbers = time + convolution + block + 2 * block + attention + 2 * wide + last
    assert activation_bytes(TINY) == 4 * numbers


@pytest.mark.parametrize("run", PRESETS)
def test_memory_grows_with_the_batch_and_by_activations_only(run):
    small, large = (memory(trained_with(run, batch_size=size)) for size in (8, 24))
    assert large.activations == pytest.approx(3 * small.activations)
    assert large.total - small.total == pytest.approx(16 * activation_bytes(run))


@pytest.mark.parametrize("run", PRESETS)
def test_a_step_in_parts_keeps_one_part_and_the_sum_of_the_gradients(run):
    whole = memory(trained_with(run, batch_size=64))
    parts = memory(trained_with(run, batch_size=64, gradient_accumulation_steps=8))
    assert parts.activations == pytest.approx(whole.activations / 8)
    assert parts.training_state - whole.training_state == whole.weights


def test_the_average_of_the_weights_is_one_more_copy():
    averaged, without = (memory(trained_with(MNIST, ema_momentum=share)) for share in (0.99, None))
    assert averaged.training_state - without.training_state == without.weights


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("run", PRESETS)
def test_half_precision_keeps_less_but_not_half(run, precision):
    """Weights stay in 32 bits, and so do normalizations and the softmax."""
    full, half = memory(run), memory(trained_with(run, precision=precision))
    assert 0.5 * full.activations < half.activations < 0.85 * full.activations
    assert half.weights == full.weights


def test_dropout_keeps_a_mask():
    dropped = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, dropout=0.1))
    assert activation_bytes(dropped) - activation_bytes(TINY) == 5 * 64 * 8  # a byte a number


def test_a_cards_memory_does_not_hold_the_program():
    on_card, here = memory(CIFAR10, on_card=True), memory(CIFAR10)
    assert on_card.program < here.program
    assert on_card.activations == here.activations


MEASURED = """
import json, resource, sys
import numpy as np
from diffusion_walkthrough.training import DiffusionModel
sys.path.insert(0, "tests")
from tiny import TINY
model = DiffusionModel(TINY, seed=0)
model.compile()
batch = int(sys.argv[1])
model.fit(np.zeros((2 * batch, 8, 8, 1), "float32"), batch_size=batch, verbose=0)
if sys.platform == "linux":  # whose ru_maxrss begins with that of the process that started it
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(1024 * int(status["VmHWM"].split()[0]))
else:
    unit = 1 if sys.platform == "darwin" else 1024
    print(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the program's share is TensorFlow's")
@pytest.mark.skipif(sys.platform == "win32", reason="asks the system as Unix answers")
def test_memory_against_two_fresh_processes():
    """Wide bounds; benchmarks/plan.py has the table.

    With oneDNN, as is usual: TensorFlow's own convolutions need half as much again to work in.
    """
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"}
    batches = (16, 4096)
    found = []
    for batch in batches:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(batch)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(float(done.stdout.splitlines()[-1]))
    expected = [memory(trained_with(TINY, batch_size=batch)).total for batch in batches]
    assert expected == pytest.approx(found, rel=0.3)
    assert expected[1] - expected[0] == pytest.approx(found[1] - found[0], rel=0.35)


# --- time ---------------------------------------------------------------------------------------


def test_time_grows_with_the_batch():
    for device in MACHINES:
        times = [plan(MNIST, batch_size=b, device=device).seconds_per_step for b in (16, 32, 64)]
        assert times == sorted(times)
        assert times[2] < 4 * times[0] + 1e-9


def test_a_step_on_a_named_machine_takes_its_operations_at_the_assumed_speed_and_no_less():
    """On a card as fast as the H200, memory and starting the work take longer than arithmetic."""
    for machine in MACHINES.values():
        planned = plan(CIFAR10, device=machine.name)
        arithmetic = planned.operations_per_step / (machine.peak["float32"] * machine.efficiency)
        most = 3 if machine.name == "H200" else 2
        assert arithmetic < planned.seconds_per_step < most * arithmetic


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_sixteen_bits_save_memory_but_no_time_where_a_processor_has_no_units_for_them(precision):
    full = plan(CIFAR10, device="i7-10700")
    half = plan(CIFAR10, precision=precision, device="i7-10700")
    assert half.memory.total < full.memory.total
    assert 4 < half.seconds_per_step / full.seconds_per_step < 6


def test_the_attempts_processor_takes_an_afternoon_for_the_papers_epoch():
    """Eight days for 58.9 times the operations were 3.3 hours for these, unoptimized."""
    hours = plan(CIFAR10, device="i7-10700").seconds_per_epoch / 3600
    assert 1 < hours < 3.3


def test_this_machine_is_measured_at_the_shapes_of_the_network(monkeypatch):
    """With a machine that does 1e9 operations a second, arithmetic takes operations / 1e9."""
    asked = []

    def speed(block, embedding_width, groups, dropout, precision):
        asked.append((block.kind, block.side, block.new_width, precision))
        return 1e9

    monkeypatch.setattr(planning, "measured_speed", speed)
    planned = plan(DIGITS, batch_size=1000, precision="mixed_bfloat16")
    expected = planned.operations_per_step / 1e9
    assert planned.seconds_per_step == pytest.approx(expected, rel=0.05)
    assert set(asked) == {
        ("residual", 8, 16, "mixed_bfloat16"),
        ("residual", 4, 48, "mixed_bfloat16"),
    }


# --- what would make it fit ---------------------------------------------------------------------


def small_machine(gigabytes):
    return Machine("small", gigabytes * GB, {"float32": 1e12, "mixed_bfloat16": 1e12,
                   "mixed_float16": 1e12}, 0.5, 50 * GB, is_card=True)  # fmt: skip


@pytest.mark.parametrize("gigabytes", [1.2, 2, 3, 5, 8])
@pytest.mark.parametrize("run", [MNIST, CIFAR10, FACES])
def test_every_remedy_was_planned_and_fits(monkeypatch, run, gigabytes):
    monkeypatch.setitem(MACHINES, "small", small_machine(gigabytes))
    planned = plan(run, device="small")
    assert planned.fits == (planned.memory.total <= gigabytes * GB)
    assert not (planned.fits and planned.remedies)
    for remedy in planned.remedies:
        again = plan(remedy.parameters, device="small")
        assert again.fits
        assert again.memory.total == remedy.memory
        assert again.seconds_per_epoch == remedy.seconds_per_epoch
        assert remedy.parameters != run


def test_remedies_are_the_smallest_of_their_kind(monkeypatch):
    monkeypatch.setitem(MACHINES, "small", small_machine(5.5))
    planned = plan(CIFAR10, device="small")
    words = [remedy.words for remedy in planned.remedies]
    assert words[0].startswith("gradient_accumulation_steps=2:")
    assert words[1] == "batch_size=64"
    parts = planned.remedies[0].parameters.training
    assert (parts.batch_size, parts.gradient_accumulation_steps) == (128, 2)
    assert not plan(CIFAR10, batch_size=128, device="small").fits


def test_where_nothing_helps_it_says_so(monkeypatch):
    monkeypatch.setitem(MACHINES, "small", small_machine(0.1))
    planned = plan(CIFAR10, device="small")
    assert planned.remedies == ()
    assert "nothing that was tried makes it fit" in str(planned)


# --- the report, and what cannot be planned -----------------------------------------------------


def test_the_report_says_what_was_counted_and_what_was_guessed():
    planned = plan(CIFAR10, device="RTX 2060 SUPER")
    text = str(planned)
    for piece in (
        "batches of 128 in float32 on RTX 2060 SUPER",
        "35,746,307",
        "4.78e+12 a step, 1.87e+15 an epoch of 50,000 images",
        "DOES NOT FIT",
        "published peak, assumed efficiency",
        "gradient_accumulation_steps=2: 64 images at a time",
    ):
        assert piece in text
    assert max(map(len, text.splitlines())) <= 100
    assert f"{planned.memory.total / GB:.2f} GB of 7.36" in text


def test_the_report_of_a_run_in_parts_that_fits():
    run = trained_with(CIFAR10, gradient_accumulation_steps=4)
    text = str(plan(run, device="T4"))
    assert "batches of 128 in 4 parts of 32" in text
    assert ": fits" in text
    assert "would make it fit" not in text


def test_batch_and_precision_take_the_place_of_the_parameters():
    planned = plan(CIFAR10, 32, "mixed_float16", "T4")
    assert planned.run.training == dataclasses.replace(
        TrainingParameters(), batch_size=32, precision="mixed_float16"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "H20"}, "Did you mean 'H200'?"),
        ({"precision": "float16"}, "precision="),
        ({"batch_size": 0}, "batch_size=0"),
        ({"images": 0}, "images=0"),
    ],
)
def test_what_cannot_be_planned(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        plan(CIFAR10, **{"device": "T4", **options})


def test_a_plan_can_be_written_down():
    text = json.dumps(dataclasses.asdict(plan(DIGITS, device="T4").memory))
    assert json.loads(text)["weights"] == 4 * plan(DIGITS, device="T4").parameters


def test_a_network_that_is_told_labels_is_planned_too():
    told = plan(DiffusionParameters.digits_conditional(), device="T4")
    plain = plan(DiffusionParameters.digits(), device="T4")
    assert told.parameters - plain.parameters == 11 * 4 * 16
    assert told.seconds_per_step > plain.seconds_per_step
