"""Several devices of one machine: the same losses as on one.

Devices are chosen before a backend starts, so that every case is a process of its own; run by
``make distributed``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="tf.distribute is TensorFlow's"
)
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed here"
)
#: Seconds after which a run of a few seconds is held to hang.
DEADLINE = 120


def start(*command: object, **environment: str) -> subprocess.Popen:
    """Start a Python program of this folder."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent.parent)])
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": "tensorflow", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen) -> dict:
    """Wait for a program and read its last line."""
    output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


# Two devices of one machine ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def mirrored() -> dict:
    return answer(start("mirrored.py", "steps", "draws", "guard", "half"))


@needs_tensorflow
def test_two_replicas_take_the_steps_of_one(mirrored):
    """At the same global batch, for the same noise: losses, norms, averages."""
    one, two = mirrored["steps"]["one"], mirrored["steps"]["two"]
    assert set(one) == set(two) > {"loss", "gradient_norm", "evaluated", "weights"}
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=2e-4, abs=1e-5), name
    assert one["gradient_norm"][0] > 0.2, "clipping at 0.1 must count"


@needs_tensorflow
def test_each_replica_draws_its_own_noise_and_the_first_that_of_a_single_device(mirrored):
    drawn = mirrored["draws"]["drawn"]
    assert drawn[0] == mirrored["draws"]["alone"]
    assert min(abs(a - b) for a, b in zip(*drawn, strict=True)) > 1e-3
    assert (mirrored["draws"]["sum"], mirrored["draws"]["count"]) == (3.0, 2)


@needs_tensorflow
def test_the_guard_sees_what_any_replica_saw(mirrored):
    assert "step 3 of epoch 1, at the images" in mirrored["guard"]
    assert "to 7" in mirrored["guard"]


@needs_tensorflow
def test_loss_scaling_works_on_two_replicas(mirrored):
    assert 0 < mirrored["half"]["loss"][1] < mirrored["half"]["loss"][0] < 1.2
    assert mirrored["half"]["scale"] == 2.0**15


@needs_jax
def test_two_devices_of_jax_take_the_steps_of_one():
    """Keras shares out the arrays of one step: even the noise is the same."""
    flags = "--xla_force_host_platform_device_count=2"
    running = [
        start("on_jax.py", name, KERAS_BACKEND="jax", XLA_FLAGS=flags) for name in ("one", "two")
    ]
    one, two = (answer(process) for process in running)
    assert (one.pop("devices"), two.pop("devices")) == (1, 2)
    assert "step 3 of epoch 1, at the images" in one["guard"]
    assert one.pop("guard") == two.pop("guard")
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=2e-4, abs=1e-5), name
