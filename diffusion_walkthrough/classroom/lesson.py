"""The first cell of every notebook: a quiet, repeatable start."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator

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
            sys.stderr.flush()
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

        keras.utils.set_random_seed(seed)
        # The first tensor starts the backend, which has more to say.
        keras.ops.convert_to_numpy(keras.ops.zeros(1))
    random.seed(seed)
    np.set_printoptions(precision=3, suppress=True)
