"""Drawing made fast: a network that is compiled once and takes many steps in one call.

A step back is many short operations beside the network. Handed to the backend one by one they take
nearly as long as the network of the digits itself; compiled together with it, little. What only
one backend can do stands here. However many images are asked for, some are drawn at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine.cores import SideBySide, has_accelerator
from diffusion_walkthrough.engine.labels import checked_told, telling
from diffusion_walkthrough.engine.noise import (
    STRIDE,
    NoiseOfPart,
    checked_start,
    generator_of,
)

#: How much memory all results of a network's layers may take together for the images that it is
#: asked about at once. They are not all there at the same time; a graphics card has more room.
BYTES_AT_ONCE = {False: 2**29, True: 2**33}

#: A kind of step with a parameter of this name is told what the step before it saw: the t of that
#: step, -1 at the first one, and the clean image guessed there.
BEFORE = "before"


def check_options(step: Callable[..., Any], own: dict[str, Any]) -> list[str]:
    """The options that a kind of step has of its own; TypeError if there are others in ``own``."""
    known = [name for name in _more_than(step) if name != BEFORE]
    for name in own:
        if name not in known:
            raise TypeError(
                f"{getattr(step, '__name__', step)} has no option {name!r}; its own are "
                f"{', '.join(known) or 'none'}, and those of every walk steps, start, seed, x_T, "
                "shared_noise_steps and progress; of a model's sample also spacing, sigma_max, "
                "restarts, restart_sigma, restart_steps and batch_size."
            )
    return known


def bound(step: Callable[..., Any], own: dict[str, Any]) -> Callable[..., Any]:
    """A kind of step with its options, which may be told what was ``before`` and need not care."""
    if BEFORE in _more_than(step):
        return functools.partial(step, **own)
    return lambda *args, before: step(*args, **own)


def _more_than(step: Callable[..., Any]) -> list[str]:
    """The parameters of a kind of step beside those that every step has."""
    return list(inspect.signature(step).parameters)[6:]


def kind_of(times: Sequence[float]) -> str:
    """The type of the t of a walk: int32 if it stops at whole steps only, else float32."""
    return "int32" if all(isinstance(t, (int, np.integer)) for t in times) else "float32"


def if_any(condition: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """What ``then()`` says if ``condition`` is true anywhere in the batch, else ``otherwise()``.

    Only one of them is asked, also on JAX, which would trace both for a condition that is known.
    """
    condition = ops.any(condition)
    if keras.backend.backend() == "jax":
        import jax

        if not isinstance(condition, jax.core.Tracer):
            return then() if condition else otherwise()
    return ops.cond(condition, then, otherwise)


def in_parts(
    walk: Callable[..., Any],
    step: Callable[..., Any],
    denoise: Any,
    schedule: Any,
    shape: Sequence[int],
    *,
    seed: Any = None,
    x_T: Any = None,
    progress: bool = False,
    batch_size: int | None = None,
    told: Sequence[Any] = (),
    questions: int = 1,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Walk with some of many images at a time, and hand them out: in memory of a bounded size.

    Each has the noise that it would have among all of them, so that they are the same images as
    those of one walk (but for rounding).

    Args:
        walk: ``backward_sampling.walk``, whose arguments and options the others are.
        shape: of all images together, ``(n, …)``, as ``x_T`` and ``told`` are of all.
        progress: whether to show a bar, of images if they are drawn in several parts.
        batch_size: how many at most at a time; None for as many as there is room for.
        questions: how often the network is asked about each image at once, twice if guided.

    Raises FloatingPointError if what was drawn is not all finite numbers.
    """
    n, progress = shape[0], checks.flag("progress", progress)
    told, questions = checked_told(denoise, told, n), checks.integer("questions", questions, 1)
    size = _size_of_part(n, getattr(denoise, "network", None), batch_size, questions)
    start, generator = None if x_T is None else checked_start(x_T, shape), generator_of(seed)
    begin = np.array(ops.convert_to_numpy(generator.state))
    bar = keras.utils.Progbar(n, unit_name="image") if progress and size < n else None
    for first in range(0, n, size):
        generator.state.assign(begin)
        part = slice(first, min(first + size, n))
        own = {**options, "told": [x[part] for x in told]} if told else dict(options)
        own |= {"x_T": None if start is None else start[part], "progress": progress and not bar}
        own["seed"], count = NoiseOfPart(generator, n, first), part.stop - first
        images = walk(step, denoise, schedule, (count, *shape[1:]), **own)
        yield _finite(ops.convert_to_numpy(images))
        if bar:
            bar.add(count)


def _size_of_part(n: int, network: Any, batch_size: int | None, questions: int) -> int:
    """How many of n images are drawn at a time: parts of about one size, within what is allowed."""
    most = n if batch_size is None else checks.integer("batch_size", batch_size, 1)
    at_once = max(getattr(network, "at_once", n * questions) // questions, 1)
    return math.ceil(n / math.ceil(n / min(at_once, most)))


def _finite(images: np.ndarray) -> np.ndarray:
    if not np.isfinite(images).all():
        raise FloatingPointError(
            "what was drawn holds NaN or infinity: the network's weights are not finite numbers, "
            "or the steps are too long for this kind of step. Load the last checkpoint, or use "
            "more steps, step='ddim', or sigma_max=80."
        )
    return images


def collected(parts: Iterator[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Put images together as they come, float32 of a shape: they are never there twice."""
    images, first = np.empty(shape, "float32"), 0
    for part in parts:
        images[first : first + len(part)] = part
        first += len(part)
    return images


def steps_in_one_call(denoise: Any) -> Callable[..., Any] | None:
    """What takes many steps with a denoise function in one call, if anything does."""
    network = getattr(denoise, "network", None)
    if not isinstance(network, CompiledNetwork) or keras.backend.backend() == "torch":
        return None
    return network.take_steps


class CompiledNetwork:
    """A functional model, called as before, ``([x_t, t, …]) -> answer``, but compiled; float32.

    It is traced once for all batch sizes. On TensorFlow it is a ``tf.function``, on JAX
    ``jax.jit`` with the weights passed in; PyTorch runs it as it is, without gradients.
    """

    def __init__(self, network: keras.Model) -> None:
        """Compile nothing yet: that is for the first call."""
        self.network = network
        self.specs = [(tuple(x.shape[1:]), x.dtype) for x in network.inputs]
        self._ask: Callable[..., Any] | None = None
        self._walks: dict[Any, Callable[..., Any]] = {}

    @functools.cached_property
    def at_once(self) -> int:
        """About how many images it can be asked about at once, in memory of a bounded size."""
        results = [keras.tree.flatten(made.output) for made in _operations(self.network)]
        numbers = sum(math.prod(n or 1 for n in x.shape[1:]) for x in itertools.chain(*results))
        return max(BYTES_AT_ONCE[has_accelerator()] // (4 * numbers), 1)

    def __call__(self, shown: Sequence[Any], training: bool = False) -> Any:
        """Ask the network about ``[x_t, t, …]``, each ``(batch, …)``; its answer, float32."""
        if self._ask is None:
            self._ask = compiled(lambda apply, *shown: apply(shown), self.network, self.specs)
        self.check_shown(*shown)
        pairs = zip(shown, self.specs, strict=True)
        tensors = [ops.convert_to_tensor(x, dtype=dtype) for x, (_, dtype) in pairs]
        n = tensors[0].shape[0]
        if n is None or n <= self.at_once:
            return self._ask(*tensors)
        starts = range(0, n, self.at_once)
        parts = [self._ask(*(x[i : i + self.at_once] for x in tensors)) for i in starts]
        return ops.concatenate(parts)

    def check_shown(self, *shown: Any) -> None:
        """Raise ValueError unless it can be shown these, ``x_t, t, …``: their number and shapes."""
        if len(shown) != len(self.specs):
            wanted = ", ".join(_words(shape) for shape, _ in self.specs[2:]) or "nothing"
            remedy = "Pass them in this order" if self.specs[2:] else "Leave out what it is told"
            raise ValueError(
                f"this network is told {wanted} beside x_t and t, and got {len(shown) - 2} of what "
                f"to tell it. {remedy}; UNetParameters(labels=…) builds one that is told labels."
            )
        rows = {}
        for i, (x, (shape, _)) in enumerate(zip(shown, self.specs, strict=True)):
            name = ("x_t", "t")[i] if i < 2 else f"told[{i - 2}]"
            found = tuple(x.shape) if hasattr(x, "shape") else np.shape(x)
            fits = len(found) == len(shape) + 1
            if not (fits and all(b in (None, a) for a, b in zip(found[1:], shape, strict=True))):
                raise ValueError(
                    f"{name} has shape {found}, but this network is shown {_words(shape)}. Bring "
                    "it to that shape."
                )
            if found[0] is not None:
                rows[name] = found[0]
        if len(set(rows.values())) > 1:
            words = ", ".join(f"{n} of {name}" for name, n in rows.items())
            raise ValueError(f"there are {words}: pass one of each for each image.")

    def take_steps(
        self,
        step: Callable[..., Any],
        denoise: Any,
        schedule: Any,
        seen: tuple[Any, Any],
        times: Sequence[float],
        noise: Any,
        own: dict[str, Any],
        told: Sequence[Any] = (),
    ) -> tuple[Any, Any]:
        """Take a step for each z of ``noise``; each kind of walk is compiled once.

        Args:
            step: a kind of step, ``step(denoise, schedule, x_t, t, s, z, **own) -> (x_s, x_0)``.
            denoise: a frozen dataclass that asks its ``network``, which is this one.
            schedule, own: what the step is called with.
            seen: the images and the clean ones last guessed, each ``(batch, …)``, as is the result.
            times: where the walk stood one step before, where it stands before each step, and after
                the last.
            noise: ``(steps, batch, …)``, at most ``STRIDE`` of them.
            told: what the denoise function is told beside, each ``(batch, …)``.
        """
        kind, told = kind_of(times), [ops.convert_to_tensor(x) for x in told]
        specs = [(tuple(x.shape[1:]), keras.backend.standardize_dtype(x.dtype)) for x in told]
        key = (step, denoise, schedule, kind, tuple(specs), *_hashable(own))
        if key not in self._walks:
            moved = bound(step, own)

            def one_step(apply: Callable[..., Any], told: Any, *args: Any, before: Any) -> Any:
                asking = telling(dataclasses.replace(denoise, network=apply), told)
                return moved(asking, schedule, *args, before=before)

            self._walks[key] = self._compile_walk(one_step, kind, specs)
        missing = STRIDE - len(noise)
        noise = ops.pad(noise, [(0, missing)] + [(0, 0)] * (len(noise.shape) - 1))
        x = ops.stack(seen, axis=1)
        each = ops.ones((x.shape[0], 1), kind)
        padded = each * ops.convert_to_tensor([*times, *[-1] * missing], kind)
        count = ops.cast(each[:, 0], "int32") * (STRIDE - missing)
        x = self._walks[key](x, padded, count, ops.moveaxis(noise, 0, 1), *told)
        return x[:, 0], x[:, 1]

    def _compile_walk(
        self, one_step: Callable[..., Any], kind: str, told: list[Any]
    ) -> Callable[..., Any]:
        shape = self.specs[0][0]

        def walk(apply: Any, seen: Any, times: Any, count: Any, noise: Any, *told: Any) -> Any:
            def step_back(i: Any, seen: Any) -> Any:
                before, t, s = (ops.take(times, i + j, axis=1) for j in range(3))
                x, x_start, z = seen[:, 0], seen[:, 1], ops.take(noise, i, axis=1)
                both = one_step(apply, told, x, t, s, z, before=(before, x_start))
                seen = ops.stack(both, axis=1)
                return ops.reshape(seen, (-1, 2, *shape))

            return ops.fori_loop(0, count[0], step_back, seen)

        kinds = [((2, *shape), "float32"), ((STRIDE + 2,), kind), ((), "int32")]
        return compiled(walk, self.network, [*kinds, ((STRIDE, *shape), "float32"), *told])


def _words(shape: tuple[int | None, ...]) -> str:
    """A shape with an axis of images before it, as one writes it."""
    return f"({', '.join(['n', *map(str, shape)])}{'' if shape else ','})"


def _hashable(own: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Options by which a compiled walk is found again; of arrays and lists, what they hold."""
    for name, value in sorted(own.items()):
        try:
            hash(value)
            yield name, value
        except TypeError:
            array = np.asarray(ops.convert_to_numpy(value))
            yield name, array.shape, array.dtype.str, array.tobytes()


def _operations(network: keras.Model) -> Iterator[Any]:
    """All that a network computes, also in a network that is a part of it."""
    for made in network.operations:
        yield from _operations(made) if isinstance(made, keras.Model) else (made,)


def compiled(
    function: Callable[..., Any],
    network: keras.Model,
    specs: list[tuple[tuple[int | None, ...], str]],
) -> Callable[..., Any]:
    """Compile a function of tensors that asks a network, into one of the tensors alone.

    Args:
        function: called as ``function(apply, *tensors)``, where ``apply([x_t, t, …])`` is the
            network's float32 answer. All tensors, and its result, are ``(batch, …)``; what comes
            of an image does not depend on the others, so that cores can divide them among
            themselves.
        network: the network.
        specs: shape without the first axis, which may be of any length, and type of each tensor.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _compiled_by_jax(function, network)

    def apply(shown: Sequence[Any], training: bool = False) -> Any:
        return ops.cast(network(list(shown), training=False), "float32")

    if backend == "tensorflow":
        return _compiled_by_tensorflow(function, apply, specs)

    def without_gradients(*tensors: Any) -> Any:
        import torch

        with torch.no_grad():
            return function(apply, *tensors)

    return without_gradients


def _compiled_by_tensorflow(
    function: Callable[..., Any], apply: Callable[..., Any], specs: list[Any]
) -> Callable[..., Any]:
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *shape), dtype) for shape, dtype in specs]

    def work(*tensors: Any) -> Any:
        return function(apply, *tensors)

    return tf.function(SideBySide(work), input_signature=signature, autograph=False)


def _compiled_by_jax(function: Callable[..., Any], network: keras.Model) -> Callable[..., Any]:
    import jax

    @jax.jit
    def run(trainable: Any, non_trainable: Any, *tensors: Any) -> Any:
        def apply(shown: Sequence[Any], training: bool = False) -> Any:
            asked = network.stateless_call(trainable, non_trainable, list(shown), training=False)
            return asked[0].astype("float32")

        return function(apply, *tensors)

    def call(*tensors: Any) -> Any:
        trainable = [variable.value for variable in network.trainable_variables]
        non_trainable = [variable.value for variable in network.non_trainable_variables]
        return run(trainable, non_trainable, *tensors)

    return call
