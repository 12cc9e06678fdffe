"""Images as the models want them: float32 (n, height, width, channels) in [-1, 1].

The default is scikit-learn's 1,797 handwritten digits of 8x8 pixels, which need no download and
are split into a training part and a held-out part once and for all. The pixel faces of ``faces.py``
are drawn, as many as are asked for. MNIST, Fashion-MNIST and CIFAR-10 come through Keras; a folder
of pictures or an ``.npz`` file works just as well.
"""

from __future__ import annotations

import contextlib
import functools
import os
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough import checks, faces
from diffusion_walkthrough.files import UNREADABLE_NPZ, pictures
from diffusion_walkthrough.files.archives import (
    Header,
    array_header,
    array_names,
    opened_archive,
    read_array,
)

DATA_SET_NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "faces")
SPLIT_NAMES = ("train", "test")
DIGITS_TRAINING_COUNT = 1500
FACES_COUNT = 10_000
COMPANION_INDEX = 1354  # a three that everyone reads as a three
NO_LABEL = -1
LARGEST_SIDE = 4096
FOLDER_SIDE = 16  # of a folder's pictures on a page: two cores train on them in minutes
HELD_OUT_EVERY = 6  # of a set without a test split, each sixth image
ROOM = 2**28  # numbers to which any images may be resized, which are 1 GB
RATIO = 4  # and many to so many times as many
HARDLY_ANY = 0.02  # images of such small values are grey: their range is another than [-1, 1]
NEARLY_BLACK = 32  # no pixel of a whole set above it: its range is another than 0 to 255

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int32]

# Where Keras looks for a data set before it downloads, inside its own folder.
_KERAS_FILES = {
    "mnist": "datasets/mnist.npz",
    "fashion_mnist": "datasets/fashion-mnist/ (four .gz files)",
    "cifar10": "datasets/cifar-10-batches-py-target_archive (the .tar.gz)",
}


def load_images(
    name: str | os.PathLike[str] = "digits",
    image_size: int | None = None,
    split: str = "train",
    n: int | None = None,
    channels: int | None = None,
    attributes: Sequence[str] | None = None,
) -> tuple[Images, Labels]:
    """Load a data set by name, or your own pictures by path.

    ``name`` is "digits" (8x8, grey, in scikit-learn), "mnist", "fashion_mnist" (28x28, grey),
    "cifar10" (32x32, colour) or "faces" (16x16, colour, drawn by ``faces.draw``), the path of a
    folder of pictures, or the path of an ``.npz`` file.

    The labels of "faces" are what the heads wear, as in ``faces.STANDARD.names["hat"]``; with
    ``attributes``, such as ("hat", "glasses"), a column for each, -1 for a colour that nothing
    shows. They have a split more, "kept_out", of faces such as the others do not show.

    A folder's pictures are read in the order of their names. Those in its subfolders are labelled
    0, 1, ... by the sorted names of these (empty ones count, so that held-out pictures can have the
    same), those directly in it with -1. What is not read is counted in a warning. A folder has a
    "train" split only. An ``.npz`` holds ``images`` (and ``labels``), all of it "train", or
    ``x_train``, ``x_test`` (and ``y_train``, ``y_test``), as uint8, or as floats in [-1, 1].

    ``image_size`` cuts each image to its central square and resizes it to that side, antialiased.
    ``channels=1`` brings all images to grey, ``channels=3`` to colour; left out, the two do not go
    together. ``n`` takes the first n images; left out, all, and of the faces 10,000.

    Returns images, float32 (n, height, width, channels) in [-1, 1], and labels, int32 (n,), -1
    where there are none. Raises ValueError, TypeError, FileNotFoundError or ConnectionError.
    """
    checks.choice("split", split, faces.SPLIT_NAMES if name == "faces" else SPLIT_NAMES)
    image_size = None if image_size is None else checks.side("image_size", image_size, LARGEST_SIDE)
    n = None if n is None else checks.integer("n", n, 1)
    if channels not in (None, 1, 3) or isinstance(channels, bool):
        rule = "channels must be 1, for grey, or 3, for colour"
        raise ValueError(checks.message("channels", channels, rule, "Leave it out to keep all"))
    _check_attributes(name, attributes)
    path = None if name in DATA_SET_NAMES else _existing_path(name)
    if path and path.is_dir():
        return _first(n, *_load_folder(path, image_size, split, channels))
    named = _load_npz(path, split) if path else _load_named(name, split, n, attributes)
    images, labels = _first(n, *named)
    images = _in_colours(images, channels)
    return (images if image_size is None else _resized(images, image_size)), labels


def _load_named(
    name: str | os.PathLike[str], split: str, n: int | None, attributes: Sequence[str] | None
) -> tuple[Images, Labels]:
    """A data set that goes by its name."""
    _warn_of_namesake(str(name))
    if name == "digits":
        return _load_digits(split)
    return (
        _draw_faces(split, n, attributes) if name == "faces" else _load_with_keras(str(name), split)
    )


def _warn_of_namesake(name: str) -> None:
    """Say that a folder of pictures is passed over, which has the name of a data set."""
    files = (file for pattern in ("*", "*/*") for file in Path(name).glob(pattern))
    if any(file.suffix.lower() in pictures.SUFFIXES for file in files):
        checks.warn(
            f"There is a folder {name} of pictures here, and {name!r} is the data set of that "
            f"name all the same. './{name}' means the folder."
        )


def training_and_held_out(
    name: str | os.PathLike[str] = "digits",
    n: int | None = None,
    held_out: int | None = None,
) -> tuple[Images, Labels, Images]:
    """What a page needs of any data set: images to train on, their labels, and held-out images.

    ``name`` is as for ``load_images``. Held out is the split "test"; of pictures in a folder, and
    of an ``.npz`` that holds ``images`` only, each sixth one. A folder's pictures are resized to a
    side of ``FOLDER_SIDE`` pixels. ``n`` and ``held_out`` are the most images of each kind; left
    out, all of them. Raises as ``load_images`` does, and ValueError if fewer than 12 images have to
    be divided.
    """
    if name in DATA_SET_NAMES or _has_test(_existing_path(name)):
        (images, labels), (others, _) = (load_images(name, split=split) for split in SPLIT_NAMES)
        return images[:n], labels[:n], others[:held_out]
    folder = _existing_path(name).is_dir()
    everything, labels = load_images(name, image_size=FOLDER_SIDE if folder else None)
    if len(everything) < 2 * HELD_OUT_EVERY:
        raise ValueError(
            f"{name} holds {len(everything)} images, but at least {2 * HELD_OUT_EVERY} are needed "
            "to train on some and to hold some out. Add pictures; some hundred are a good start."
        )
    aside = np.arange(len(everything)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return everything[~aside][:n], labels[~aside][:n], everything[aside][:held_out]


def _has_test(path: Path) -> bool:
    """Whether a file brings a test split of its own; what cannot be read, ``load_images`` tells."""
    with contextlib.suppress(*UNREADABLE_NPZ), opened_archive(path) as archive:
        return "x_test" in array_names(archive)
    return False


def companion_of(
    name: str | os.PathLike[str], images: Images, labels: Labels
) -> tuple[Images, int]:
    """The image that goes through a page, and its label: of the digits the 3, as everywhere.

    Of other data sets it is the first of these images that has the highest label, so that of the
    faces, for instance, it is one in the last hat.
    """
    if name == "digits":
        return companion_digit()
    place = int(np.argmax(labels))
    return images[place].copy(), int(labels[place])


def companion_digit() -> tuple[Images, int]:
    """The digit that goes through the whole course, float32 (8, 8, 1) in [-1, 1], and its label, 3.

    It is number ``COMPANION_INDEX`` of the training digits.
    """
    image, label = _companion()
    return image.copy(), label


@functools.cache  # sliders ask for it a dozen times a second
def _companion() -> tuple[Images, int]:
    images, labels = _load_digits("train")
    return images[COMPANION_INDEX], int(labels[COMPANION_INDEX])


def from_uint8(pixels: ArrayLike) -> Images:
    """Map pixels 0 ... 255 to [-1, 1], as float32: x = pixel / 127.5 - 1. Any shape.

    Raises TypeError if the pixels are not uint8, as other types do not say what their range is.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"from_uint8 takes pixels of type uint8, but got {pixels.dtype}. "
            "If the values are whole numbers from 0 to 255, convert with .astype('uint8')."
        )
    images = pixels.astype(np.float32)
    images /= 127.5
    images -= 1.0
    return images


def to_uint8(images: ArrayLike) -> NDArray[np.uint8]:
    """Map [-1, 1] to pixels 0 ... 255, rounded to the nearest and clipped. Any shape.

    Rounding undoes ``from_uint8`` exactly; truncating would lose one level for about half of all
    pixels. Raises ValueError for NaN, which has no colour.
    """
    values = np.asarray(images, dtype=np.float32)
    if np.isnan(values).any():
        raise ValueError(
            f"{int(np.isnan(values).sum())} of {values.size} values are NaN and have no colour. "
            "Look for the step that made them, for example with np.isnan(images).any()."
        )
    return np.rint((np.clip(values, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


#: Rounding that images are allowed outside [-1, 1].
RANGE_TOLERANCE = 1e-4


def check_image_range(images: ArrayLike) -> None:
    """Raise ValueError unless the images fill [-1, 1] as the diffusion model expects. Any shape.

    The noise has variance 1, and every formula counts on images of about that size around 0.
    Refused are values that are not finite or lie outside [-1, 1]; images that vary without ever
    falling below 0, or hardly, which look like [0, 1] unless ``from_uint8`` made them; and those
    that end just at -0.5 and 0.5, or stay within 0.02 of 0. The message says which range it looks
    like, and how to convert.
    """
    values = np.asarray(images)
    if values.size == 0:
        raise ValueError("There are no images: the array is empty. Check how it was selected.")
    low, high = float(values.min()), float(values.max())
    largest = max(-low, high)
    digits = ".7g" if 1 < largest < 1.001 else ".4g"
    found = f"The images run from {low:{digits}} to {high:{digits}}, but must lie in [-1, 1]"
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{found}. Remove what is not finite (NaN or infinity).")
    if low == high and abs(low) <= 1:
        return  # of one colour, which tells nothing
    within = largest <= 1 + RANGE_TOLERANCE
    # Resizing overshoots on both sides of where the values lie; those of [0, 1] are then seldom
    # below 0, and never far.
    near = low > (-0.3 if within else -0.5) * high
    seldom_below_0 = low >= 0 or (near and values.mean() > 0 and np.mean(values < 0) < 0.35)
    if seldom_below_0 and not (within and _of_pixels(values)):
        raise ValueError(f"{found}. {_from_0_on(low, high, values.dtype)}")
    if not within:
        raise ValueError(f"{found}. {_around_0(low, high)}")
    if abs(low + 0.5) + abs(high - 0.5) < RANGE_TOLERANCE:
        raise ValueError(
            f"{found} and fill it. They look like [-0.5, 0.5]: convert with images * 2."
        )
    if largest <= HARDLY_ANY and not _of_pixels(values):
        raise ValueError(f"{found} and fill it. {_around_0(low, high)}")


def _of_pixels(values: NDArray[Any]) -> bool:
    """Whether all values are some that ``from_uint8`` makes, odd multiples of 1/255.

    Those of pixels / 255, which lie in [0, 1], are even ones too, such as that of black.
    """
    steps = values * 255.0
    return bool(np.all(np.abs((steps - 1) / 2 - np.rint((steps - 1) / 2)) < 1e-3))


def _from_0_on(low: float, high: float, dtype: np.dtype) -> str:
    """What images look like that are hardly ever below 0, and how to convert them."""
    if high <= HARDLY_ANY:
        return "It looks like [0, 1], divided by 255 once too often: convert with images * 510 - 1."
    tops = [(1.5, 1.0), (NEARLY_BLACK, high), (330, 255.0)]
    top = next((top for limit, top in tops if high <= limit), 65535.0)
    images = "images"
    if low < 0 or high > top + RANGE_TOLERANCE:
        images = f"images.clip(0, {top:g})"
    if top == 1:
        two = 2 if dtype.kind == "f" else 2.0  # or uint8 would stay uint8, which has no -1
        return f"It looks like [0, 1]: convert with {images} * {two} - 1."
    if high > 1.3 * top:
        return "Scale the data: the lowest value becomes -1, and the highest 1."
    return f"It looks like [0, {top:g}]: convert with {images} / {top / 2:g} - 1."


def _around_0(low: float, high: float) -> str:
    """What images look like that leave [-1, 1], or hardly leave 0, and how to convert them."""
    if max(-low, high) <= 1.001 / 255:
        return "It looks like [-1, 1], divided by 255: convert with images * 255."
    if HARDLY_ANY < max(-low, high) <= 1.5:
        return "Clip what a sampler overshot with images.clip(-1, 1)."
    if HARDLY_ANY < max(-low, high) <= 5:
        return (
            "It looks as if a mean was taken off and the rest divided by the deviation: undo that, "
            "images * deviation + mean, and then bring [0, 1] to [-1, 1] with images * 2 - 1."
        )
    if -128 <= low < -64 and 64 < high <= 127:
        return "It looks like [-128, 127]: convert with (images + 128) / 127.5 - 1."
    return "Scale the data: the lowest value becomes -1, and the highest 1."


# Checks ------------------------------------------------------------------------------------------


def _check_attributes(name: str | os.PathLike[str], attributes: Sequence[str] | None) -> None:
    known = tuple(faces.STANDARD.names)
    if attributes is None:
        return
    if name != "faces":
        rule = f"only faces have attributes, and {checks.shown(name)} has one label for each image"
        raise ValueError(checks.message("attributes", attributes, rule, "Leave them out"))
    if isinstance(attributes, str) or not attributes:
        rule = "attributes must be a list of names, at least one"
        raise ValueError(checks.message("attributes", attributes, rule, "Write ['hat']"))
    for i, attribute in enumerate(attributes):
        checks.choice(f"attributes[{i}]", attribute, known)


def _existing_path(name: str | os.PathLike[str]) -> Path:
    path = checks.path("name", name)
    if path.exists():
        return path
    known = ", ".join(map(repr, DATA_SET_NAMES))
    if isinstance(name, str) and path.name == name and not path.suffix:
        guess = checks.did_you_mean(name, DATA_SET_NAMES, "Check the name.")
        raise ValueError(
            f"name={name!r} is neither a data set nor a file or folder here. {guess} "
            f"The data sets are {known}; or give the path of a folder or an .npz file."
        )
    raise FileNotFoundError(
        f"There is no file or folder {path}. Check the path and the current folder ({Path.cwd()}), "
        f"or use one of {known}."
    )


def _first(n: int | None, images: Images, labels: Labels) -> tuple[Images, Labels]:
    if n is not None and n > len(images):
        rule = f"there are {len(images)} images in this split"
        raise ValueError(checks.message("n", n, rule, "Ask for fewer, or leave n out for all"))
    return images[:n], labels[:n]


def _check_headers(source: str, images: Header, labels: Header | None) -> None:
    """Refuse images and labels of a shape or type that nothing can be made of."""
    shape, dtype = images.shape, images.dtype
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or 0 in shape or shape[-1] > 4:
        hint = ""
        if len(shape) == 4 and shape[1] <= 4:
            hint = " The channels seem to come first: move them with np.moveaxis(images, 1, -1)."
        raise ValueError(
            f"{source} has images of shape {shape}, but they must be (n, height, width) or "
            f"(n, height, width, channels) with at least one image and 1 to 4 channels.{hint}"
        )
    if dtype != np.uint8 and dtype.kind != "f":
        highest, factor = (1, " * 255") if dtype.kind == "b" else (255, "")
        raise TypeError(
            f"{source} has images of type {dtype}, but they must be uint8, or floats in "
            f"[-1, 1]. Convert them before saving: if they run from 0 to {highest} with "
            f"images.astype('uint8'){factor}."
        )
    count = shape[0]
    if labels and (labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"{source} has labels of shape {labels.shape} and type {labels.dtype}, but they must "
            f"be whole numbers, one for each of the {count} images. Convert or leave them out."
        )


def _checked_images(source: str, images: NDArray[Any]) -> Images:
    """Images of any accepted type and shape as float32 (n, h, w, c)."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype == np.uint8:
        _warn_of_darkness(source, images)
        return from_uint8(images)
    try:
        check_image_range(images)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return images.astype(np.float32).clip(-1, 1)


def _checked_labels(source: str, labels: NDArray[Any] | None, count: int) -> Labels:
    if labels is None:
        return np.full(count, NO_LABEL, dtype=np.int32)
    limits = np.iinfo(np.int32)
    if labels.min() < limits.min or labels.max() > limits.max:
        raise ValueError(
            f"{source} has labels from {labels.min()} to {labels.max()}, but they must fit 32 "
            "bits. Number the classes 0, 1, 2 and so on, or leave the labels out."
        )
    return labels.reshape(count).astype(np.int32)


# The sources -------------------------------------------------------------------------------------


def _load_digits(split: str) -> tuple[Images, Labels]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    part = slice(None, DIGITS_TRAINING_COUNT)
    if split == "test":
        part = slice(DIGITS_TRAINING_COUNT, None)
    images = digits.images[order[part], :, :, np.newaxis] / 8.0 - 1.0  # from 0 ... 16
    return images.astype(np.float32), digits.target[order[part]].astype(np.int32)


def _draw_faces(
    split: str, n: int | None, attributes: Sequence[str] | None
) -> tuple[Images, Labels]:
    images, drawn = faces.draw(FACES_COUNT if n is None else n, split=split)
    if attributes is None:
        return images, drawn["hat"]
    return images, np.stack([drawn[name] for name in attributes], axis=1)


def _load_with_keras(name: str, split: str) -> tuple[Images, Labels]:
    import keras

    try:
        parts = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
        raise ConnectionError(
            f"{name!r} could not be loaded through Keras ({error}). Connect to the network and try "
            f"again; or put the file where Keras looks first, {home / _KERAS_FILES[name]}; or use "
            'load_images("digits"), which needs no network, or the path of a folder or .npz.'
        ) from error
    images, labels = parts[SPLIT_NAMES.index(split)]
    if images.ndim == 4 and keras.config.image_data_format() == "channels_first":
        images = np.moveaxis(images, 1, -1)
    _check_headers(name, *(Header(array.shape, array.dtype) for array in (images, labels)))
    told = _checked_labels(name, labels, len(images))
    return _checked_images(name, images), told


def _load_npz(path: Path, split: str) -> tuple[Images, Labels]:
    if path.suffix.lower() != ".npz":
        raise ValueError(
            f"{path} is neither a folder nor an .npz file. Put pictures into a folder and give "
            "the folder, or save arrays with np.savez(file, images=..., labels=...)."
        )
    keys = (f"x_{split}", f"y_{split}")
    with _opened_npz(path) as archive:
        names = array_names(archive)
        if split == "train" and keys[0] not in names:
            keys = ("images", "labels")
        found = {key: array_header(archive, key) for key in keys if key in names}
    if keys[0] not in found:
        held = ", ".join(names[:9])[:200] or "nothing"
        raise ValueError(
            f"{path} has no images for split={split!r}: it holds {held}. "
            "Name the arrays images and labels (these are the 'train' split), or x_train, y_train, "
            "x_test and y_test."
        )
    _warn_of_unread(path, names, found)
    source, labels = str(path), None
    _check_headers(source, found[keys[0]], found.get(keys[1]))
    if keys[1] in found:
        with _opened_npz(path) as archive:
            labels = read_array(archive, keys[1])
    told = _checked_labels(source, labels, found[keys[0]].shape[0])  # before the images take room
    with _opened_npz(path) as archive:
        images = read_array(archive, keys[0])
    return _checked_images(source, images), told


@contextlib.contextmanager
def _opened_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an .npz to read of it; raises ValueError for what is wrong with it, then or now."""
    try:
        with opened_archive(path) as archive:
            yield archive
    except UNREADABLE_NPZ as error:
        raise ValueError(
            f"{path} cannot be read as an .npz of plain arrays ({str(error)[:300]}). "
            "Get it again, or write it anew with np.savez(file, images=..., labels=...)."
        ) from error


def _warn_of_unread(path: Path, names: Collection[str], read: Collection[str]) -> None:
    """Say that a file holds arrays that nobody looks at, such as labels by another name."""
    known = {f"{kind}_{split}" for kind in "xy" for split in SPLIT_NAMES}
    if unread := sorted({*names} - {*read} - (known if "images" not in read else set())):
        checks.warn(
            f"{path} also holds {', '.join(unread)[:200]}, which is not read. Labels are named "
            "labels beside images, y_train beside x_train, and y_test beside x_test."
        )


def _load_folder(
    folder: Path, image_size: int | None, split: str, channels: int | None
) -> tuple[Images, Labels]:
    if split != "train":
        raise ValueError(
            f"split={split!r}: all pictures of a folder are the 'train' split. "
            "Put the held-out pictures into a folder of their own and give that."
        )
    pixels, labels = pictures.read_folder(folder, image_size, channels)
    _warn_of_darkness(str(folder), pixels)
    return from_uint8(pixels), np.array(labels, dtype=np.int32)


def _warn_of_darkness(source: str, pixels: NDArray[np.uint8]) -> None:
    """Say that images of type uint8 do not use its range: 0 and 1, for instance, are both black."""
    if 0 < (highest := int(pixels.max())) <= NEARLY_BLACK:
        checks.warn(
            f"No pixel of the {len(pixels)} images in {source} is above {highest}, where 255 is "
            f"white: all are nearly black. If their values run from 0 to {highest}, stretch them, "
            f"pixels * {255 / highest:g}, and save them again."
        )


def _in_colours(images: Images, channels: int | None) -> Images:
    """The images in grey (1) or colour (3), if that is asked for."""
    if channels in (None, images.shape[-1]):
        return images
    if images.shape[-1] == 1:
        return np.repeat(images, 3, axis=-1)
    if images.shape[-1] == 3:
        weights = np.array([0.299, 0.587, 0.114], np.float32)  # as in ITU-R 601, and Pillow
        return (images @ weights)[..., np.newaxis]
    rule = f"images with {images.shape[-1]} channels are neither grey nor coloured"
    raise ValueError(checks.message("channels", channels, rule, "Leave channels out"))


def _resized(images: Images, image_size: int) -> Images:
    """Each image's central square, resized to a side of ``image_size``, antialiased."""
    from PIL import Image, ImageOps

    count, height, width, channels = images.shape
    numbers = count * image_size**2 * channels
    if numbers > max(ROOM, RATIO * images.size):
        rule = (
            f"resized, the {count} images of {width}x{height} pixels would grow to "
            f"{numbers * 4 / 1e9:.3g} GB"
        )
        remedy = "Choose a smaller side, or fewer images with n"
        raise ValueError(checks.message("image_size", image_size, rule, remedy))
    result = np.empty((count, image_size, image_size, channels), dtype=np.float32)
    for i, image in enumerate(images):
        for c in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(image[..., c]))
            fitted = ImageOps.fit(plane, (image_size, image_size), Image.Resampling.BILINEAR)
            result[i, :, :, c] = np.asarray(fitted)
    return result.clip(-1.0, 1.0, out=result)
