import os
import random
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from diffusion_walkthrough import classroom
from diffusion_walkthrough.classroom.lesson import devices, quiet_standard_error, start


@pytest.fixture(autouse=True)
def _settings_restored(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    random_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with np.printoptions():
        yield
    random.setstate(random_state)
    np.random.set_state(numpy_state)  # noqa: NPY002


def write_past_python(text):
    """As compiled libraries do, and as programs do that are started from here."""
    os.write(2, f"{text} written\n".encode())
    program = f"import sys; print({text + ' printed'!r}, file=sys.stderr)"
    subprocess.run([sys.executable, "-S", "-c", program], check=True)


def test_what_is_written_to_standard_error_is_dropped_and_only_inside(capfd):
    write_past_python("before")
    with quiet_standard_error():
        write_past_python("inside")
        print("to standard output", flush=True)
    write_past_python("after")
    captured = capfd.readouterr()
    assert captured.err == "before written\nbefore printed\nafter written\nafter printed\n"
    assert captured.out == "to standard output\n"


def test_standard_error_is_back_after_an_exception_which_passes(capfd):
    def failing_import():
        os.write(2, b"inside\n")
        raise ImportError("no such backend")

    with pytest.raises(ImportError, match="no such backend"), quiet_standard_error():
        failing_import()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_standard_error_is_back_even_if_python_s_own_cannot_be_flushed(capfd, monkeypatch):
    class Closed:
        flushed = 0

        def flush(self):
            self.flushed += 1
            if self.flushed > 1:
                raise ValueError("I/O operation on closed file")

    monkeypatch.setattr(sys, "stderr", Closed())
    with pytest.raises(ValueError, match="closed file"), quiet_standard_error():
        os.write(2, b"inside\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_quiet_in_quiet_and_one_after_the_other_keep_no_file_open(capfd):
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list open files")
    before = open_files()
    for _ in range(5):
        with quiet_standard_error():
            with quiet_standard_error():
                os.write(2, b"inner\n")
            os.write(2, b"outer\n")
    assert open_files() == before
    assert capfd.readouterr().err == ""


def draws():
    return [
        random.random(),
        *np.random.standard_normal(3),  # noqa: NPY002
        # A generator of its own, as every layer and model has: Keras 3.10 begins with the seed in
        # the first draw of a kernel, but does not wind its one shared generator back.
        *keras.ops.convert_to_numpy(keras.random.normal((3,), seed=keras.random.SeedGenerator())),
        *keras.ops.convert_to_numpy(keras.initializers.GlorotUniform()((2, 2))).ravel(),
    ]


def test_start_makes_every_source_of_chance_repeat_itself():
    start()
    first = draws()
    assert draws() != first
    start()
    assert draws() == first
    start(seed=1)
    other = draws()
    assert all(a != b for a, b in zip(first[:7], other[:7], strict=True))
    start(seed=0)
    assert draws() == first


def test_start_prints_numbers_short():
    start()
    assert str(np.array([1 / 3, 2e-9])) == "[0.333 0.   ]"


def test_start_respects_a_log_level_that_is_set(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    start()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_the_first_cell_of_a_notebook_prints_nothing():
    """In a fresh interpreter, without the settings under which the tests run."""
    assert classroom.start is start
    cell = """
from diffusion_walkthrough.classroom import start
start()
import sys, keras
assert keras.backend.backend() in sys.modules
print("ready")
"""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", cell], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


def test_devices_are_named_where_keras_cannot_list_them(monkeypatch):
    """As with PyTorch, where Keras ends in an AttributeError."""
    assert re.search("(?i)cpu|gpu|cuda|mps", devices())
    monkeypatch.delattr(keras.distribution, "list_devices")
    assert re.search("(?i)cpu|gpu|cuda|mps", devices())
