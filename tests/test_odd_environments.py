"""A quick sample of `make odd`, which does more in each of them."""

import subprocess
import sys
from pathlib import Path

import pytest

import odd_environments


def quick(folder):
    """Words only: nothing that imports TensorFlow."""
    params = str(folder / "Größe.json")
    return [
        (["params", "--parameters", "digits", "--out", params], 0),
        (["params", "--parameters", params, "--json"], 0),
        (["sample", "--model", "digits", "--out", str(folder / "ü.jpg")], 2),
        (["train", "--parameters", "fehlt ß.json", "--folder", "~/run"], 2),
    ]


@pytest.fixture
def without_keras(monkeypatch):
    begin = odd_environments.WORK.partition("from diffusion_walkthrough.classroom")[0]
    monkeypatch.setattr(odd_environments, "WORK", begin + "print('all done')")


@pytest.mark.usefixtures("without_keras")
@pytest.mark.parametrize("name", odd_environments.ENVIRONMENTS)
def test_words_are_taken_in_each_environment(name):
    assert odd_environments.faults(name, quick) == []


@pytest.mark.usefixtures("without_keras")
def test_faults_would_be_found(monkeypatch):
    def wrong(folder):
        return [(["params", "--parameters", "nowhere.json"], 0)]

    (fault,) = odd_environments.faults("ascii", wrong)[:1]
    assert "ended with 2" in fault
    monkeypatch.setattr(odd_environments, "EXPECTED", {"a file that nobody writes"})
    monkeypatch.setattr(odd_environments, "lines", quick)
    assert odd_environments.faults("ascii", quick) == ["a file that nobody writes is missing"]


def test_what_is_written_into_the_package_would_be_found(monkeypatch, tmp_path):
    package = odd_environments.copied_package(tmp_path)
    monkeypatch.setattr(odd_environments, "ROOT", package)
    monkeypatch.setattr(
        odd_environments,
        "WORK",
        "import diffusion_walkthrough as d; open("
        "d.__path__[0] + '/new.txt', 'w'); print('all done')",
    )
    found = odd_environments.faults("ascii", lambda folder: [])
    assert found == ["new.txt was written into the package"]


def ended(before, code):
    words = [sys.executable, "-c", before + code]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_sockets_and_memory_are_really_withheld():
    socket = ended(odd_environments.NO_SOCKETS, "import socket; socket.socket()")
    assert "sockets are blocked here" in socket.stderr
    memory = ended(odd_environments.LITTLE_MEMORY, "bytearray(5 * 2**30)")
    assert "MemoryError" in memory.stderr


def test_a_read_only_package_cannot_be_written(tmp_path):
    options = odd_environments.read_only(tmp_path)
    command = [*options["prefix"], sys.executable, "-c", "open('new.txt', 'w')"]
    done = subprocess.run(command, cwd=options["package"], capture_output=True, check=False)
    odd_environments.make_removable(tmp_path)
    assert b"PermissionError" in done.stderr
    assert not Path(options["package"], "new.txt").exists()
