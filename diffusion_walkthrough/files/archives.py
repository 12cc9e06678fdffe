"""Archives of arrays (``.npz``) and others of their kind, read without trust.

Little is read before it is known how much there is: the table of contents is bounded, what its
members inflate to is compared with the size of the file, and an array's header with the size of its
member. No member is inflated further than it said it would be.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_CONTENTS = 4 * 1024**2  # bytes; those of the largest network's weights have 100,000
MAX_MEMBERS = 10_000  # of which the largest network's weights are 1,000
MAX_HEADER = 10_000  # bytes of an array's header, which has some 100
MAX_AXES = 8
ROOM = 128 * 1024**2  # to which any archive may inflate, however small it is
RATIO = 4  # and a large one to so many times its size: photographs and weights hardly do


class Header(NamedTuple):
    """What an array's header says of it."""

    shape: tuple[int, ...]
    dtype: np.dtype


class _File(io.FileIO):
    """A file of which no more than ``left`` bytes are read, while that is a number."""

    left: int | None = MAX_CONTENTS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does; raises ValueError if it becomes too much."""
        if self.left is None:
            return super().read(-1 if size is None else size)
        most = self.left + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("its table of contents is longer than any that is needed")
        return data


@contextlib.contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose members can be read one by one without surprise.

    Raises ValueError if the file is none that is read here, or an error of
    ``files.UNREADABLE_NPZ`` if it is damaged, here or while it is read.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise ValueError("it is no regular file")
    with _File(path) as file, zipfile.ZipFile(file) as archive:
        file.left = None
        _check_members(archive.infolist(), os.fstat(file.fileno()).st_size)
        yield archive


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise ValueError(
            f"it has {len(members)} members, more than the {MAX_MEMBERS} that it may have"
        )
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two of its members have one name")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename[:80]} is compressed in a way that NumPy never is")
    inflated = sum(member.file_size for member in members)
    if inflated > max(ROOM, RATIO * size):
        raise ValueError(
            f"unpacked, it would grow from {size / 1e6:.1f} to {inflated / 1e6:.0f} MB, and no "
            f"more than {RATIO} times its size is admitted. Written with np.savez, which does not "
            "compress, an archive may be of any size"
        )


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Read a whole member, of at most so many bytes, and compare it with its checksum."""
    size = archive.getinfo(name).file_size
    if size > most:
        raise ValueError(f"{name} has {size} bytes, more than the {most} that it may have")
    with archive.open(name) as member:
        data = member.read(size)  # not read() alone, which inflates all there is and cuts it then
    if len(data) < size:
        raise ValueError(f"{name} is cut short")
    return data


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an archive, as NumPy has them: without their suffix."""
    return [name.removesuffix(".npy") for name in archive.namelist()]


def array_header(archive: zipfile.ZipFile, name: str) -> Header:
    """Read what an array's header says of it, and hold it to the size of the member.

    Raises ValueError for what is no array, holds Python objects, or has another size than it says.
    """
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise ValueError(f"{name[:80]} is no array of numbers") from None
    with archive.open(info) as member:
        start = io.BytesIO(member.read(min(info.file_size, MAX_HEADER)))
    try:
        if np.lib.format.read_magic(start) != (1, 0):
            raise ValueError("its format is none that is needed for an array of numbers")
        shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    except Exception as error:  # of a damaged header, NumPy's reader raises all kinds
        raise ValueError(f"{name[:80]} is no array of numbers ({str(error)[:80]})") from None
    if dtype.hasobject:
        raise ValueError(f"{name[:80]} holds Python objects, which are not read")
    if len(shape) > MAX_AXES or min(shape, default=0) < 0:
        raise ValueError(f"{name[:80]} has no shape of an array")
    said = start.tell() + math.prod(shape) * dtype.itemsize
    if said != info.file_size:
        raise ValueError(f"{name[:80]} says that it has {said} bytes, and has {info.file_size}")
    return Header(tuple(shape), dtype)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array, once its header has been looked at; raises like :func:`array_header`."""
    array_header(archive, name)
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)
