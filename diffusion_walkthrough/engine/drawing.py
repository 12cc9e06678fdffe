"""Drawing made fast: a network that is compiled once and takes many steps in one call; its noise.

A step back is many short operations beside the network. Handed to the backend one by one they take
nearly as long as the network of the digits itself; compiled together with it, little. What only
one backend can do stands here.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.random import SeedGenerator

from diffusion_walkthrough.engine.cores import SideBySide

#: For how many steps the noise is drawn at once; a compiled network walks as many in one call.
STRIDE = 25

#: A kind of step with a parameter of this name is told what the step before it saw: the t of that
#: step, -1 at the first one, and the clean image guessed there.
BEFORE = "before"


class WalkNoise:
    """All the noise of a walk: the start, and then z for each step, drawn ``STRIDE`` at a time."""

    def __init__(
        self, shape: Sequence[int], steps: int, seed: Any = None, shared_steps: int | None = None
    ) -> None:
        """Draw nothing yet: for images of a shape ``(batch, …)``, and so many steps.

        During the first ``shared_steps`` the batch has the same noise, and at the start too; None
        for not even that. ``seed`` is a number, None, or a ``SeedGenerator`` that goes on.
        """
        if shared_steps is not None:
            check_whole("shared_noise_steps", shared_steps, 0, steps)
        self.shape, self.steps, self.shared = tuple(shape), steps, shared_steps
        self.generator = seed if isinstance(seed, SeedGenerator) else SeedGenerator(seed)

    def start(self, x_T: Any = None) -> Any:
        """``x_T`` if there is one, or else noise to start from; float32, of the shape."""
        if x_T is None:
            return self._normal(self.shared is not None)
        if tuple(x_T.shape) != self.shape:
            raise ValueError(
                f"x_T has shape {tuple(x_T.shape)}, but shape = {self.shape} is asked for; pass "
                "shape=x_T.shape."
            )
        return ops.convert_to_tensor(x_T, dtype="float32")

    def strides(self) -> Iterator[tuple[int, Any]]:
        """The number of steps before each stride, and z of its steps, ``(steps, *shape)``."""
        for place in range(0, self.steps, STRIDE):
            count = min(STRIDE, self.steps - place)
            alike = min(max((self.shared or 0) - place, 0), count)
            lengths = [(True, alike), (False, count - alike)]
            parts = [self._normal(shared, steps) for shared, steps in lengths if steps]
            yield place, ops.concatenate(parts) if len(parts) > 1 else parts[0]

    def _normal(self, alike: bool, *steps: int) -> Any:
        batch, *rest = self.shape
        noise = keras.random.normal((*steps, 1 if alike else batch, *rest), seed=self.generator)
        return ops.broadcast_to(noise, (*steps, *self.shape))


def check_whole(name: str, n: Any, least: int, most: int) -> int:
    """``n`` if it is a whole number in ``least … most``, and for None the most."""
    n = most if n is None else n
    if not isinstance(n, (int, np.integer)) or not least <= n <= most:
        rule = f"must be a whole number in {least} … {most}"
        raise ValueError(f"{name} = {n} {rule}. Use for example {most}.")
    return int(n)


def check_options(step: Callable[..., Any], own: dict[str, Any]) -> list[str]:
    """The options that a kind of step has of its own; TypeError if there are others in ``own``."""
    known = [name for name in _more_than(step) if name != BEFORE]
    for name in own:
        if name not in known:
            raise TypeError(
                f"{getattr(step, '__name__', step)} has no option {name!r}; its own are "
                f"{', '.join(known) or 'none'}, and those of every walk steps, start, seed, x_T, "
                "shared_noise_steps and progress; of a model's sample also spacing and sigma_max."
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

    def __call__(self, shown: Sequence[Any], training: bool = False) -> Any:
        """Ask the network about ``[x_t, t, …]``, each ``(batch, …)``; its answer, float32."""
        if self._ask is None:
            self._ask = compiled(lambda apply, *shown: apply(shown), self.network, self.specs)
        pairs = zip(shown, self.specs, strict=True)
        return self._ask(*(ops.convert_to_tensor(x, dtype=dtype) for x, (_, dtype) in pairs))

    def take_steps(
        self,
        step: Callable[..., Any],
        denoise: Any,
        schedule: Any,
        seen: tuple[Any, Any],
        times: Sequence[float],
        noise: Any,
        own: dict[str, Any],
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
        """
        kind = kind_of(times)
        key = (step, denoise, schedule, kind, *sorted(own.items()))
        if key not in self._walks:
            moved = bound(step, own)

            def one_step(apply: Callable[..., Any], *args: Any, before: tuple[Any, Any]) -> Any:
                asking = dataclasses.replace(denoise, network=apply)
                return moved(asking, schedule, *args, before=before)

            self._walks[key] = self._compile_walk(one_step, kind)
        missing = STRIDE - len(noise)
        noise = ops.pad(noise, [(0, missing)] + [(0, 0)] * (len(noise.shape) - 1))
        x = ops.stack(seen, axis=1)
        each = ops.ones((x.shape[0], 1), kind)
        padded = each * ops.convert_to_tensor([*times, *[-1] * missing], kind)
        count = ops.cast(each[:, 0], "int32") * (STRIDE - missing)
        x = self._walks[key](x, padded, count, ops.moveaxis(noise, 0, 1))
        return x[:, 0], x[:, 1]

    def _compile_walk(self, one_step: Callable[..., Any], kind: str) -> Callable[..., Any]:
        shape = self.specs[0][0]

        def walk(apply: Callable[..., Any], seen: Any, times: Any, count: Any, noise: Any) -> Any:
            def step_back(i: Any, seen: Any) -> Any:
                before, t, s = (ops.take(times, i + j, axis=1) for j in range(3))
                x, x_start, z = seen[:, 0], seen[:, 1], ops.take(noise, i, axis=1)
                seen = ops.stack(one_step(apply, x, t, s, z, before=(before, x_start)), axis=1)
                return ops.reshape(seen, (-1, 2, *shape))

            return ops.fori_loop(0, count[0], step_back, seen)

        kinds = [((2, *shape), "float32"), ((STRIDE + 2,), kind), ((), "int32")]
        return compiled(walk, self.network, [*kinds, ((STRIDE, *shape), "float32")])


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
