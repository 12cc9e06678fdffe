"""Folders that one process at a time works in."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


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
        if not _locked(handle):
            holder = os.read(handle, 300).decode("utf-8", "replace") or "unknown"
            if holder != own:
                os.close(handle)
                raise BlockingIOError(
                    f"{self.path.parent}: another process works in this folder, number "
                    f"{holder.strip()}, and two would overwrite each other's files. Wait until it "
                    "has ended, end it, or choose another folder."
                )
        os.ftruncate(handle, 0)
        os.write(handle, own.encode())
        self._handle = handle

    def release(self) -> None:
        """Let others have the folder."""
        if self._handle is not None:
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

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return True
