"""What a network is told of an image: its labels, checked at every door.

``described`` says what there is to tell, as in ``UNetParameters.labels``: the name of each label
and how many values it has. A value is a whole number from 0, or -1 for "not said".
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.data import NO_LABEL

Described: TypeAlias = Sequence[tuple[str, int]]


def as_array(name: str, values: Any) -> np.ndarray:
    """Labels or weights of any kind of array, tensor or list; ValueError if they are none."""
    if isinstance(values, Mapping):
        names = ", ".join(map(checks.shown, [*values][:8]))
        raise ValueError(
            f"{name} are a dictionary with {names or 'nothing'}, but must be an array with one "
            "number, or one row of numbers, for each image. Pass a value of it, or np.stack([…], "
            "axis=1) of several."
        )
    checks.unmasked(name, values)
    try:
        return np.asarray(ops.convert_to_numpy(values))
    except Exception as error:  # each backend has its own, for lists of several lengths
        raise ValueError(
            f"{name} of type {type(values).__name__} cannot be made into one array "
            f"({str(error)[:120]}). Pass one number, or one row of equal length, for each image."
        ) from error


def checked_labels(labels: Any, described: Described, n: int) -> np.ndarray:
    """The labels of ``n`` images as a network takes them: int32 ``(n,)``, of several ``(n, k)``.

    Raises ValueError unless there is a whole number in range, of an integer type, for each image
    and label.
    """
    names = ", ".join(name for name, _ in described)
    if labels is None:
        raise ValueError(
            f"labels are missing: this network is told {names} of each image. Pass them as y, or "
            f"let the data set yield (images, labels); {NO_LABEL} stands for what is not known."
        )
    labels = as_array("labels", labels)
    shape = (n,) if len(described) == 1 else (n, len(described))
    if labels.shape != shape and labels.shape != (n, len(described)):
        raise ValueError(
            f"labels have shape {labels.shape}, but must be {shape}: of each image this network is "
            f"told {names}. {_remedy(labels, described, n)}"
        )
    columns = labels.reshape(n, len(described))
    if labels.dtype.kind not in "iu":
        first = columns[0].tolist()[0] if columns.size else 0
        rule = f"labels are of type {labels.dtype}, and must be whole numbers"
        remedy = "Number the classes 0, 1, 2 and so on, and pass labels.astype('int32')"
        raise ValueError(checks.message("labels[0]", first, rule, remedy))
    _check_values(columns, described)
    return labels.astype("int32").reshape(shape)


def _check_values(columns: np.ndarray, described: Described) -> None:
    for column, (name, count) in enumerate(described):
        values = columns[:, column]
        wrong = np.flatnonzero((values < NO_LABEL) | (values >= count))
        if wrong.size:
            place = f"{wrong[0]}" if len(described) == 1 else f"{wrong[0]}, {column}"
            rule = (
                f"{name} must be a whole number from 0 to {count - 1}, or {NO_LABEL} for what is "
                "not said"
            )
            remedy = "Number the classes from 0 on, or build a model with UNetParameters(labels=…)"
            raise ValueError(
                checks.message(
                    f"labels[{place}]", int(values[wrong[0]]), rule, f"{remedy} for more"
                )
            )


def _remedy(labels: np.ndarray, described: Described, n: int) -> str:
    """How labels of a wrong shape become right ones."""
    if labels.shape[:1] != (n,):
        return f"There must be as many as images, {n}."
    if len(described) == 1 and labels.ndim == 2 and labels.shape[1] == described[0][1]:
        return "They seem to be 0 and 1 for each class: pass labels.argmax(axis=-1)."
    if len(described) == 1:
        return "Choose the column: labels[:, 0]."
    return (
        "Put a column for each side by side, np.stack([…], axis=1), in this order; "
        f"load_images('faces', attributes=[…]) returns such columns. {NO_LABEL} stands for what is "
        "not known."
    )


def labels_for(labels: Any, described: Described, n: int) -> np.ndarray:
    """What ``n`` images are to show, as a network takes it: int32 ``(n,)``, of several ``(n, k)``.

    Args:
        labels: one value, or one for each image; of several labels a row for all images, or a row
            for each; or by names, ``{"hat": 3, "glasses": [0, 1, 2]}``, the rest not said.
        described: what there is to tell.
        n: how many images.

    Raises ValueError as :func:`checked_labels` does, and for a name that there is not.
    """
    if isinstance(labels, Mapping):
        return checked_labels(_by_name(labels, described, n), described, n)
    labels = as_array("labels", labels)
    row = () if len(described) == 1 else (len(described),)
    if labels.shape == row:
        labels = np.broadcast_to(labels, (n, *row))
    return checked_labels(labels, described, n)


def _by_name(labels: Mapping[str, Any], described: Described, n: int) -> np.ndarray:
    names = [name for name, _ in described]
    for name in labels:
        if name not in names:
            guess = checks.did_you_mean(name, names, f"The labels are {', '.join(names)}.")
            raise ValueError(f"labels has the name {checks.shown(name)}, of no label. {guess}")
    columns = []
    for name in names:
        column = as_array(f"labels[{name!r}]", labels.get(name, NO_LABEL))
        if column.shape not in ((), (n,)):
            raise ValueError(
                f"labels[{name!r}] has shape {column.shape}, but must be one number, or one for "
                f"each of the {n} images."
            )
        columns.append(np.broadcast_to(column, (n,)))
    found = np.stack(columns, axis=1)
    return found[:, 0] if len(names) == 1 else found


def checked_scale(scale: Any, n: int) -> np.ndarray:
    """How far ``n`` images are guided, float32 ``(n,)``; one number stands for all.

    Raises TypeError or ValueError unless it is a number from 0 to 1000 for each.
    """
    scale = as_array("guidance_scale", scale)
    if scale.shape not in ((), (n,)):
        raise ValueError(
            f"guidance_scale has shape {scale.shape}, but must be one number, or one for each of "
            f"the {n} images. Pass np.full({n}, 2.0)."
        )
    for number in np.unique(scale).tolist():
        checked_number(number)
    return np.broadcast_to(scale, (n,)).astype("float32")


def checked_number(scale: Any) -> float:
    """How far all images are guided, from 0 to 1000; TypeError or ValueError."""
    rule = "from 0 to 1000; 1 is off"
    return checks.real("guidance_scale", scale, rule, lambda s: 0 <= s <= 1000)


def checked_interval(interval: Any, n: int) -> np.ndarray:
    """Between which σ ``n`` images are guided, float32 ``(n, 2)``; two numbers stand for all.

    The two rise, from 0 on, and infinity may be the second; else TypeError or ValueError.
    """
    with contextlib.suppress(TypeError, ValueError):
        rows = np.broadcast_to(as_array("guidance_interval", interval), (n, 2)).astype("float32")
        if ((rows[:, 0] >= 0) & (rows[:, 0] < rows[:, 1])).all():
            return rows
    rule = "guidance_interval must be two σ, from 0 on, that rise"
    remedy = "Write for example (0.2, 5.0)"
    raise ValueError(checks.message("guidance_interval", interval, rule, remedy))


def checked_told(denoise: Any, told: Sequence[Any], n: int) -> list[Any]:
    """What a denoise function is told of ``n`` images, looked at once, before any step is taken.

    Raises TypeError or ValueError as the function's own ``checked_told(n, *told)`` does, if it has
    one, as it knows what it is told; and unless there is a row of each thing for each image.
    """
    try:
        told = [*told]
    except TypeError:
        rule = "told must be a list, of an array for each thing that the network is told"
        remedy = "Put what it is told into a list; labels are told a model by labels=3"
        raise TypeError(checks.message("told", told, rule, remedy)) from None
    if any(map(is_symbolic, told)):
        return told
    own = getattr(denoise, "checked_told", None)
    told = told if own is None else own(n, *told)
    for i, x in enumerate(told):
        shape = tuple(x.shape) if hasattr(x, "shape") else as_array(f"told[{i}]", x).shape
        if shape[:1] != (n,):
            raise ValueError(
                f"told[{i}] has shape {shape}, but must be ({n}, …), a row for each of the {n} "
                f"images. Pass for example np.full({n}, 3)."
            )
    return told


def unsaid(t: Any, described: Described) -> Any:
    """The labels of as many images as there are t, ``(batch,)``, of which nothing is said."""
    nothing = ops.cast(ops.zeros_like(t), "int32") + NO_LABEL
    return nothing if len(described) == 1 else ops.stack([nothing] * len(described), axis=1)


def is_symbolic(x: Any) -> bool:
    """Whether a tensor has no values yet, as while a step is compiled."""
    if isinstance(x, keras.KerasTensor):
        return True
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.is_symbolic_tensor(x))
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(x, jax.core.Tracer)
    return False


def telling(denoise: Any, told: Sequence[Any]) -> Any:
    """A denoise function that is told the same each time, beside x_t and t: ``(x_t, t)``.

    ``told`` are tensors, ``(batch, …)``, such as labels. What else the function has, its variance
    for example, the other has, too.
    """
    if not told:
        return denoise

    def answered(x_t: Any, t: Any) -> Any:
        return denoise(x_t, t, *told)

    if hasattr(denoise, "variance"):
        answered.variance = denoise.variance  # type: ignore[attr-defined]
    if hasattr(denoise, "with_variance"):
        answered.with_variance = lambda x_t, t: denoise.with_variance(x_t, t, *told)  # type: ignore[attr-defined]
    return answered
