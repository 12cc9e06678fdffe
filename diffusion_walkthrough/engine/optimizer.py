"""Adam whose average of the weights is right for short runs too, and that can be watched."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from diffusion_walkthrough import checks


@keras.saving.register_keras_serializable("diffusion_walkthrough")
class AveragingAdam(keras.optimizers.Optimizer):
    """Adam that averages the weights, skips steps that are not finite, and tallies the gradients.

    The averaged weights, average = m · average + (1 - m) · weights, start from those of the first
    step. A momentum m of 0.9999 would keep nine tenths of that start for 1,000 steps; so it begins
    low and rises with the number n of steps, min(``momentum``, (1 + n) / (10 + n)), and the average
    covers about the last ninth of the run until the full momentum is reached (the rule of
    TensorFlow's ``ExponentialMovingAverage``).

    A step whose gradients are not all finite changes no weight. With ``parts``, gradients are added
    up over so many calls, and the last one takes the step of their mean. On several devices the
    gradients are added up before they are clipped, so that the clip is that of the whole batch.

    Attributes:
        averages: one variable for each weight that is trained; empty without a momentum.
        trained: hands out these weights, once the optimizer is built.
        tally: float32 ``(4,)``: the sum of the gradients' global norms before clipping; over how
            many steps; how many steps were skipped; and which was the first of these, from 1.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        clip: float | None = None,
        momentum: float | None = None,
        parts: int = 1,
        name: str = "averaging_adam",
        **options: Any,
    ) -> None:
        """Plan the steps.

        Args:
            learning_rate: a number, or a Keras schedule.
            beta_1: how much of the mean of the gradients stays.
            beta_2: how much of the mean of their squares stays.
            epsilon: is added to the root of the latter.
            clip: the largest global norm of a gradient; None for no clipping.
            momentum: how much of the averaged weights stays in the long run; None for no average.
            parts: how many calls make a step.
            name, **options: as for ``keras.optimizers.Optimizer``.

        Raises TypeError or ValueError for a ``clip``, ``momentum`` or ``parts`` that cannot be.
        """
        if clip is not None:
            checks.real("clip", clip, "above 0, or None", lambda v: v > 0)
        if momentum is not None:
            checks.real("momentum", momentum, "from 0 to below 1, or None", lambda v: 0 <= v < 1)
        checks.integer("parts", parts, 1)
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.clip, self.momentum, self.parts = clip, momentum, parts
        self.averages: list[Any] = []

    def build(self, variables: Any) -> None:
        """Make the variables that the optimizer keeps for each weight, and the tally."""
        if self.built:
            return
        super().build(variables)
        trained = list(variables)
        self.trained = lambda: trained  # Keras would take a list for the optimizer's own
        self.means = [self.add_variable_from_reference(v, "mean") for v in variables]
        self.squares = [self.add_variable_from_reference(v, "square") for v in variables]
        self.tally = self.add_variable((4,), dtype="float32", name="tally", initializer="zeros")
        if self.momentum is not None:
            self.averages += [self.add_variable_from_reference(v, "average") for v in variables]
        if self.parts > 1:
            self.sums = [self.add_variable_from_reference(v, "sum") for v in variables]
            self.part = self.add_variable((), dtype="int32", name="part", initializer="zeros")

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take a step along the gradients, one for each variable; or a part of a step."""
        if not self.built:
            self.build(trainable_variables)
        variables = self.trained() if trainable_variables is None else list(trainable_variables)
        grads = _mean_over_replicas([ops.convert_to_tensor(g) for g in grads])
        if self.parts == 1:
            self._take_step(grads, variables)
            return
        is_last = ops.equal((self.part + 1) % self.parts, 0)
        sums = [self.sums[self._get_variable_index(v)] for v in variables]
        means = [(s + g) / self.parts for s, g in zip(sums, grads, strict=True)]
        _if_so(is_last, lambda: self._take_step(means, variables), [*variables, *self.variables])
        for total, mean in zip(sums, means, strict=True):
            total.assign(ops.where(is_last, 0.0, mean * self.parts))
        self.part.assign((self.part + 1) % self.parts)

    def _take_step(self, grads: list[Any], variables: list[Any]) -> None:
        norm = ops.sqrt(ops.sum(ops.stack([_squared_norm(g) for g in grads])))
        norm = norm * replica_count()
        self._is_good = ops.isfinite(norm)
        good, step = ops.cast(self._is_good, "float32"), ops.cast(self.iterations + 1, "float32")
        before = ops.convert_to_tensor(self.tally)
        first = ops.where(before[3] > 0, before[3], (1.0 - good) * step)
        added = ops.stack([ops.where(self._is_good, norm, 0.0), good, 1.0 - good])
        self.tally.assign(ops.concatenate([before[:3] + added, first[None]]))
        scale = 1.0 if self.clip is None else self.clip / ops.maximum(norm, self.clip)
        scale = ops.where(self._is_good, scale, 0.0)
        # Without gradients, Adam would still move on with the mean of the earlier ones. Where β₂ⁿ
        # is set to 1, the rate below is 0.
        powers = ops.power(self.beta_1, step), ops.power(self.beta_2, step)
        self._powers = powers[0], ops.where(self._is_good, powers[1], 1.0)
        super().apply([_scaled(g, scale) for g in grads], variables)
        self._move_averages(variables)

    def _move_averages(self, variables: list[Any]) -> None:
        if self.momentum is None:
            return
        n = ops.cast(self.iterations, "float32") - 1.0  # counted from 0, and this step is done
        m = ops.minimum(self.momentum, (1.0 + n) / (10.0 + n)) * ops.cast(n > 0, "float32")
        for weight in variables:
            average = self.averages[self._get_variable_index(weight)]
            self.assign(average, m * average + (1.0 - m) * weight)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one weight (Kingma and Ba 2015, arXiv 1412.6980, section 2, last remark)."""
        at = self._get_variable_index(variable)
        mean, square, (power_1, power_2) = self.means[at], self.squares[at], self._powers
        if keras.backend.backend() == "tensorflow":  # the formula below, as one operation of ten
            import tensorflow as tf

            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.value.handle,
                v=square.value.handle,
                beta1_power=tf.cast(power_1, variable.dtype),
                beta2_power=tf.cast(power_2, variable.dtype),
                lr=tf.cast(learning_rate, variable.dtype),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=tf.cast(gradient, variable.dtype),
            )
            return
        mean.assign(mean + (gradient - mean) * (1 - self.beta_1))
        square.assign(square + (ops.square(gradient) - square) * (1 - self.beta_2))
        rate = learning_rate * ops.sqrt(1 - power_2) / (1 - power_1)
        self.assign_sub(variable, rate * mean / (ops.sqrt(square) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to build the optimizer again."""
        names = ("beta_1", "beta_2", "epsilon", "clip", "momentum", "parts")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AveragingAdam:
        """Build the optimizer again, from the configurations of earlier versions too."""
        config = dict(config)
        if "use_ema" in config and "momentum" not in config:  # version 0.1, which was a Keras Adam
            momentum, averaged = config.pop("ema_momentum"), config.pop("use_ema")
            config["momentum"] = momentum if averaged else None
            config["clip"] = config.pop("global_clipnorm")
            config["parts"] = config.pop("gradient_accumulation_steps") or 1
            config.pop("amsgrad", None)
        return super().from_config(config, custom_objects)


def calls_taken(optimizer: Any) -> int:
    """How often an optimizer has been given gradients: those of a step come in its parts."""
    bare = bare_optimizer(optimizer)  # Keras's own counts parts, in what ``iterations`` divides
    calls = int(ops.convert_to_numpy(bare._iterations)) * getattr(bare, "parts", 1)
    return calls + int(ops.convert_to_numpy(getattr(bare, "part", 0)))


def bare_optimizer(optimizer: Any) -> Any:
    """Unwrap the optimizer that Keras wraps for loss scaling under ``mixed_float16``."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _if_so(condition: Any, work: Any, variables: list[Any]) -> None:
    """Do work that changes variables, if a condition holds that may not be known yet."""
    if keras.backend.backend() != "jax" and replica_count() == 1:
        ops.cond(condition, work, lambda: None)
        return
    # What JAX does on a condition changes no variable, and replicas cannot wait for each other in
    # it: the work is done every time, and undone.
    before = [ops.convert_to_tensor(variable) + 0 for variable in variables]
    work()
    for variable, value in zip(variables, before, strict=True):
        variable.assign(ops.where(condition, ops.convert_to_tensor(variable), value))


def _squared_norm(x: Any) -> Any:
    """Sum of the squares of all numbers of a tensor, as a float32 scalar."""
    x = ops.cast(x, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.nn.l2_loss(x)
    return ops.sum(ops.square(x))


def _scaled(x: Any, factor: Any) -> Any:
    """Multiply a tensor by a scalar; a factor of 0 makes 0 of NaN and infinity too."""
    factor = ops.cast(factor, x.dtype)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.math.multiply_no_nan(x, factor)
    return ops.where(factor == 0, ops.zeros_like(x), x * factor)


def replica_count() -> int:
    """Count the copies of the model that share a batch (``tf.distribute``); else 1."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def _mean_over_replicas(grads: list[Any]) -> list[Any]:
    """The mean of each gradient over the replicas, of which Keras takes the sum once more.

    So every replica clips by the norm of the whole batch, which is the sum's: the mean's times the
    number of replicas.
    """
    if replica_count() == 1:
        return grads
    import tensorflow as tf

    context = tf.distribute.get_replica_context()  # None outside a step: nothing to add up there
    return list(context.all_reduce(tf.distribute.ReduceOp.MEAN, grads)) if context else grads


def moving_average(values: np.ndarray, momentum: ArrayLike) -> np.ndarray:
    """Average one weight as the optimizer does: begin with its first value, then keep a share.

    ``values`` after each step, ``(steps,)``, become the averages after each. The share of the old
    average that a step keeps, ``momentum``, is a number, or ``(steps,)`` with one for each.
    """
    momenta = np.broadcast_to(momentum, values.shape)
    average = np.array(values)
    for i in range(1, len(values)):
        average[i] = momenta[i] * average[i - 1] + (1 - momenta[i]) * values[i]
    return average
