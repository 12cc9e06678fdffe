"""Cores that work side by side give the answers of one, and TensorFlow is told to let them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from pocket import pocket_network
from tiny import TINY

from diffusion_walkthrough.engine import cores
from diffusion_walkthrough.engine.cores import (
    MOST_SHARES,
    keep_freed_memory,
    keep_operations_on_one_core,
    share_count,
    side_by_side,
)

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow alone works in shares"
)


@pytest.fixture(scope="module")
def network():
    network = pocket_network()
    rng = np.random.default_rng(0)
    network.set_weights([0.2 * rng.standard_normal(w.shape) for w in network.weights])
    return network


def question(batch: int):
    rng = np.random.default_rng(batch)
    x = rng.standard_normal((batch, *TINY.unet.image_shape)).astype("float32")
    return x, rng.integers(0, 10, batch).astype("float32")


@on_tensorflow
@pytest.mark.parametrize("shares", [2, 3])
def test_each_image_gets_its_own_answer_whatever_the_batch(network, monkeypatch, shares):
    import tensorflow as tf

    monkeypatch.setattr(cores, "share_count", lambda: shares)
    ask = tf.function(side_by_side(network), reduce_retracing=True, autograph=False)
    for batch in (1, 2, 3, 5, 8):
        x, t = question(batch)
        found = ops.convert_to_numpy(ask(x, t))
        expected = ops.convert_to_numpy(network([x, t]))
        assert expected.std() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@on_tensorflow
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_the_gradient_is_that_of_the_whole_batch(monkeypatch, batch):
    """What is answered twice and left out counts once."""
    import tensorflow as tf

    network = pocket_network()
    monkeypatch.setattr(cores, "share_count", lambda: 2)
    weights = [v.value for v in network.trainable_variables]
    ask = side_by_side(network)
    x, t = question(batch)

    @tf.function(autograph=False)  # which would read the source of what is called anew
    def gradients(x, t, whole):
        with tf.GradientTape() as tape:
            answer = network([x, t], training=False) if whole else ask(x, t)
            loss = tf.reduce_mean(answer**2)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]

    for found, expected in zip(gradients(x, t, False), gradients(x, t, True), strict=True):
        scale = np.abs(expected).max() + 1e-3
        np.testing.assert_allclose(found, expected, atol=1e-4 * scale)


@on_tensorflow
def test_each_share_has_dropout_of_its_own(monkeypatch):
    """Two halves of alike images, masked alike, would be half as much to learn from."""
    import tensorflow as tf

    monkeypatch.setattr(cores, "share_count", lambda: 2)
    unet = dataclasses.replace(TINY.unet, dropout=0.5)
    network = pocket_network(dataclasses.replace(TINY, unet=unet))
    ask = tf.function(side_by_side(network), autograph=False)
    x, t = question(1)
    x, t = np.repeat(x, 4, axis=0), np.repeat(t, 4)
    first, second = np.split(ask(x, t, training=True).numpy(), 2)
    assert np.abs(first - second).max() > 0.1
    again = ask(x, t, training=True).numpy()
    assert np.abs(again[:2] - first).max() > 0.1


@on_tensorflow
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_no_share_waits_for_another(monkeypatch, dropout):
    """Functions with states of their own, such as those of dropout, would be put in a row."""
    import tensorflow as tf

    monkeypatch.setattr(cores, "share_count", lambda: 2)
    unet = dataclasses.replace(TINY.unet, dropout=dropout)
    ask = side_by_side(pocket_network(dataclasses.replace(TINY, unet=unet)))
    train = tf.function(lambda x, t: ask(x, t, training=True), autograph=False)
    operations = train.get_concrete_function(*question(4)).graph.get_operations()
    calls = [op for op in operations if "PartitionedCall" in op.type]
    assert len(calls) == (0 if dropout else 2)
    assert not any(before in calls for op in calls for before in op.control_inputs)
    products = [op for op in operations if op.type == "MatMul"]
    assert len(products) == (2 * 2 if dropout else 0)
    assert not any(op.control_inputs for op in products)


@on_tensorflow
def test_the_network_is_written_down_once_for_all_shares(monkeypatch):
    import tensorflow as tf

    network = pocket_network()
    monkeypatch.setattr(cores, "share_count", lambda: 4)
    traces = []
    call = type(network).call

    def counted(self, *arguments, **options):
        traces.append(1)
        return call(self, *arguments, **options)

    monkeypatch.setattr(type(network), "call", counted)
    shapes = (None, *TINY.unet.image_shape), (None,)
    specs = [tf.TensorSpec(*spec) for spec in zip(shapes, ("float32", "float32"), strict=True)]
    ask = tf.function(side_by_side(network), input_signature=specs, autograph=False)
    for batch in (4, 7):
        ask(*question(batch))
    assert len(traces) == 1


def test_what_is_not_written_down_is_asked_in_one_piece(network):
    x, t = question(3)
    found = ops.convert_to_numpy(side_by_side(network)(x, t))
    np.testing.assert_array_equal(found, ops.convert_to_numpy(network([x, t])))


def test_there_are_as_many_shares_as_cores(monkeypatch):
    in_shares = keras.backend.backend() == "tensorflow"
    for count, expected in ((1, 1), (2, 2), (4, 4), (64, MOST_SHARES)):
        monkeypatch.setattr(cores, "core_count", lambda count=count: count)
        assert share_count() == (expected if in_shares else 1)


@on_tensorflow
def test_replicas_divide_the_cores_among_them(monkeypatch):
    import tensorflow as tf

    class Strategy:
        num_replicas_in_sync = 2

    monkeypatch.setattr(cores, "core_count", lambda: 4)
    assert share_count() == 4
    monkeypatch.setattr(tf.distribute, "get_strategy", Strategy)
    assert share_count() == 2
    Strategy.num_replicas_in_sync = 8
    assert share_count() == 1


THREADS = """
import tensorflow as tf
{before}
import diffusion_walkthrough.training
tf.zeros(1)
print(tf.config.threading.get_intra_op_parallelism_threads())
"""
#: On a machine of few cores one.
THREADS_EACH = max(cores.core_count() // MOST_SHARES, 1)


@on_tensorflow
@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", THREADS_EACH),
        ("tf.zeros(1)  # TensorFlow is at work already", 0),
        ("from diffusion_walkthrough.classroom import start; start()", THREADS_EACH),
    ],
    ids=["nobody chose", "too late", "a notebook"],
)
def test_operations_stay_on_one_core(before, expected):
    clean = {k: v for k, v in os.environ.items() if k != "TF_NUM_INTRAOP_THREADS"}
    program = [sys.executable, "-c", THREADS.format(before=before)]
    done = subprocess.run(program, env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected)]


@on_tensorflow
@pytest.mark.parametrize(
    ("in_python", "outside", "expected"),
    [(0, None, [THREADS_EACH]), (3, None, []), (0, "2", [])],
    ids=["nobody chose", "chosen in Python", "chosen outside"],
)
def test_what_somebody_chose_stays(in_python, outside, expected, monkeypatch):
    import tensorflow as tf

    told: list[int] = []
    threading = tf.config.threading
    monkeypatch.setattr(threading, "get_intra_op_parallelism_threads", lambda: in_python)
    monkeypatch.setattr(threading, "set_intra_op_parallelism_threads", told.append)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if outside:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", outside)
    keep_operations_on_one_core()
    assert told == expected


CHURN = """
import resource
import threading
import numpy as np
import diffusion_walkthrough.training

def fresh_pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    blocks = [np.ones(12_500) for _ in range(500)]  # 50 MB in small blocks, given back at once
    del blocks
    for _ in range(5):
        before = fresh_pages()
        blocks = [np.ones(12_500) for _ in range(500)]
        del blocks
        print(fresh_pages() - before)

thread = threading.Thread(target=work)  # whose heap is its own, as that of TensorFlow's threads
thread.start()
thread.join()
"""


@on_tensorflow
@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is that of the GNU C library")
def test_freed_memory_is_used_again():
    """Without a word to the allocator thousands of pages come anew from the system each time."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    program = [sys.executable, "-c", CHURN]
    done = subprocess.run(program, env=clean, capture_output=True, text=True, check=True)
    assert max(map(int, done.stdout.split())) < 500


@pytest.fixture
def nobody_chose(monkeypatch):
    """Nothing about the allocator in the environment."""
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)


class Allocator:
    """A C library that writes down what it is told."""

    def __init__(self, name=None):
        self.told = {}

    def mallopt(self, parameter, number):
        self.told[parameter] = number


@on_tensorflow
@pytest.mark.parametrize(
    ("platform", "outside", "expected"),
    [
        ("linux", None, cores.KEPT_MEMORY),
        ("linux", "MALLOC_TOP_PAD_", {}),
        ("linux", "GLIBC_TUNABLES", {}),
        ("darwin", None, {}),
    ],
)
def test_the_allocator_is_told_where_nobody_else_has(
    platform, outside, expected, nobody_chose, monkeypatch
):
    library = Allocator()
    monkeypatch.setattr(cores.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(cores.sys, "platform", platform)
    if outside:
        monkeypatch.setenv(outside, "1")
    keep_freed_memory()
    assert library.told == expected


@on_tensorflow
def test_a_c_library_without_such_a_choice_is_left_alone(nobody_chose, monkeypatch):
    asked = []

    class Other:
        def __getattr__(self, name):
            asked.append(name)
            raise AttributeError(name)

    monkeypatch.setattr(cores.ctypes, "CDLL", lambda name: Other())
    monkeypatch.setattr(cores.sys, "platform", "linux")
    keep_freed_memory()
    assert asked == ["mallopt"]
