"""Pictures in files and folders, read without trust: upright, on white, in 8 bits a channel.

A file is only asked for what its suffix promises, and gives up where it wants more work than a
picture of its size can be worth.
"""

from __future__ import annotations

import io
import itertools
import math
import mmap
import os
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from diffusion_walkthrough import checks

if TYPE_CHECKING:
    from PIL import Image as PillowImage
    from PIL.TiffImagePlugin import TiffImageFile

#: What is read, and what Pillow calls it.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
#: What is not read, although it shows pictures.
OTHER_SUFFIXES = {
    *(".apng", ".arw", ".avif", ".avifs", ".cr2", ".cr3", ".crw", ".dcr", ".dds", ".dib", ".dng"),
    *(".eps", ".erf", ".exr", ".hdr", ".heic", ".heics", ".heif", ".heifs", ".hif", ".icns"),
    *(".ico", ".j2c", ".j2k", ".jfi", ".jfif", ".jif", ".jp2", ".jpe", ".jpf", ".jpx", ".jxl"),
    *(".jxr", ".kdc", ".mpo", ".mrw", ".nef", ".nrw", ".orf", ".pbm", ".pcx", ".pef", ".pgm"),
    *(".pnm", ".ppm", ".psd", ".qoi", ".raf", ".raw", ".rw2", ".rwl", ".sgi", ".sr2", ".srw"),
    *(".svg", ".svgz", ".tga", ".x3f", ".xcf"),
}
#: Folders that systems put beside those of somebody's own; the names of others begin with a dot.
SYSTEM_FOLDERS = {
    *("__MACOSX", "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN"),
    *("System Volume Information", "lost+found"),
}

MOST_PIXELS = 50_000_000  # as a telephone takes them, with all their copies some 700 MB
MOST_DESCRIPTION = 4 * 1024**2  # bytes that are read in pieces before the first pixel
MOST_READS = 100_000  # of pieces; a PNG of 100 MB has some 40,000
MOST_READS_AHEAD = 700_000  # of the first picture in a GIF, which has two for each 255 bytes
MOST_SCANS = 40  # of a JPEG, each of which goes over the whole picture

ROOM = 256 * 1024**2  # bytes that any folder may be as numbers, however small its files are
RATIO = 50  # and a large one so many times its size, which photographs hardly are

_TILE_SIDES = (322, 323)  # what TIFF calls TileWidth and TileLength
# The begin of a JPEG's frame: its length, the bits of a number, and two sides in pixels.
_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\0[\x0b-\x26].(..)(..)", re.DOTALL)

_EIGHT_BITS = (
    "Bring all pictures to 8 bits, with the same numbers for all: of 16 bits, "
    "Image.fromarray((np.asarray(picture) / 257).round().astype('uint8')).save('new.png'); of "
    "decimal numbers from low to high, (picture - low) / (high - low) * 255 in place of / 257"
)


class Picture(NamedTuple):
    """What was read of a file: uint8 (height, width, 1 or 3), and whether it shows more."""

    pixels: NDArray[np.uint8]
    has_more: bool


class _Refused(Exception):
    """A picture in good order that is not read: why not, and the remedy."""


class _File(io.FileIO):
    """A file that is read in so many pieces, and of which only so much is description."""

    reads = MOST_READS
    description: int | None = MOST_DESCRIPTION

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does; raises ValueError if it becomes too much."""
        # Asked for more than there is, Python would reserve memory for it.
        at_once = size is None or size < 0  # as WebP does with all of a file
        if size is None or not 0 <= size <= io.DEFAULT_BUFFER_SIZE:
            left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
            size = left if size is None or size < 0 else min(size, left)
        data = super().read(size)
        self.reads -= 1
        if self.description is not None and not at_once:
            self.description -= len(data)
        if self.reads < 0 or (self.description or 0) < 0:
            raise ValueError("it has more parts, or a longer description, than a picture needs")
        return data


def read_picture(file: Path, image_size: int | None = None, channels: int | None = None) -> Picture:
    """Read the first picture of a file.

    Args:
        file: with one of the ``SUFFIXES``.
        image_size: the side to which the central square is resized; None leaves it as it is.
        channels: 1 for grey, 3 for colour; None for what it has.

    Raises ValueError, naming the file and the remedy, for what cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        if not file.is_file():  # opening a pipe would wait for ever
            raise ValueError("it is no regular file")
        with _File(file) as opened, _recognized(opened) as picture:
            has_more = _shows_more(picture, opened)
            picture.load()
            _turn_upright(picture)
            flat = _flattened(picture, channels)
        if image_size is not None:
            flat = ImageOps.fit(flat, (image_size, image_size), Image.Resampling.BILINEAR)
        pixels = np.asarray(flat, dtype=np.uint8)
    except _Refused as refused:
        raise ValueError(f"{file} cannot be read: {refused}.") from refused
    except Exception as error:  # of a damaged picture, Pillow raises all kinds
        raise ValueError(
            f"{file} cannot be read as a picture ({_reason(error)}). "
            "Remove it or save it again as PNG."
        ) from error
    return Picture(pixels[..., np.newaxis] if pixels.ndim == 2 else pixels, has_more)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # names an object of Python
        return f"it is none of {', '.join(FORMATS)}, or damaged"
    return str(error)[:200] or type(error).__name__


def _recognized(file: _File) -> PillowImage.Image:
    """A picture of bounded size, of which nothing but the description has been read."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is our own
        try:
            picture = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError:  # Pillow's own, which is far above
            raise _too_large(MOST_PIXELS) from None
    most = MOST_PIXELS // 2 if picture.format == "WEBP" else MOST_PIXELS  # it is copied more often
    if picture.width * picture.height > most:
        raise _too_large(most)
    if picture.mode.startswith(("I", "F")):
        raise _Refused(f"its mode {picture.mode} has more than 8 bits a channel. {_EIGHT_BITS}")
    if picture.format == "TIFF":
        _check_tiles(cast("TiffImageFile", picture), file)
        if picture.info.get("compression") in ("jpeg", "tiff_jpeg"):
            _check_frames(Path(str(file.name)))
    file.description = None
    if picture.format in ("JPEG", "MPO"):
        _check_scans(Path(str(file.name)))
    return picture


def _too_large(most: int) -> _Refused:
    return _Refused(f"it has more than {most / 1e6:g} million pixels. Save a smaller copy of it")


def _shows_more(picture: PillowImage.Image, file: _File) -> bool:
    """Whether this is the first of several pictures; telephones put a copy into a JPEG."""
    reads = file.reads
    if picture.format == "GIF":
        file.reads = MOST_READS_AHEAD
    try:
        animated = bool(getattr(picture, "is_animated", False))
        return animated and picture.format in ("GIF", "PNG", "TIFF", "WEBP")
    except Exception:  # of what comes after the first one, nothing is needed
        return False
    finally:
        file.reads = reads


def _turn_upright(picture: PillowImage.Image) -> None:
    """Turn a picture as its EXIF says; where that is damaged, its pixels are as good."""
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(picture, in_place=True)
    except MemoryError:
        raise
    except Exception:  # of a damaged EXIF, Pillow raises all kinds
        return


def _check_tiles(picture: TiffImageFile, file: _File) -> None:
    """Refuse a TIFF of large tiles: each is unpacked as a whole, however little of it shows."""
    numbers = _tag_numbers(picture, file)
    times = [numbers.count(tag) for tag in _TILE_SIDES]
    found = [picture.tag_v2.get(tag) for tag in _TILE_SIDES]
    sides = [side for side in found if isinstance(side, int)]
    if times == [0, 0]:
        return
    if times != [1, 1] or len(sides) < 2:
        raise ValueError("it does not say once, in whole numbers, how large its tiles are")
    if math.prod(sides) > MOST_PIXELS:
        raise ValueError(f"each of its tiles has more than {MOST_PIXELS / 1e6:g} million pixels")


def _tag_numbers(picture: TiffImageFile, file: _File) -> list[int]:
    """The numbers of all tags of a TIFF, also of those that Pillow leaves out and libtiff reads."""
    file.seek(0)
    length, entry = (8, 20) if 43 in file.read(4)[2:] else (2, 12)  # 43 is for files above 4 GB
    order: Literal["little", "big"] = "little" if picture.tag_v2.prefix == b"II" else "big"
    file.seek(picture.tag_v2.offset)
    count = int.from_bytes(file.read(length), order)
    data = file.read(count * entry)
    return [int.from_bytes(data[at : at + 2], order) for at in range(0, len(data), entry)]


def _check_frames(file: Path) -> None:
    """Refuse a TIFF that holds a JPEG larger than any picture, which only its own size tells."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for sides in _FRAME.finditer(data):
            if math.prod(int.from_bytes(side, "big") for side in sides.groups()) > MOST_PIXELS:
                raise ValueError(f"a JPEG in it has more than {MOST_PIXELS / 1e6:g} million pixels")


def _check_scans(file: Path) -> None:
    """Refuse a JPEG that goes over its pixels again and again, which nothing else would notice."""
    scans, place = 0, -1
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while (place := data.find(b"\xff\xda", place + 1)) >= 0:
            scans += 1
            if scans > MOST_SCANS:
                raise ValueError(f"it has more than {MOST_SCANS} scans")


def _flattened(picture: PillowImage.Image, channels: int | None) -> PillowImage.Image:
    """The picture in grey (mode L) or colour (mode RGB); what is transparent becomes white."""
    from PIL import Image

    by_palette, grey = picture.mode in ("P", "PA"), picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        white = Image.new("RGB", picture.size, "white")
        opaque = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white.paste(opaque, mask=opaque)
        picture = white
    if by_palette:
        picture = picture.convert("RGB")
        grey = _uses_only_greys(picture)
    if channels:
        grey = channels == 1
    return picture.convert("L" if grey else "RGB")


def _uses_only_greys(picture: PillowImage.Image) -> bool:
    """Whether a picture in the colours of a palette, which are few, shows none but greys."""
    colours = picture.getcolors(1000)
    if colours is None:
        return False
    return all(isinstance(colour, tuple) and len({*colour}) == 1 for _, colour in colours)


# Folders ------------------------------------------------------------------------------------------


def read_folder(
    folder: Path, image_size: int | None = None, channels: int | None = None
) -> tuple[NDArray[np.uint8], list[int]]:
    """Read the pictures in a folder and its subfolders, in the order of their names.

    Args:
        folder: the folder.
        image_size: as for :func:`read_picture`.
        channels: likewise.

    Returns uint8 (n, height, width, channels), and for each picture the number of its subfolder
    among :func:`class_names`, or -1. Warns of pictures that are left out. Raises ValueError if
    there are none, one cannot be read, two have different sizes or channels, or all would be much
    larger than their files.
    """
    labels = _labelled(folder)
    arrays: list[NDArray[np.uint8]] = []
    several = 0
    for file in labels:
        picture = read_picture(file, image_size, channels)
        if not arrays:
            _check_room(folder, list(labels), picture.pixels, image_size)
        arrays.append(picture.pixels)
        several += picture.has_more
        if arrays[-1].shape != arrays[0].shape:
            raise ValueError(_unlike(file, arrays[-1], next(iter(labels)), arrays[0]))
    if several:
        _warn(f"{several} of the files in {folder} show several pictures; the first of each counts")
    return np.stack(arrays), [*labels.values()]


def _check_room(
    folder: Path, files: list[Path], first: NDArray[np.uint8], image_size: int | None
) -> None:
    """Refuse pictures that would be much larger than their files, all being as large as one."""
    size = len(files) * first.nbytes
    found = sum(file.stat().st_size for file in files if file.is_file()) if size > ROOM else size
    if size > max(ROOM, RATIO * found):
        height, width = first.shape[:2]
        raise ValueError(
            f"The {len(files)} pictures in {folder} would grow from {found / 1e6:.3g} to "
            f"{size / 1e6:.0f} MB, each of {width}x{height} pixels, and no more than {RATIO} times "
            f"the size of the files is admitted. Pass {'a smaller ' if image_size else ''}"
            "image_size, or move some of them away."
        )


def _unlike(file: Path, pixels: NDArray[np.uint8], first: Path, others: NDArray[np.uint8]) -> str:
    """The sentence for two pictures that do not go together."""
    if pixels.shape[2] != others.shape[2]:
        kinds = {1: "grey", 3: "coloured"}
        return (
            f"{file} is {kinds[pixels.shape[2]]}, but {first} is {kinds[others.shape[2]]}. "
            "Pass channels=1 to bring all to grey, or channels=3 to colour."
        )
    sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (pixels, others)]
    return (
        f"{file} has {sizes[0]} pixels, but {first} has {sizes[1]} (width x height). "
        "Pass image_size=... to cut out the middles and bring them to one size."
    )


def class_names(folder: Path) -> list[str]:
    """The sorted names of the subfolders, which are classes, empty ones too.

    What systems put beside them, such as ``__MACOSX``, is none.
    """
    found = (path.name for path in _visible(folder) if path.is_dir())
    return sorted(name for name in found if name not in SYSTEM_FOLDERS)


def _labelled(folder: Path) -> dict[Path, int]:
    """The pictures in a folder and its subfolders, and the label of each."""
    subfolders = [folder / name for name in class_names(folder)]
    files = {
        file: label
        for label, place in enumerate([folder, *subfolders], start=-1)
        for file in sorted(_visible(place))
        if not file.is_dir()
    }
    found = {file: label for file, label in files.items() if file.suffix.lower() in SUFFIXES}
    left_out = _left_out([file for file in files if file not in found], subfolders)
    if not found:
        raise ValueError(
            f"There are no pictures in the folder {folder} or its subfolders{left_out}. "
            f"Put files there that end in {', '.join(SUFFIXES)}; folders in its subfolders are not "
            "looked into."
        )
    if left_out:
        _warn(f"Of the pictures in {folder}, {len(found)} are read{left_out}")
    return found


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _left_out(files: list[Path], subfolders: list[Path]) -> str:
    """How many pictures are left out of a folder, and why; "" if none is."""
    kinds = Counter(file.suffix.lower() for file in files)
    reasons = [
        f"{kinds[suffix]} that end in {suffix} (save them as PNG or JPEG)"
        for suffix in sorted(kinds.keys() & OTHER_SUFFIXES)
    ]
    if kinds[""]:
        reasons.append(f"{kinds['']} without a suffix (if they are pictures, add it, as .png)")
    below = ((place, path) for place in subfolders for path in place.glob("*/**/*"))
    deeper = [
        path
        for place, path in itertools.islice(below, 100_000)  # not all of a home folder
        if path.suffix.lower() in OTHER_SUFFIXES.union(SUFFIXES)
        and not any(part.startswith(".") for part in path.relative_to(place).parts)
    ]
    if deeper:
        example = deeper[0].parent
        reasons.append(f"{len(deeper)} in folders of its subfolders, such as {example} (move them)")
    return f", and these are left out: {'; '.join(reasons)}" if reasons else ""


def _warn(text: str) -> None:
    checks.warn(f"{text}.")
