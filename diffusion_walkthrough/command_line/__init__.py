"""Without a notebook: ``python -m diffusion_walkthrough train|sample|evaluate|plan|params``.

The words are in ``words``, what they name is looked up in ``checking``, and ``commands`` does it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from diffusion_walkthrough.command_line.words import WordError, parse

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

#: Errors that say what is wrong with the line, or with a file that it names.
OF_THE_LINE = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)
#: Errors that say what went wrong outside: the disk, the network, numbers that grew too large.
OF_THE_WORLD = (OSError, ArithmeticError, RuntimeError)

#: What TensorFlow, JAX and PyTorch say when there is no more of it.
OF_MEMORY = ("ResourceExhaustedError", "RESOURCE_EXHAUSTED", "OutOfMemoryError")

_GONE = "the current folder does not exist any more. Go to one that does, with cd, and try again."

_AFTER_CTRL_C = {"train": "The same line goes on from the last checkpoint."}


class _OutputError(Exception):
    """Standard output cannot be written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: the words after the program's name; None takes those of this process.

    Returns:
        The exit code: 0; 1 if something failed on the way; 2 if the line, or a file that it names,
        cannot be used; or 130 after Ctrl-C. Errors are told in one line.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that a terminal cannot show ends no run
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _plain_warnings():
            if "--json" not in arguments:
                return _run(arguments)[0]
            with contextlib.redirect_stdout(sys.stderr):  # what is for people
                code, answer = _run(arguments)
        with _written_out():
            print(json.dumps(_plain(answer)))
        return code
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        _let_go_of_output()
        return FAILED
    except _OutputError as error:
        _let_go_of_output()
        return _told(FAILED, str(error))[0]


@contextlib.contextmanager
def _written_out() -> Iterator[None]:
    """Write out all that is printed inside, and was before; _OutputError where that cannot be."""
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # standard output may be closed
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _OutputError(
            f"standard output could not be written ({error.strerror or error}). Make room there, "
            "or send it elsewhere."
        ) from error


def _let_go_of_output() -> None:
    """Leave what could not be written: Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Say a warning as an error is said, without the place in the code that it comes from."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _run(arguments: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Do what a line says: the exit code, and the answer for programs."""
    try:
        with _written_out():  # of --help and --version
            options = parse(arguments)
    except WordError as error:
        return _told(REFUSED, str(error))
    try:
        from diffusion_walkthrough.command_line import commands

        answer = getattr(commands, options.command)(options)
        with _written_out():
            pass
    except KeyboardInterrupt:
        after = _AFTER_CTRL_C.get(options.command, "Nothing was written.")
        print(f"\nInterrupted. {after}", file=sys.stderr)
        return INTERRUPTED, {"error": "interrupted", "exit_code": INTERRUPTED}
    except (BrokenPipeError, _OutputError):
        raise
    except Exception as error:
        if isinstance(error, OSError):
            with _written_out():  # which may be what has failed
                pass
        if options.traceback and not options.json:
            raise
        if options.traceback:
            traceback.print_exception(error)
        return _told(*_explained(error))
    return DONE, {"command": options.command, **answer}


def _explained(error: Exception) -> tuple[int, str]:
    """The exit code for an error, and what to say of it."""
    if isinstance(error, MemoryError) or any(word in repr(error)[:2000] for word in OF_MEMORY):
        first = (str(error).strip() or "MemoryError").splitlines()[0][:200]
        remedy = "Close other programs, or ask for less: a smaller --batch-size, or fewer images."
        return FAILED, f"the memory does not suffice ({first}). {remedy}"
    if isinstance(error, FileNotFoundError) and error.strerror and _current_folder_is_gone():
        return REFUSED, _GONE
    if isinstance(error, OF_THE_LINE):
        return REFUSED, str(error)
    if isinstance(error, OF_THE_WORLD):
        return FAILED, str(error)
    traceback.print_exception(error)
    return FAILED, (
        f"{type(error).__name__}: {error}. This should not have happened: please report it, as "
        "CONTRIBUTING.md says, with the lines above."
    )


def _current_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _told(code: int, sentence: str) -> tuple[int, dict[str, Any]]:
    sentence = " ".join(sentence.split())
    print("error:", sentence, file=sys.stderr)
    return code, {"error": sentence, "exit_code": code}


def _plain(value: Any) -> Any:
    """Numbers that JSON does not know become null."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
