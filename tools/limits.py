"""A reader of files under watch: what a file costs it, and what it tries, until it is refused.

``tests/files/test_corpus.py`` tries files that were made to harm, and ``make fuzz`` damaged ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 5.0  # of a processor: how long it takes also depends on who else computes
LONGEST_WAIT = 120  # seconds on the clock, after which the process is ended
MEMORY = 10**9  # bytes above those that the process has at the start
LONGEST_ERROR = 2000

#: How a file's error may come; each names the file.
ERRORS = (ValueError, TypeError, FileNotFoundError)
#: What no reader does: Python says when it is about to.
FORBIDDEN = {
    *("pickle.find_class", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"),
    *("os.spawn", "os.startfile", "subprocess.Popen", "socket.connect", "socket.bind"),
}

Reader = Callable[[Path], object]

_events: list[str] = []


def watch() -> None:
    """Take note, from now on, of what no reader does."""
    sys.addaudithook(lambda event, _: _events.append(event) if event in FORBIDDEN else None)


def fault(read: Reader, path: Path) -> str:
    """What is at fault with how a reader takes a file; "" if it is read, or refused as it should.

    Whoever waits for ever is ended, and the process with it. On Linux memory is bounded, too, so
    that the machine outlives what is at fault. Call :func:`watch` once before.
    """
    _events.clear()
    start, before = time.process_time(), _memory("VmRSS")
    _forget_peak()
    said = ""
    try:
        with _bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except ERRORS as error:
        said = _wrong_words(error, path)
    except BaseException as error:
        said = f"{type(error).__name__}: {str(error)[:300]}"
    if _events:
        return f"tried {_events[0]}"
    if (seconds := time.process_time() - start) > SECONDS:
        return f"took {seconds:.1f} s"
    if (memory := _memory("VmHWM") - before) > MEMORY:
        return f"took {memory / 1e6:.0f} MB"
    return said


def _wrong_words(error: BaseException, path: Path) -> str:
    text, cause = str(error), error.__cause__
    while cause is not None and not isinstance(cause, MemoryError):
        cause = cause.__cause__
    if cause is not None:
        return f"only the end of the memory stopped it: {text[:300]}"
    if path.name not in text and f"{path.parent}{os.sep}" not in text:
        return f"the error does not name {path.name}: {type(error).__name__}: {text[:300]}"
    return f"an error of {len(text)} letters" if len(text) > LONGEST_ERROR else ""


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Bound the wait, and (on Linux) the memory that is written to, at three times the limit."""
    with contextlib.ExitStack() as stack:
        if sys.platform == "linux":
            import resource

            kind = resource.RLIMIT_DATA
            limits = resource.getrlimit(kind)
            resource.setrlimit(kind, (_memory("VmData") + 3 * MEMORY, limits[1]))
            stack.callback(resource.setrlimit, kind, limits)
        if sys.platform != "win32":
            signal.alarm(LONGEST_WAIT)
            stack.callback(signal.alarm, 0)
        yield


def _memory(kind: str) -> int:
    """Bytes that this process has of a kind that /proc knows; 0 where there is none."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{kind}:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def _forget_peak() -> None:
    """Let VmHWM, the most that this process has had, begin again."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
