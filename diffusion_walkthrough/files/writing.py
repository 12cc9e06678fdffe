"""Files and folders that appear whole or not at all.

What is written stands under a temporary name beside its place, ``.~host-process-mark-name``, goes
to the disk, and is renamed. A process that is killed meanwhile leaves the earlier file or the new
one, and perhaps the temporary one: the next that writes into the same folder removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from diffusion_walkthrough.checks import LONGEST_NAME

_HOST = re.sub(r"\W", "_", platform.node())[:30]
_OURS = re.compile(r"\.~(?P<host>\w*)-(?P<process>\d+)-[0-9a-f]{8}-(?P<old>old-)?(?P<name>.+)")

#: What the operating system or JupyterLab puts into folders; so does whatever is hidden.
UNINVITED = {"desktop.ini", "Thumbs.db"}

#: How often a folder is put in its place where other processes put theirs.
ATTEMPTS = 9

#: What the operating system says where another process has put its folder.
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)

# The names that this process is writing at. Another one with its number is of an earlier process
# that had the same: in a container, each start has.
_BEING_WRITTEN: set[str] = set()


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at any moment the old one or the new one is there, whole.

    Raises FileNotFoundError if the folder does not exist, IsADirectoryError if ``path`` is a
    folder, and OSError if the disk refuses; then nothing has changed.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a temporary path to write a file at, and put the file in its place at the end.

    Raises like :func:`write_whole`; an error inside the block leaves ``path`` as it was.
    """
    target = _place(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder. Give the name of a file in it.")
    temporary = _file_beside(target)
    with _told_of(target), _being_written(temporary):
        try:
            yield temporary
            _to_disk(temporary)
            os.replace(temporary, target)
            _to_disk(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a temporary folder to write files in, and put it in its place at the end.

    A folder that is there already is replaced, all but its hidden files, which move over. That
    takes two renames: killed between them, a process leaves the earlier folder beside its place,
    and the next one that writes there puts it back (:func:`tidy`).
    """
    target = _place(path)
    temporary, olds = _beside(target), [_beside(target, "old-") for _ in range(ATTEMPTS)]
    with _told_of(target), _being_written(temporary, *olds):
        temporary.mkdir()
        try:
            yield temporary
            for part in [*temporary.rglob("*"), temporary]:
                _to_disk(part)
            _take_place(temporary, target, olds)
            _to_disk(target.parent)
        finally:
            for old in olds:
                _put_back_or_remove(old, target)
            shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, target: Path, olds: list[Path]) -> None:
    """Rename a folder to its place, though other processes may put theirs there meanwhile."""
    for old in olds:
        with contextlib.suppress(FileNotFoundError):  # another one was faster
            if target.exists():  # a folder cannot be renamed onto one that has files in it
                os.replace(target, old)
        try:
            os.replace(temporary, target)
        except OSError as error:
            if error.errno not in TAKEN or old is olds[-1]:
                raise
        else:
            return


@contextlib.contextmanager
def _told_of(target: Path) -> Iterator[None]:
    """Say of an error of the disk what could not be written, and what has become of it."""
    try:
        yield
    except OSError as error:
        first = error
        while isinstance(first.__cause__, OSError):  # of a file in a folder, both are told of
            first = first.__cause__
        remedy = "make room there or choose another place"
        if first.errno == errno.ENAMETOOLONG:
            remedy = "choose a shorter name"
        said = (
            f"{target} could not be written ({first.strerror or first}). What was there before is "
            f"whole: {remedy}, and do the same again."
        )
        told = type(OSError(first.errno, said))(said)  # without the number in its sentence
        told.errno = first.errno
        raise told from first


@contextlib.contextmanager
def _being_written(*paths: Path) -> Iterator[None]:
    names = {path.name for path in paths}
    _BEING_WRITTEN.update(names)
    try:
        yield
    finally:
        _BEING_WRITTEN.difference_update(names)


def make_folder(folder: Path) -> None:
    """Make a folder and those that it stands in, and have all of them on the disk."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, and not a folder. Choose another place.")
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        _to_disk(place.parent)


def strangers(folder: Path, ours: Collection[str]) -> list[str]:
    """The names of what is in a folder and is none of ``ours`` files.

    What systems put into folders does not count; a folder that bears the name of a file does.
    """
    parts = folder.iterdir() if folder.is_dir() else ()
    invited = [part for part in parts if not _is_uninvited(part.name)]
    return sorted(part.name for part in invited if part.name not in ours or not part.is_file())


def _is_uninvited(name: str) -> bool:
    return name.startswith(".") or name in UNINVITED


def tidy(folder: Path) -> None:
    """Remove what processes that are no more left half-written, and put back what they replaced."""
    import psutil

    for path, left in _left_behind(folder):
        process = int(left["process"])
        ours = process == os.getpid() and path.name not in _BEING_WRITTEN
        if left["host"] != _HOST or (psutil.pid_exists(process) and not ours):
            continue
        with contextlib.suppress(OSError):  # another process may be tidying, too
            if left["old"]:
                _put_back_or_remove(path, folder / left["name"])
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def earlier_folder(path: Path) -> Path | None:
    """What a process that was killed while replacing a folder has left of the earlier one."""
    found = _left_behind(path.parent)
    return next((p for p, left in found if left["old"] and left["name"] == path.name), None)


def _left_behind(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in folder.glob(".~*"):
        if left := _OURS.fullmatch(path.name):
            yield path, left


def _put_back_or_remove(old: Path, target: Path) -> None:
    if not old.exists():
        return
    if not target.exists():
        try:
            os.replace(old, target)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
        else:
            return
    for part in old.iterdir():
        if _is_uninvited(part.name) and not (target / part.name).exists():
            with contextlib.suppress(FileNotFoundError):  # another process replaces it just now
                os.replace(part, target / part.name)
    shutil.rmtree(old, ignore_errors=True)


def _place(path: str | os.PathLike[str]) -> Path:
    """Where a file is to go: of a link, the place that it points to."""
    target = Path(path).expanduser().resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {target.parent} does not exist. Create it first: "
            f"Path({str(target.parent)!r}).mkdir(parents=True)."
        )
    tidy(target.parent)
    return target


def _mark() -> str:
    """How a temporary name begins, each in another way."""
    return f".~{_HOST}-{os.getpid()}-{secrets.token_hex(4)}-"


def _beside(target: Path, old: str = "") -> Path:
    return target.with_name(f"{_mark()}{old}{target.name if old else _not_old(target.name)}")


def _not_old(name: str) -> str:
    """A name that is not read as that of an earlier folder, which would be put in its place."""
    return f"~{name}" if name.startswith("old-") else name


def _file_beside(target: Path) -> Path:
    """Where a file is written: of a name too long to have a mark before it, at its end alone."""
    mark, name = _mark(), _not_old(target.name)
    while len(os.fsencode(mark + name)) > LONGEST_NAME:
        name = f"~{name[2:]}"
    return target.with_name(mark + name)


def _to_disk(path: Path) -> None:
    """Have a file or, where that can be, a folder written to the disk before going on."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
