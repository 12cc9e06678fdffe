"""Folders that one process at a time works in."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

#: The handles of the files that this process has locked, by device and number of each file.
_HELD: dict[tuple[int, int], list[int]] = {}


class FolderLock:
    """A folder that no second process can lock.

    >>> with FolderLock("run"):
    ...     train()

    The lock is on a file in the folder, ``.lock``, which says what process has it. The operating
    system lets go of it when the process ends, however that happens, so that a killed run stands in
    nobody's way. The same process may lock a folder again: a cell that was interrupted is run
    anew. Where a file system knows no locks, there is none.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Name the folder; it must be there when it is locked."""
        self.path = Path(folder).expanduser().resolve() / ".lock"
        self._handle: int | None = None

    def acquire(self) -> None:
        """Lock the folder; raise BlockingIOError, naming the process, if another one has it."""
        if self._handle is not None:
            return
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        own = f"{os.getpid()} on {platform.node()}\n"
        file = os.fstat(handle)
        held = _HELD.setdefault((file.st_dev, file.st_ino), [])
        if held:  # one lock, which goes when the last of its handles is closed
            os.close(handle)
            handle = os.dup(held[0])
        elif not _locked(handle):
            holder = os.read(handle, 300).decode("utf-8", "replace") or "unknown"
            if holder != own:
                os.close(handle)
                raise BlockingIOError(
                    f"{self.path.parent}: another process works in this folder, number "
                    f"{holder.strip()}, and two would overwrite each other's files. Wait until it "
                    "has ended, end it, or choose another folder."
                )
        os.lseek(handle, 0, os.SEEK_SET)
        os.ftruncate(handle, 0)
        os.write(handle, own.encode())
        held.append(handle)
        self._handle = handle

    def release(self) -> None:
        """Let others have the folder."""
        for held in _HELD.values():
            if self._handle in held:
                held.remove(self._handle)
                os.close(self._handle)
        self._handle = None

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _locked(handle: int) -> bool:
    """Lock an open file for this process; False if another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 4096, os.SEEK_SET)  # what is locked there nobody else can read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # Not lockf: its lock goes once this process closes the file anywhere, read or not.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return True


def _left_to_the_parent() -> None:
    """Close what a fork has inherited, or a lock would stay until the last child ends."""
    while _HELD:
        for handle in _HELD.popitem()[1]:
            os.close(handle)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_left_to_the_parent)
