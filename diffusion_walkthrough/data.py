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
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough import checks, faces
from diffusion_walkthrough.files import UNREADABLE_NPZ

if TYPE_CHECKING:
    from PIL import Image as PillowImage

DATA_SET_NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "faces")
SPLIT_NAMES = ("train", "test")
PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
DIGITS_TRAINING_COUNT = 1500
FACES_COUNT = 10_000
COMPANION_INDEX = 1354  # a three that everyone reads as a three
NO_LABEL = -1
LARGEST_SIDE = 4096
FOLDER_SIDE = 16  # of a folder's pictures on a page: two cores train on them in minutes
HELD_OUT_EVERY = 6  # of a set without a test split, each sixth image

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
) -> tuple[Images, Labels]:
    """Load a data set by name, or your own pictures by path.

    ``name`` is "digits" (8x8, grey, in scikit-learn), "mnist", "fashion_mnist" (28x28, grey),
    "cifar10" (32x32, colour) or "faces" (16x16, colour, drawn by ``faces.draw``), the path of a
    folder of pictures, or the path of an ``.npz`` file.

    The labels of "faces" are what the heads wear: 0 for nothing, and so on as in
    ``faces.STANDARD.names["hat"]``. Besides "train" and "test" they have the split "kept_out", of
    faces such as neither of the two shows (see ``faces.KEPT_OUT``).

    A folder's pictures are read in the order of their names. Those in its subfolders are labelled
    0, 1, ... by the sorted names of the subfolders, those directly in it with -1. A folder has a
    "train" split only. An ``.npz`` holds ``images`` (and ``labels``), all of it "train", or
    ``x_train``, ``x_test`` (and ``y_train``, ``y_test``), as uint8, or as floats in [-1, 1].

    ``image_size`` cuts each image to its central square and resizes it to that side, antialiased.
    ``n`` takes the first n images; left out, all of them, and of "faces", which never end, 10,000.

    Returns images, float32 (n, height, width, channels) in [-1, 1], and labels, int32 (n,), -1
    where there are none. Raises ValueError, TypeError, FileNotFoundError or (without a network)
    ConnectionError, each naming the problem and the remedy.
    """
    checks.choice("split", split, faces.SPLIT_NAMES if name == "faces" else SPLIT_NAMES)
    if image_size is not None and checks.side("image_size", image_size) > LARGEST_SIDE:
        raise ValueError(f"image_size={image_size}: at most {LARGEST_SIDE} pixels. Use e.g. 32.")
    n = None if n is None else checks.integer("n", n, 1)
    if name == "digits":
        images, labels = _load_digits(split)
    elif name == "faces":
        images, labels = _draw_faces(split, n)
    elif name in DATA_SET_NAMES:
        images, labels = _load_with_keras(str(name), split)
    else:
        path = _existing_path(name)
        if path.is_dir():
            return _first(n, *_load_folder(path, image_size, split))
        images, labels = _load_npz(path, split)
    images, labels = _first(n, images, labels)
    return (images if image_size is None else _resized(images, image_size)), labels


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
    with contextlib.suppress(*UNREADABLE_NPZ), np.load(path, allow_pickle=False) as arrays:
        return "x_test" in getattr(arrays, "files", ())
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
    Refused are values that are not finite or lie outside [-1, 1], and images that vary without
    ever falling below 0: these look like [0, 1]. The message says which range it looks like, and
    how to convert.
    """
    values = np.asarray(images)
    if values.size == 0:
        raise ValueError("There are no images: the array is empty. Check how it was selected.")
    low, high = float(values.min()), float(values.max())
    found = f"The images run from {low:.4g} to {high:.4g}, but must lie in [-1, 1]"
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{found}. Remove what is not finite (NaN or infinity).")
    if low >= 0 and 1.5 < high <= 255:
        raise ValueError(f"{found}. It looks like [0, 255]: convert with images / 127.5 - 1.")
    if low >= 0 and high <= 1 + RANGE_TOLERANCE and low < high:
        raise ValueError(f"{found}. It looks like [0, 1]: convert with images * 2 - 1.")
    if max(-low, high) > 1 + RANGE_TOLERANCE:
        raise ValueError(
            f"{found}. Clip what a sampler overshot with images.clip(-1, 1), or scale the data."
        )


# Checks ------------------------------------------------------------------------------------------


def _existing_path(name: str | os.PathLike[str]) -> Path:
    path = Path(name).expanduser()
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


def _checked_arrays(source: str, images: Any, labels: Any) -> tuple[Images, Labels]:
    """Images of any accepted type and shape as float32 (n, h, w, c), with their labels."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] > 4:
        hint = ""
        if images.ndim == 4 and images.shape[1] <= 4:
            hint = " The channels seem to come first: move them with np.moveaxis(images, 1, -1)."
        raise ValueError(
            f"{source} has images of shape {images.shape}, but they must be (n, height, width) or "
            f"(n, height, width, channels) with at least one image and 1 to 4 channels.{hint}"
        )
    if images.dtype == np.uint8:
        images = from_uint8(images)
    elif images.dtype.kind == "f":
        check_image_range(images)
        images = images.astype(np.float32).clip(-1, 1)
    else:
        raise TypeError(
            f"{source} has images of type {images.dtype}, but they must be uint8, or floats in "
            "[-1, 1]. Convert them before saving."
        )
    return images, _checked_labels(source, labels, len(images))


def _checked_labels(source: str, labels: Any, count: int) -> Labels:
    if labels is None:
        return np.full(count, NO_LABEL, dtype=np.int32)
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{source} has labels of shape {labels.shape} and type {labels.dtype}, but they must "
            f"be whole numbers, one for each of the {count} images. Convert or leave them out."
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


def _draw_faces(split: str, n: int | None) -> tuple[Images, Labels]:
    images, attributes = faces.draw(FACES_COUNT if n is None else n, split=split)
    return images, attributes["hat"]


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
    return _checked_arrays(name, images, labels)


def _load_npz(path: Path, split: str) -> tuple[Images, Labels]:
    if path.suffix.lower() != ".npz":
        raise ValueError(
            f"{path} is neither a folder nor an .npz file. Put pictures into a folder and give "
            "the folder, or save arrays with np.savez(file, images=..., labels=...)."
        )
    keys = (f"x_{split}", f"y_{split}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays.files
            if split == "train" and keys[0] not in names:
                keys = ("images", "labels")
            images, labels = (arrays.get(key) for key in keys)
    except UNREADABLE_NPZ as error:
        raise ValueError(
            f"{path} cannot be read as an .npz of plain arrays ({error}). "
            "Get it again, or write it anew with np.savez(file, images=..., labels=...)."
        ) from error
    if images is None:
        raise ValueError(
            f"{path} has no images for split={split!r}: it holds {', '.join(names) or 'nothing'}. "
            "Name the arrays images and labels (these are the 'train' split), or x_train, y_train, "
            "x_test and y_test."
        )
    return _checked_arrays(str(path), images, labels)


def _load_folder(folder: Path, image_size: int | None, split: str) -> tuple[Images, Labels]:
    if split != "train":
        raise ValueError(
            f"split={split!r}: all pictures of a folder are the 'train' split. "
            "Put the held-out pictures into a folder of their own and give that."
        )
    labels = _labelled_pictures(folder)
    first = next(iter(labels))
    arrays: list[NDArray[np.uint8]] = []
    for file in labels:
        arrays.append(_read_picture(file, image_size))
        if arrays[-1].shape != arrays[0].shape:
            raise ValueError(
                f"{file} is {arrays[-1].shape} (height, width, channels), but {first} is "
                f"{arrays[0].shape}. Pass image_size=... to bring all to one size; convert "
                "pictures yourself so that all are grey or all are coloured."
            )
    return from_uint8(np.stack(arrays)), np.array([*labels.values()], dtype=np.int32)


def _labelled_pictures(folder: Path) -> dict[Path, int]:
    """The pictures in a folder and its subfolders, and the label of each."""
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {
        file: label
        for label, place in enumerate([folder, *subfolders], start=NO_LABEL)
        for file in sorted(place.iterdir())
        if file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".")
    }
    if not found:
        raise ValueError(
            f"There are no pictures in the folder {folder} or its subfolders. "
            f"Put files there that end in {', '.join(PICTURE_SUFFIXES)}."
        )
    return found


def _read_picture(file: Path, image_size: int | None) -> NDArray[np.uint8]:
    """One picture as uint8 (height, width, channels), with 1 or 3 channels."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            picture = _flattened(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{file} cannot be read as a picture ({error}). Remove it or save it again as PNG."
        ) from error
    if image_size is not None:
        picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _flattened(picture: PillowImage.Image) -> PillowImage.Image:
    """The picture in grey (mode L) or colour (mode RGB); what is transparent becomes white."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"its mode {picture.mode} has more than 8 bits a channel")
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("L" if grey else "RGB")


def _resized(images: Images, image_size: int) -> Images:
    """Each image's central square, resized to a side of ``image_size``, antialiased."""
    from PIL import Image, ImageOps

    count, _, _, channels = images.shape
    result = np.empty((count, image_size, image_size, channels), dtype=np.float32)
    for i, image in enumerate(images):
        for c in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(image[..., c]))
            fitted = ImageOps.fit(plane, (image_size, image_size), Image.Resampling.BILINEAR)
            result[i, :, :, c] = np.asarray(fitted)
    return result.clip(-1.0, 1.0, out=result)
