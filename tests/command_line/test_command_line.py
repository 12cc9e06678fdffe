"""What a line comes to: an exit code, one sentence for people, one object for programs."""

import json
import os
import subprocess
import sys

import pytest

from command_line.lines import ROOT, in_a_process, refused
from diffusion_walkthrough import command_line
from diffusion_walkthrough.command_line import commands, main

LINE = ["params", "--parameters", "digits"]


class ResourceExhaustedError(Exception):
    """As TensorFlow's, which is no MemoryError."""


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("a wrong\nword"), 2, "error: a wrong word\n"),
        (TypeError("a wrong kind"), 2, "error: a wrong kind\n"),
        (FileNotFoundError("no file"), 2, "error: no file\n"),
        (FileExistsError("a file"), 2, "error: a file\n"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (BlockingIOError("another process works"), 1, "another process works"),
        (ConnectionError("no network"), 1, "error: no network\n"),
        (FloatingPointError("not finite"), 1, "error: not finite\n"),
        (RuntimeError("it broke"), 1, "error: it broke\n"),
        (MemoryError(), 1, "the memory does not suffice (MemoryError). Close other programs, or"),
        (ResourceExhaustedError("OOM when\nallocating"), 1, "suffice (OOM when). Close"),
        (KeyError("loss"), 1, "KeyError: 'loss'. This should not have happened: please report it"),
        (KeyboardInterrupt(), 130, "Interrupted. Nothing was written."),
    ],
)
def test_what_goes_wrong_has_a_code_and_a_sentence(monkeypatch, capsys, error, code, told):
    def fail(options):
        raise error

    monkeypatch.setattr(commands, "params", fail)
    assert main(LINE) == code
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""
    assert ("Traceback" in printed.err) == isinstance(error, KeyError)
    assert main([*LINE, "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == code
    assert answer["error"]


def test_where_an_error_arose_is_shown_on_request(monkeypatch):
    monkeypatch.setattr(commands, "params", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([*LINE, "--traceback"])


def test_programs_are_answered_also_where_a_traceback_is_shown(capsys):
    line = ["plan", "--parameters", "digits", "--set", "timesteps=0", "--json", "--traceback"]
    assert main(line) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == 2
    assert "timesteps=0" in json.loads(printed.out)["error"]
    assert "Traceback" in printed.err


def test_a_word_that_cannot_be_is_one_line_too(capsys):
    assert main(["traim"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: traim is none of")
    assert printed.err.count("\n") == 1
    assert main(["traim", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_numbers_that_json_does_not_know_become_null(monkeypatch, capsys):
    answer = {"loss": float("nan"), "parts": [1.0, float("inf")], "more": {"n": 3, "name": "ü"}}
    monkeypatch.setattr(commands, "params", lambda options: answer)
    assert main([*LINE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = {"loss": None, "parts": [1.0, None], "more": {"n": 3, "name": "ü"}}
    assert found == {"command": "params", **expected}


def test_the_exit_codes_are_those_of_the_help():
    codes = (command_line.DONE, command_line.FAILED, command_line.REFUSED)
    assert (*codes, command_line.INTERRUPTED) == (0, 1, 2, 130)


def test_a_warning_is_one_line_without_a_place_in_the_code():
    code = (
        "import warnings\nfrom diffusion_walkthrough.command_line import commands, main\n"
        "commands.params = lambda options: warnings.warn('look out') or {}\n"
        f"main({LINE!r}); warnings.warn('in Python')"
    )
    told = in_a_process(code=code).stderr.decode()
    assert told.startswith("warning: look out\n")
    assert "UserWarning: in Python" in told


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_standard_output_may_be_closed():
    line = f"'{sys.executable}' -m diffusion_walkthrough {' '.join(LINE)} >&-"
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
@pytest.mark.parametrize("words", [LINE, [*LINE, "--json"], ["--version"], ["params", "--help"]])
def test_a_standard_output_that_takes_no_more_is_told_of_in_one_line(words):
    line = f"'{sys.executable}' -m diffusion_walkthrough {' '.join(words)} >/dev/full"
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, check=False)
    sentence = "standard output could not be written (No space left on device). Make room there"
    *others, told = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert told.startswith(f"error: {sentence}")
    assert "Traceback" not in done.stderr.decode()
    assert "--json" in words or others == []


@pytest.mark.skipif(os.name != "posix", reason="elsewhere, a current folder cannot be removed")
@pytest.mark.parametrize(
    "words",
    [
        ["params", "--data", "x"],
        ["params", "--out", "y.json"],
        ["sample", "--model", "digitz", "--out", "x.png"],
        ["train", "--parameters", "digits", "--folder", "run"],
    ],
)
def test_a_current_folder_that_has_been_removed_is_told_of(tmp_path, monkeypatch, capsys, words):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    told = refused(capsys, *words)
    assert told.startswith("error: the current folder does not exist any more. Go to one that")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell with pipes")
def test_a_reader_who_leaves_early_gets_no_traceback():
    line = f"'{sys.executable}' -m diffusion_walkthrough {' '.join(LINE)} | true"
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_package_is_a_program():
    done = in_a_process("params", "--parameters", "digits", "--json")
    assert (done.returncode, json.loads(done.stdout)["out"]) == (0, None)
