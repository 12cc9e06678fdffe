"""Lines of words that several tests say, and what a run leaves."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.command_line import main
from diffusion_walkthrough.data import load_images

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = load_images("digits")[0][:64]


def train_words(workshop, folder, epochs, *more):
    words = ["train", "--parameters", workshop / "tiny.json", "--data", workshop / "some.npz"]
    words += ["--folder", folder, "--epochs", epochs, "--pictures-every", 2]
    words += ["--batch-size", 16, *more]
    return [str(word) for word in words]


def rows(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.reader(file))


def weights(folder):
    return load_model(folder / "model").network.get_weights()


def refused(capsys, *line):
    """The error of a line that cannot be done."""
    assert main([str(word) for word in line]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    with pytest.raises((ValueError, TypeError, OSError)):
        main([*map(str, line), "--traceback"])
    return printed


def in_a_process(*words, code=None, **options):
    """Run a line, or some code, in a process of its own."""
    command = ["-c", code] if code else ["-m", "diffusion_walkthrough", *map(str, words)]
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, **options)


#: Runs each line of a list in one fresh process, and prints what came of it and what was loaded.
ONE_BY_ONE = """
import contextlib, io, json, sys, time
from diffusion_walkthrough.command_line import main
told = []
for words in json.loads(sys.argv[1]):
    error, begin = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stderr(error):
        code = main(words)
    heavy = sorted({"keras", "tensorflow", "sklearn", "matplotlib"} & set(sys.modules))
    told.append([code, error.getvalue(), heavy, time.perf_counter() - begin])
print(json.dumps(told))
"""


def one_by_one(lines):
    """What came of each line: its exit code, its error, what had been imported, its seconds."""
    command = [sys.executable, "-c", ONE_BY_ONE, json.dumps(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
