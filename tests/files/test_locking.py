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

    monkeypatch.setattr(fcntl, "flock", fail)
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def is_free(folder):
    """Whether another process could lock a folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    return subprocess.run(command, input=b"\n", check=False).returncode == 0


@pytest.mark.parametrize("what", ["a read", "a lock in it", "the lock before it"])
def test_no_other_handle_of_the_process_lets_go_of_its_lock(tmp_path, what):
    before = FolderLock(tmp_path)
    if what == "the lock before it":  # of a cell that was interrupted, and is forgotten later
        before.acquire()
    with FolderLock(tmp_path):
        if what == "a read":
            assert holder_of(tmp_path) == os.getpid()
        if what == "a lock in it":
            before.acquire()
        before.release()
        assert not is_free(tmp_path)
        assert holder_of(tmp_path) == os.getpid()
    assert is_free(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_does_not_keep_the_lock_of_its_parent(tmp_path):
    ours, its = os.pipe()
    with FolderLock(tmp_path) as lock:
        if not (child := os.fork()):
            os.close(its)
            os.read(ours, 1)
            lock.release()
            os._exit(0)
    try:
        assert is_free(tmp_path)
    finally:
        os.close(its)
        os.close(ours)
        assert os.waitpid(child, 0)[1] == 0
