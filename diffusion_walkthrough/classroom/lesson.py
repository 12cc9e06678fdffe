"""The first cell of every notebook: a quiet, repeatable start."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np


@contextlib.contextmanager
def quiet_standard_error() -> Iterator[None]:
    """Drop what compiled libraries write to file descriptor 2 while they are imported.

    TensorFlow's start-up lines come from C++ and pass by ``sys.stderr`` and by its own log level.
    An exception still passes through, with its message.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            try:
                sys.stderr.flush()
            finally:
                os.dup2(saved, 2)
                os.close(saved)


def start(seed: int = 0) -> None:
    """Import Keras without noise and fix every random seed, so that the page repeats itself.

    Args:
        seed: for Python, NumPy and Keras.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_standard_error():
        import keras

        from diffusion_walkthrough.engine.cores import prepare_processor

        prepare_processor()
        keras.utils.set_random_seed(seed)
        # The first tensor starts the backend, which has more to say.
        keras.ops.convert_to_numpy(keras.ops.zeros(1))
    random.seed(seed)
    np.set_printoptions(precision=3, suppress=True)


def this_machine(images: np.ndarray) -> str:
    """Say what this machine is, and measure how fast it trains and draws digits.

    Args:
        images: digits to train on for a moment, ``(n, 8, 8, 1)`` in [-1, 1]; the model is thrown
            away afterwards.

    Returns:
        A few lines of text. Takes about 20 seconds on two cores.
    """
    import keras
    import psutil

    from diffusion_walkthrough.parameters import DiffusionParameters
    from diffusion_walkthrough.training import DiffusionModel

    training = DiffusionParameters.digits().training
    model = DiffusionModel(DiffusionParameters.digits())
    model.compile()
    few = images[: 4 * training.batch_size]
    model.fit(few, epochs=1, verbose=0)  # the first call compiles
    step = _seconds(lambda: model.fit(few, epochs=3, verbose=0)) / 12
    model.sample(1)
    drawing = _seconds(lambda: model.sample(64))
    memory = psutil.virtual_memory()
    return (
        f"Keras {keras.__version__} on {keras.backend.backend()}, devices: {devices()}\n"
        f"{os.cpu_count()} processor cores, {memory.total / 1e9:.0f} GB of memory, "
        f"{memory.available / 1e9:.0f} GB of it free\n"
        f"one training step on {training.batch_size} digits: {1000 * step:.0f} ms, so the run of "
        f"chapter 05 takes about {step * (training.decay_steps or 0):.0f} s\n"
        f"drawing 64 digits: {drawing:.1f} s"
    )


def devices() -> str:
    """Name what the backend computes on."""
    import keras

    try:
        return ", ".join(keras.distribution.list_devices()) or "CPU"
    except AttributeError:  # Keras lists the devices of TensorFlow and JAX only
        return str(keras.ops.zeros(1).device)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
