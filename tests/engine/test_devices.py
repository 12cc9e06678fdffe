"""Several devices, and several processes, take the steps of one.

Devices are chosen before a backend starts, so that every case is a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).resolve().parent
#: Seconds after which a run of a few seconds is held to hang.
DEADLINE = 300

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax" or importlib.util.find_spec("jax") is None,
    reason="keras.distribution is for JAX",
)


def start(*command: object, **environment: str) -> subprocess.Popen:
    """Start a Python program of this folder."""
    paths = os.pathsep.join([str(HERE.parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(running: list[subprocess.Popen]) -> list[dict]:
    """Wait for all and read their last lines; if one fails, end those that would wait for it."""
    found = []
    try:
        for process in running:
            output, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0, errors[-3000:]
            found.append(json.loads(output.splitlines()[-1]))
    finally:
        for process in running:
            process.kill()
            process.wait()
    return found


def assert_alike(found: dict, expected: dict, rel: float = 1e-5) -> None:
    """Losses, norms and averaged weights, at the same size of the whole batch."""
    assert set(found) == set(expected) > {"loss", "gradient_norm", "evaluated", "weights"}
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=rel, abs=1e-6), name


@pytest.fixture(scope="module")
def mirrored() -> dict:
    return answers([start("mirrored.py")])[0]


@on_tensorflow
@pytest.mark.parametrize("run", ["plain", "in parts", "float16"])
def test_two_replicas_take_the_steps_of_one(mirrored, run):
    """Clipped by the norm of the whole batch, averaged, added up in parts, behind loss scaling."""
    one, two = mirrored["one"][run], mirrored["two"][run]
    assert (one.pop("replicas"), two.pop("replicas")) == (1, 2)
    assert_alike(two, one, rel=1e-3 if run == "float16" else 1e-5)
    assert one["gradient_norm"][0] > 0.2, "clipping at 0.1 must count"
    assert one["loss"][1] < one["loss"][0]


@on_tensorflow
def test_images_out_of_range_are_refused_on_two_replicas_too(mirrored):
    assert "7" in mirrored["refused"]
    assert "must lie in [-1, 1]" in mirrored["refused"]


@pytest.fixture(scope="module")
def alone() -> dict:
    found = answers([start("on_jax.py", "one")])[0]
    assert found.pop("devices") == 1
    assert found["gradient_norm"][0] > 0.2, "clipping at 0.1 must count"
    return found


@on_jax
def test_two_devices_of_jax_take_the_steps_of_one(alone):
    flags = "--xla_force_host_platform_device_count=2"
    two = answers([start("on_jax.py", "two", XLA_FLAGS=flags)])[0]
    assert two.pop("devices") == 2
    assert_alike(two, alone)


@on_jax
def test_two_processes_take_the_steps_of_one(alone):
    """Each is asked about its part of every batch; they talk over this machine's own address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = answers([start("on_jax.py", "process", number, address) for number in (0, 1)])
    for found in both:
        assert found.pop("devices") == 2
        assert_alike(found, alone)
