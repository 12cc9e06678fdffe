"""Several devices and several processes: the same losses as on one, and no waiting for the dead.

Devices are chosen before a backend starts, so that every case is a process of its own; run by
``make distributed``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
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


# Several processes -------------------------------------------------------------------------------


def start_workers(folders: list[Path], *options: object) -> list[subprocess.Popen]:
    """Start a worker for each folder; they find each other at free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in folders]
    addresses = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for s in sockets:
        s.close()
    return [start("worker.py", i, addresses, f, *options) for i, f in enumerate(folders)]


def answers(running: list[subprocess.Popen]) -> list[dict]:
    """Wait for all; if one fails, end the others, which would wait for it."""
    try:
        return [answer(process) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def wait_for(condition, running: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        ended = [process for process in running if process.poll() is not None]
        assert not ended, ended[0].communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """A run of one worker, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    return {**answers(start_workers([folder], "resume", 0))[0], "folder": folder}


@needs_tensorflow
def test_workers_share_each_epoch_without_being_seeded(tmp_path):
    """Every image once, by one of the two, in another order in each epoch."""
    first, second = answers(start_workers([tmp_path] * 2))
    for ours, theirs in zip(first["seen"], second["seen"], strict=True):
        assert sorted(ours + theirs) == list(range(250))
        assert abs(len(ours) - len(theirs)) <= 1
    assert first["seen"][0] != first["seen"][1]
    assert first["history"] == second["history"]
    assert first["weights"] == second["weights"]


@needs_tensorflow
def test_two_workers_take_the_steps_of_one_although_one_of_them_dies(tmp_path, alone):
    """Killed after an epoch; the other one ends by itself; started again, they go on."""
    running = start_workers([tmp_path] * 2, "resume", 1)
    wait_for((tmp_path / "checkpoint-000001-00000000.npz").exists, running)
    running[1].send_signal(signal.SIGKILL)
    output, errors = running[0].communicate(timeout=60)
    assert (running[0].returncode, output) == (1, "")
    assert "UnavailableError" in errors
    running[1].communicate()
    assert not list(tmp_path.glob("*-000003-*"))
    first, second = answers(start_workers([tmp_path] * 2, "resume", 0))
    assert len(first["seen"]) == len(second["seen"]) < 3
    assert sorted(first["seen"][-1] + second["seen"][-1]) == sorted(alone["seen"][-1])
    assert first["history"] == second["history"]
    for name, values in alone["history"].items():
        assert first["history"][name] == pytest.approx(values, rel=2e-4), name
    assert first["weights"] == pytest.approx(alone["weights"], rel=2e-4, abs=1e-5)


@needs_tensorflow
def test_workers_that_do_not_see_the_same_checkpoints_say_so(tmp_path, alone):
    for process in start_workers([alone["folder"], tmp_path], "resume", 0):
        _, errors = process.communicate(timeout=DEADLINE)
        assert "(worker 0: epoch 3, step 0; worker 1: epoch 0, step 0)" in errors
