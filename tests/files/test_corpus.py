"""Files that were made to harm are refused, each in one sentence, at once and in little memory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from files import corpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits need /proc")


@pytest.fixture(scope="module")
def became(tmp_path_factory) -> dict[str, str]:
    """What is at fault with each file, all of them read in one process under watch."""
    script = Path(corpus.__file__)
    command = [sys.executable, str(script), str(tmp_path_factory.mktemp("hostile"))]
    where = [corpus.TESTS, corpus.TESTS.parent / "tools", corpus.TESTS.parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, where))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def test_the_corpus_is_as_large_as_it_should_be():
    pickles = [name for name in corpus.NAMES if name.startswith("pickle")]
    assert len(pickles) >= 80
    assert len(corpus.NAMES) - len(pickles) >= 60
    assert len(set(corpus.NAMES)) == len(corpus.NAMES)


@pytest.mark.parametrize("name", corpus.NAMES)
def test_it_is_refused_as_it_should_be(name, became):
    assert became[name] == ""


WATCHED = """
import os, sys, time
from pathlib import Path
import limits

limits.SECONDS, limits.MEMORY = 1, 10**8
limits.watch()
path = Path(sys.argv[1])

def refuse(text):
    raise ValueError(text)

def without_memory(path):
    try:
        bytearray(10**12)
    except MemoryError as error:
        raise ValueError(f"{path} is bad") from error

def compute(path):
    end = time.process_time() + 1.5
    while time.process_time() < end:
        pass

for read in (
    lambda path: os.system("true"),
    compute,
    lambda path: 1 / 0,
    lambda path: len(b"1" * (2 * 10**8)),
    without_memory,
    lambda path: refuse("no"),
    lambda path: refuse(f"{path} is bad" * 1000),
    lambda path: refuse(f"{path} is bad"),
    lambda path: None,
):
    print(limits.fault(read, path), flush=True)
limits.LONGEST_WAIT = 1
limits.fault(lambda path: time.sleep(60), path)
"""


def test_what_is_at_fault_would_be_found(tmp_path):
    """The watch itself, in a process of its own: what it is there for does not pass."""
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "a.pkl")]
    environment = {"PYTHONPATH": str(corpus.TESTS.parent / "tools")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == -signal.SIGALRM, done.stderr
    said = done.stdout.splitlines()
    expected = ["tried os.system", "took ", "ZeroDivisionError", "took 2", "the end of the memory"]
    expected += ["does not name a.pkl", "an error of "]
    for line, piece in zip(said[:7], expected, strict=True):
        assert piece in line
    assert said[7:] == ["", ""]
