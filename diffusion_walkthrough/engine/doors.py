"""What Keras's methods are given, checked before any work: images, labels, weights and options.

Each check returns what it is given in one normal form, or says what is wrong with it and how to
mend that; most wrong images can be made into right ones in a line.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.data import check_image_range
from diffusion_walkthrough.engine.labels import as_array
from diffusion_walkthrough.engine.optimizer import bare_optimizer
from diffusion_walkthrough.parameters import DiffusionParameters

_LARGEST_LABEL = 2**31 - 1
_NUMBERED = "for example with np.unique(labels, return_inverse=True)[1]"


# Images, labels and weights ---------------------------------------------------------------------


def is_data_set(x: Any) -> bool:
    """Whether images come in batches, one after the other, and not as one array."""
    if isinstance(x, (list, tuple, str, bytes, os.PathLike, Mapping, set)):
        return False
    is_array = ops.is_tensor(x) or hasattr(x, "__array__") or hasattr(x, "toarray")
    return not is_array and (hasattr(x, "__iter__") or hasattr(x, "__getitem__"))


def as_images(images: Any) -> np.ndarray:
    """Images of any kind of array, tensor or list as float32; ValueError if they are none."""
    _check_one_part(images)
    _check_in_memory(images)
    checks.unmasked("images", images)
    try:
        array = images if isinstance(images, np.ndarray) else ops.convert_to_numpy(images)
        array = np.atleast_1d(np.asarray(array))
    except Exception as error:  # each backend has its own, for lists of arrays of several sizes
        raise ValueError(
            f"images of type {type(images).__name__} cannot be made into one array "
            f"({str(error)[:120]}). All must be of one size: load_images(…, image_size=…) brings "
            "them to it."
        ) from error
    if array.dtype.name == "bfloat16":
        array = array.astype("float32")
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"images are of type {array.dtype}; they must be numbers, float32 in [-1, 1]. "
            f"{_remedy_for_type(array)}"
        )
    with np.errstate(over="ignore"):  # check_images tells of infinity
        return array.astype("float32", copy=False)


def _check_in_memory(images: Any) -> None:
    """Refuse what is no array, nor a list of arrays, with how to get one."""
    no_array = images is None or callable(images)  # a function that yields batches, uncalled
    if no_array or isinstance(images, (str, bytes, os.PathLike, Mapping, set)):
        remedy = "Pass an array, for example load_images('digits')[0]"
        if callable(images):
            remedy = "Call it, and pass what it returns, with parentheses behind its name"
        if isinstance(images, (str, os.PathLike)):
            remedy = f"Load them first: load_images({str(images)!r})[0]"
        rule = "images must be an array (n, height, width, channels), or a data set of batches"
        raise ValueError(checks.message("x", images, rule, remedy))
    if is_data_set(images):
        rule = "images must be one array here, and this is a data set of batches"
        remedy = "Pass one of its batches, for example next(iter(data)), or the data set to fit"
        raise ValueError(checks.message("x", images, rule, remedy))
    if hasattr(images, "toarray"):
        kind = type(images).__name__
        raise ValueError(f"a {kind} is sparse, and images must be an array: pass x.toarray().")


def _check_one_part(images: Any) -> None:
    """Refuse images together with their labels, or weights, as Keras and load_images have them."""
    if not isinstance(images, (tuple, list)):
        return
    if len(images) == 2 and all(map(_are_parts, images)):
        raise ValueError(
            "the images are two pairs, to train on and to test on. Take them apart: (images, "
            "labels), held_out = data. Pass images as x, and labels as y where the network is told "
            "labels."
        )
    if _are_parts(images):
        parts, third = "a pair, as load_images returns", ""
        if len(images) == 3:
            parts, third = "three parts", ", and its third as sample_weight"
        raise ValueError(
            f"the images are {parts}: pass its first part as x, and its second as y where the "
            f"network is told labels{third}."
        )


def _are_parts(images: Any) -> bool:
    """Whether these are images, labels and perhaps weights, and not two or three images."""
    if not isinstance(images, (tuple, list)) or len(images) not in (2, 3):
        return False
    first, *others = map(_axes, images)
    return all(axes < min(first, 2) or (axes == 2 and first > 3) for axes in others)


def _axes(x: Any) -> int:
    if isinstance(x, (tuple, list)):
        return 1 + (_axes(x[0]) if x else 0)
    return len(getattr(x, "shape", ()))


def _remedy_for_type(array: np.ndarray) -> str:
    """How an array of another type becomes one of numbers."""
    if array.dtype.kind == "c":
        return "images.real leaves the real part."
    if array.ndim > 1:
        return "Numbers become such with images.astype('float32')."
    return "np.stack(images) makes one array of several."


def check_images(images: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless images are ``(n, *shape)`` and lie in [-1, 1]."""
    if images.shape[1:] != shape and images.size:
        wanted = ", ".join(map(str, shape))
        remedy = (
            "They are numbers, and no images: of a data set of (number, images), such as enumerate "
            "makes, leave out the numbers."
        )
        if images.ndim > 1:
            remedy = _remedy_for(images.shape, shape)
        raise ValueError(
            f"images have shape {images.shape}; this model needs (n, {wanted}). {remedy}"
        )
    check_image_range(images)


def _remedy_for(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """How images of a wrong shape become right ones."""
    height, width, channels = wanted
    if found == wanted:
        return "It is a single image: pass images[None]; make a data set of them with .batch(32)."
    if found == (height, width) and channels == 1:
        return "It is a single image: pass images[None, ..., None]."
    if len(found) == 3 and found[1:] == (height, width):
        if channels == 1:
            return "The axis of the channels is missing: pass images[..., None]."
        return f"Colours are missing: pass np.repeat(images[..., None], {channels}, axis=-1)."
    if len(found) == 2 and found[1] == height * width * channels:
        return f"They are rows of pixels: pass images.reshape(-1, {height}, {width}, {channels})."
    if len(found) == 4 and found[1:] == (channels, height, width):
        return "The channels come first: pass np.moveaxis(images, 1, -1)."
    if len(found) == 4 and found[1:3] == (height, width):
        return _remedy_for_channels(found[3], channels)
    if len(found) > 4 and found[-3:] == wanted:
        return (
            f"They are batches of batches: pass images.reshape(-1, {height}, {width}, {channels}), "
            "or of a data set data.unbatch()."
        )
    if len(found) == 4 and found[3] == channels and found[1] == found[2]:
        return (
            f"load_images(…, image_size={height}) resizes, or build a model with "
            f"UNetParameters(image_size={found[1]}, …)."
        )
    return (
        f"load_images(…, image_size={height}) cuts and resizes, or build a model with other "
        "UNetParameters."
    )


def _remedy_for_channels(found: int, wanted: int) -> str:
    other = f"or build a model with UNetParameters(channels={found}, …)."
    if found == 4 and wanted == 3:
        return f"The fourth channel says what is transparent: pass images[..., :3], {other}"
    if found == 3 and wanted == 1:
        return f"They are coloured: images.mean(axis=-1, keepdims=True) makes them grey, {other}"
    if found == 1 and wanted == 3:
        return f"They are grey: pass np.repeat(images, 3, axis=-1), {other}"
    return f"The model has {wanted} channel(s): leave out the others, {other}"


def as_labels(labels: Any, images: np.ndarray) -> np.ndarray | None:
    """Labels as int32 ``(n, …)``; ValueError unless there is a whole number for each image."""
    if labels is None:
        return None
    labels = _one_each("labels", labels, images)
    return _whole(labels)


def _whole(labels: np.ndarray) -> np.ndarray:
    """Numbers as int32; ValueError if one of them is not whole, or too large."""
    whole = labels.astype("float64")
    if not ((np.abs(whole) <= _LARGEST_LABEL) & (whole == np.round(whole))).all():
        raise ValueError(
            "labels must be whole numbers that int32 can hold, below 2147483648. Number the "
            f"classes 0, 1, 2 and so on, {_NUMBERED}."
        )
    return labels.astype("int32")


def as_weights(weights: Any, images: np.ndarray) -> np.ndarray | None:
    """Weights as float32 ``(n,)``; ValueError unless there is a finite one for each image."""
    if weights is None:
        return None
    weights = _one_each("weights", weights, images)
    if weights.size != len(images):
        raise ValueError(
            f"weights have shape {weights.shape}, but must be ({len(images)},): sample_weight says "
            "how much an image counts as a whole."
        )
    with np.errstate(over="ignore"):
        weights = weights.astype("float32").reshape(-1)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(
            "a sample_weight is NaN, infinite or below 0. Give each image a finite number, 0 for "
            "one that does not count."
        )
    return weights


def _one_each(name: str, values: Any, images: np.ndarray) -> np.ndarray:
    values = as_array(name, values)
    if values.ndim > 1 and values.shape == images.shape:
        raise ValueError(
            f"{name} have the shape of the images, {values.shape}: this model makes its questions "
            "and their answers itself, out of the images. Leave y out."
        )
    if values.shape[:1] != images.shape[:1] or values.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} have shape {values.shape} and are of type {values.dtype}, but there must be "
            f"one number for each of the {len(images)} images."
        )
    return values


def by_class(sample_weight: Any, class_weight: Any, labels: Any) -> Any:
    """How much each image counts: by itself, and by its class."""
    if class_weight is None:
        return sample_weight
    if not isinstance(class_weight, Mapping):
        rule = "class_weight must be a dictionary from labels to numbers"
        raise ValueError(checks.message("class_weight", class_weight, rule, "Write {0: 1.0}"))
    for label, weight in class_weight.items():
        checks.integer("a label in class_weight", label, -_LARGEST_LABEL)
        checks.real(f"class_weight[{label}]", weight, "of at least 0", lambda weight: weight >= 0)
    if labels is None:
        raise ValueError(
            "class_weight needs to know each image's class: pass the labels as y, or say with "
            "sample_weight how much each image counts."
        )
    weights = np.array([class_weight.get(int(label), 1.0) for label in _classes(labels)])
    if sample_weight is None:
        return weights
    own = as_array("weights", sample_weight).reshape(-1)
    return weights * (own if own.size == weights.size else _one_each("weights", own, weights))


def _classes(labels: Any) -> np.ndarray:
    """The class of each image, int32 ``(n,)``, of labels ``(n,)`` or ``(n, 1)``."""
    labels = as_array("labels", labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind in "fiub":
        return _whole(labels)
    remedy = f"Number the classes, {_NUMBERED}"
    if labels.ndim == 2:
        remedy = "Choose the column, labels[:, 0], or pass labels.argmax(axis=-1) of 0 and 1"
    raise ValueError(
        f"class_weight needs one whole number for each image as y, and labels have shape "
        f"{labels.shape} and are of type {labels.dtype}. {remedy}."
    )


def check_alone(kind: str, **options: Any) -> None:
    """Refuse what a data set brings itself, and what would not be looked at beside it."""
    remedies = {
        "y": "let it yield tuples (images, labels)",
        "sample_weight": "let it yield tuples (images, labels, sample_weight)",
        "class_weight": "let it yield tuples (images, labels, sample_weight)",
        "batch_size": "it makes its own batches: leave it out, or batch the data set so",
        "validation_split": "pass validation_data, for example of data.take(10) and data.skip(10)",
    }
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} cannot be passed beside a {kind}: {remedies[name]}.")


def check_planned(kind: str, **options: Any) -> None:
    """Refuse beside questions what is said where they are made, and would not be looked at."""
    names = {"y": "labels", "sample_weight": "weights", "class_weight": "weights"}
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"{name} cannot be passed beside {kind}, which say it themselves: leave it out, or "
                f"make other questions, with model.questions(images, {names.get(name, name)}=…)."
            )


def check_shown(asked: Any, network: keras.Model) -> None:
    """Raise ValueError for questions about images of a shape that the network does not take."""
    found, wanted = np.shape(asked.batch(0, 0)[0][0])[1:], tuple(network.inputs[0].shape[1:])
    if not _fits(wanted, found):
        raise ValueError(
            f"these questions are about images of shape {found}, and the network takes {wanted}: "
            "they were made for another model. Make them with this one's questions(images, …)."
        )


# Networks ---------------------------------------------------------------------------------------


def given(network: Any, parameters: DiffusionParameters) -> bool:
    """Whether there is a network that a model with these parameters is to have; False for None.

    It must be shown x_t, t, more perhaps, and at last labels if the parameters have any; it may
    take images of any size. Raises TypeError for what is no functional network, and ValueError for
    one that is shown, or answers, other shapes.
    """
    if network is None:
        return False
    inputs, outputs = (getattr(network, name, None) for name in ("inputs", "outputs"))
    if not isinstance(network, keras.Model) or not inputs or not outputs:
        rule = "network must be a functional model, such as keras.Model([x_t, t], answer)"
        remedy = "Pass build_unet(parameters.unet), or leave it out"
        if isinstance(getattr(network, "network", None), keras.Model):
            remedy = "Pass the network in it, which is its attribute network"
        raise TypeError(checks.message("network", network, rule, remedy))
    unet = parameters.unet
    *sides, channels = unet.image_shape
    answer = (*sides, channels * (2 if parameters.variance == "learned" else 1))
    asked, told = {"x_t": unet.image_shape, "t": ()}, inputs[:2]
    if unet.labels:
        asked["labels"] = () if len(unet.labels) == 1 else (len(unet.labels),)
        told = [*told, *inputs[2:][-1:]]
    found = [tuple(part.shape[1:]) for part in told]
    answers = [tuple(part.shape[1:]) for part in outputs]
    fits = len(found) == len(asked) and all(map(_fits, found, asked.values()))
    if not fits or len(answers) != 1 or len(answers[0]) != 3 or not _fits(answers[0], answer):
        needed = ", ".join(f"{name} {shape}" for name, shape in asked.items())
        rule = (
            f"for each image it must be shown {needed} and answer {answer}, as the parameters say; "
            f"it is shown {', '.join(map(str, found))} and answers {', '.join(map(str, answers))}"
        )
        remedy = "Build it with these shapes, or give the model the parameters that it fits"
        raise ValueError(checks.message("network", network, rule, remedy))
    return True


def _fits(found: tuple[int | None, ...], wanted: tuple[int, ...]) -> bool:
    """Whether Keras takes the one for the other: an axis of 1 at the end may be missing."""
    pairs = itertools.zip_longest(found, wanted, fillvalue=1)
    return all(side is None or side == other for side, other in pairs)


# Options ----------------------------------------------------------------------------------------

#: By the names of whole numbers that ``fit`` takes, the smallest that each may be.
_LEAST = {
    "epochs": 0,
    "initial_epoch": 0,
    "steps_per_epoch": 1,
    "validation_steps": 1,
    "validation_batch_size": 1,
    "batch_size": 1,
    "steps": 1,
}


def check_numbers(**options: Any) -> None:
    """Raise TypeError or ValueError for a number that ``fit`` or ``evaluate`` cannot work with."""
    for name, least in _LEAST.items():
        if options.get(name) is not None:
            checks.integer(name, options[name], least)
    often = options.get("validation_freq")
    if often is not None and not isinstance(often, Collection):
        checks.integer("validation_freq", often, 1)
    if options.get("validation_split") is not None:
        split, rule = options["validation_split"], "from 0 to below 1"
        checks.real("validation_split", split, rule, lambda share: 0 <= share < 1)
    checks.flag("shuffle", options.get("shuffle", True))


def check_callbacks(callbacks: Iterable[Any], optimizer: Any) -> None:
    """Refuse what is no callback, and one that would change a learning rate that changes itself.

    Raises TypeError or ValueError: Keras would tell after hours, at the first plateau. Warns of
    one that keeps less than a run needs.
    """
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            name = getattr(callback, "__name__", "")
            remedy = f"Write {name}(), with parentheses" if name else "Leave it out"
            rule = "each of the callbacks must be a keras.callbacks.Callback"
            raise TypeError(checks.message("callbacks", callback, rule, remedy))
    setters = keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler
    found = [callback for callback in callbacks if isinstance(callback, setters)]
    if found and optimizer is not None and rate_of(optimizer) is not None:
        raise ValueError(
            f"{type(found[0]).__name__} sets the learning rate, but this model's rises and falls "
            "by itself. Build the model with TrainingParameters(warmup_steps=0, decay_steps=None), "
            "compile an optimizer whose learning_rate is a number, or leave the callback out."
        )
    if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks):
        checks.warn(
            "BackupAndRestore keeps no place among the questions: a run that was killed meets "
            "those of its first epoch again. Use ResumeTraining(folder), which goes on with the "
            "next ones."
        )


def rate_of(optimizer: Any) -> Any:
    """The schedule by which an optimizer's learning rate changes; None if it does not."""
    config = bare_optimizer(optimizer).get_config().get("learning_rate")
    if not isinstance(config, Mapping):
        return None
    return keras.optimizers.schedules.deserialize(config)
