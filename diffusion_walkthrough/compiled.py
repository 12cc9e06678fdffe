"""A network made fast to draw with: compiled once, and asked many times in one call.

A step back is many short operations beside the network. Handed to the backend one by one they take
nearly as long as the network of the digits itself; compiled together with it, little. What only
one backend can do stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from diffusion_walkthrough.backward_sampling import add_step_noise, backward_step
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.side_by_side import SideBySide


class CompiledNetwork:
    """A network as a denoise function, float32, whatever the precision inside.

    It is traced once for all batch sizes. On TensorFlow it is a ``tf.function``, on JAX
    ``jax.jit`` with the weights passed in; PyTorch runs it as it is, without gradients.
    """

    def __init__(self, network: keras.Model) -> None:
        """Compile nothing yet: that is for the first call.

        Args:
            network: functional model from ``[x_t, t]`` to a prediction.
        """
        self.network = network
        self.image_shape = tuple(network.input_shape[0][1:])
        self._ask: Callable[..., Any] | None = None
        self._walks: dict[Any, tuple[NoiseSchedule, Callable[..., Any]]] = {}

    def __call__(self, x_t: Any, t: Any) -> Any:
        """Ask the network about ``x_t``, float32 ``(batch, …)``, at the steps ``t``, ``(batch,)``.

        Returns:
            Its prediction, float32.
        """
        if self._ask is None:
            specs = [(self.image_shape, "float32"), ((), "int32")]
            self._ask = compiled(lambda apply, x, t: apply(x, t), self.network, specs)
        return self._ask(x_t, t)

    @property
    def walk(self) -> Callable[..., Any] | None:
        """What takes many steps back in one call, :meth:`take_steps`; None on PyTorch."""
        return None if keras.backend.backend() == "torch" else self.take_steps

    def take_steps(
        self, x: Any, first: int, count: int, noise: Any, schedule: NoiseSchedule, **options: Any
    ) -> Any:
        """Take ``count`` steps back, from t = ``first`` on.

        Args:
            x: ``(batch, …)``.
            first: t of the first step.
            count: how many steps, at most ``len(noise)``.
            noise: z of each step, ``(steps, batch, …)``; a number of steps that stays the same
                avoids compiling anew.
            schedule: the noise schedule.
            **options: ``variance``, ``clip`` and ``prediction`` of ``p_mean_variance``.

        Returns:
            x after the steps, same shape.
        """
        key = (id(schedule), *sorted(options.items()))
        if key not in self._walks:
            self._walks[key] = (schedule, self._compile_walk(schedule, options))
        return self._walks[key][1](x, noise, first, count)

    def _compile_walk(self, schedule: NoiseSchedule, options: dict[str, Any]) -> Callable[..., Any]:
        def walk(apply: Callable[..., Any], x: Any, noise: Any, first: Any, count: Any) -> Any:
            def step_back(i: Any, x: Any) -> Any:
                t = first - i
                step = backward_step(apply(x, t), schedule, x, t, **options)
                z = ops.take(noise, i, axis=1)
                return ops.reshape(add_step_noise(step, t, z), (-1, *self.image_shape))

            return ops.fori_loop(0, count[0], step_back, x)

        shapes = [self.image_shape, (None, *self.image_shape), (), ()]
        specs = list(zip(shapes, ["float32", "float32", "int32", "int32"], strict=True))
        run = compiled(walk, self.network, specs)

        def call(x: Any, noise: Any, first: int, count: int) -> Any:
            each = ops.ones(ops.shape(x)[:1], "int32")
            return run(x, ops.moveaxis(noise, 0, 1), first * each, count * each)

        return call


def compiled(
    function: Callable[..., Any],
    network: keras.Model,
    specs: list[tuple[tuple[int | None, ...], str]],
) -> Callable[..., Any]:
    """Compile a function of tensors that asks a network.

    Args:
        function: called as ``function(apply, *tensors)``, where ``apply(x, t)`` is the network's
            float32 answer. All tensors, and its result, are ``(batch, …)``; what comes of an image
            does not depend on the others, so that cores can divide them among themselves.
        network: the network.
        specs: shape without the first axis, which may be of any length, and type of each tensor.

    Returns:
        The same as a function of the tensors alone.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _compiled_by_jax(function, network)

    def apply(x: Any, t: Any) -> Any:
        return ops.cast(network([x, t], training=False), "float32")

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
        def apply(x: Any, t: Any) -> Any:
            answer, _ = network.stateless_call(trainable, non_trainable, [x, t], training=False)
            return answer.astype("float32")

        return function(apply, *tensors)

    def call(*tensors: Any) -> Any:
        trainable = [variable.value for variable in network.trainable_variables]
        non_trainable = [variable.value for variable in network.non_trainable_variables]
        return run(trainable, non_trainable, *tensors)

    return call
