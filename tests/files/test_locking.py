"""A folder that one process at a time works in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from diffusion_walkthrough.files.locking import FolderLock

HOLD = """
import sys
from diffusion_walkthrough.files.locking import FolderLock
with FolderLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_which_is_the_first(tmp_path, holder):
    for _ in range(2):
        with pytest.raises(BlockingIOError, match=rf"number {holder.pid} on .*another folder"):
            FolderLock(tmp_path).acquire()
    holder.communicate("\n", timeout=20)
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def holder_of(folder):
    """The process that the lock of a folder names."""
    return int((folder / ".lock").read_text().split()[0])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not known there")
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with FolderLock(str(tmp_path)):
        assert holder_of(tmp_path) == os.getpid()


def test_the_same_process_may_lock_again(tmp_path):
    """As in a notebook whose cell was interrupted and is run anew."""
    interrupted = FolderLock(tmp_path)
    interrupted.acquire()
    interrupted.acquire()
    with FolderLock(tmp_path):
        assert holder_of(tmp_path) == os.getpid()
    interrupted.release()
    interrupted.release()


def test_folders_do_not_share_a_lock(tmp_path, holder):
    (tmp_path / "other").mkdir()
    with FolderLock(tmp_path / "other"):
        assert holder_of(tmp_path / "other") == os.getpid()
        assert holder_of(tmp_path) == holder.pid


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        FolderLock(tmp_path / "absent").acquire()


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl is not known there")
def test_where_there_are_no_locks_nobody_is_stopped(tmp_path, holder, monkeypatch):
    import fcntl

    def fail(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", fail)
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")
