"""A guard over training: it stops at the first number that is not one, and says where it arose.

A NaN (not a number) or an infinity never goes away by itself. The optimizer
(:class:`~diffusion_walkthrough.engine.optimizer.AveragingAdam`) changes no weight in a step whose
gradients are not all finite, and counts it. :class:`TrainingGuard` reads that count after the first
step, about once a second, and at the end of each epoch, which costs next to nothing. When a step
has failed, the same question is asked again, slowly, and looked at from one end to the other: a
question depends on nothing but the seed, the epoch and its number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine.feeding import process_count
from diffusion_walkthrough.engine.optimizer import bare_optimizer

_SLOWER = "Try a lower learning_rate, more warmup_steps or a smaller gradient_clip."
_FLOAT16 = (
    "float16 ends at 65,504: try TrainingParameters(precision='mixed_bfloat16'), which ends where "
    "float32 does, or a lower learning_rate."
)


class TrainingGuard(keras.callbacks.Callback):
    """Stop training at the first bad step, and say which tensor, which step and what to try.

    ``DiffusionModel.fit`` puts one before your callbacks; pass your own to choose ``every``. Steps
    that loss scaling skips under ``mixed_float16`` are no fault, unless they bring its scale below
    1, as 16 in a row from its beginning do. Weights stay as they were before the bad step with the
    optimizer of ``make_optimizer``; any other may have spoiled them: load the last checkpoint then.

    Attributes:
        questions: those of the run, which ``fit`` hands over.
    """

    def __init__(self, every: float = 1.0) -> None:
        """Plan a look every so many seconds, at least 0, which looks after every step."""
        super().__init__()
        rule = "of seconds, at least 0"
        self.every = checks.real("every", every, rule, lambda seconds: seconds >= 0)
        self.questions: Any = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Look at the first step; what has been skipped before is over."""
        optimizer = bare_optimizer(self.model.optimizer)
        self._epoch, self._asked, self._next_look = epoch, self.model.epochs_asked, -math.inf
        self._steps_before = int(ops.convert_to_numpy(optimizer.iterations))
        self._parts_before = int(ops.convert_to_numpy(getattr(optimizer, "part", 0)))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look, if it is time to."""
        if time.monotonic() >= self._next_look:
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()  # there the variables are elsewhere during an epoch
            self.look(batch, logs)
            self._next_look = time.monotonic() + self.every

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look before anything is saved."""
        self.look(logs=logs)

    def look(self, batch: int | None = None, logs: Any = None) -> None:
        """Raise FloatingPointError if anything was NaN or infinite since the epoch began."""
        optimizer = self.model.optimizer
        tally = getattr(bare_optimizer(optimizer), "tally", None)
        if tally is not None and (counts := ops.convert_to_numpy(tally))[2] > 0:
            self._explain(int(counts[3]) - self._steps_before)
        if not math.isfinite(float((logs or {}).get("loss", 0.0))):
            self._explain(None if batch is None else batch + 1)
        scale = float(ops.convert_to_numpy(getattr(optimizer, "dynamic_scale", 1.0)))
        if scale < 1:
            raise FloatingPointError(
                f"Training stopped in epoch {self._epoch + 1}: the gradients have been NaN or "
                "infinite in step after step, and loss scaling, which skips such steps, has gone "
                f"down from {optimizer.initial_scale:g} to {scale:g}. {self._remedy()}"
            )

    def _explain(self, step: int | None) -> None:
        """Ask the failing question again, and raise with the first thing that is not finite."""
        at = "in" if step is None else f"at step {step} of"
        where = f"Training stopped {at} epoch {self._epoch + 1}"
        if weight := _first_bad(self.model.weights, self.model.weights):
            raise FloatingPointError(
                f"{where}: the weight {weight} is NaN or infinite, and so is everything after it. "
                f"Load the last checkpoint, and go on from it. {_SLOWER}"
            )
        can_be_repeated = hasattr(self.questions, "batch") and process_count() == 1
        if step is not None and can_be_repeated:
            first = (step - 1) * self.model.parts - self._parts_before
            for number in range(max(first, 0), first + self.model.parts):
                if words := self._fault_of(*self.questions.batch(self._asked, number)):
                    raise FloatingPointError(f"{where}: {words}")
        raise FloatingPointError(
            f"{where}: the answer, the loss or a gradient was NaN or infinite. {self._remedy()}"
        )

    def _fault_of(self, shown: Any, made_of: Any, weights: Any = None) -> str | None:
        """What is not finite when a question is asked again: answer, loss, or which gradient."""
        model = self.model
        shown, made_of = keras.tree.map_structure(ops.convert_to_tensor, (shown, made_of))

        def loss_of(answer: Any) -> Any:
            return model.compute_loss(shown, made_of, answer, weights)

        answer = model(shown, training=True)
        loss = float(ops.stop_gradient(loss_of(answer)))
        if not np.isfinite(ops.convert_to_numpy(ops.stop_gradient(answer))).all():
            return (
                "the images and the weights are finite numbers, the network's answer is not "
                f"(loss {loss}). {self._remedy()}"
            )
        if not math.isfinite(loss):
            return (
                f"the network's answer is finite, the loss is {loss}: the answer is too large to "
                "be squared. Look at what model.denoise.ask returns, and try a lower "
                "learning_rate or more warmup_steps."
            )
        gradients = _gradients(model, lambda: loss_of(model(shown, training=True)))
        path = _first_bad(model.trainable_variables, gradients)
        return path and f"the loss is finite, the gradient of {path} is not. {self._remedy()}"

    def _remedy(self) -> str:
        return _FLOAT16 if self.model.network.compute_dtype == "float16" else _SLOWER


def _first_bad(variables: Iterable[Any], values: Iterable[Any]) -> str | None:
    """The path of the first variable whose value (or gradient) is not all finite numbers."""
    for variable, value in zip(variables, values, strict=True):
        if value is not None and not np.isfinite(ops.convert_to_numpy(value)).all():
            return variable.path
    return None


def _gradients(model: Any, loss: Callable[[], Any]) -> list[Any]:
    """The gradient of a loss for each weight that is trained, in a backend's own way."""
    values = [variable.value for variable in model.trainable_variables]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, values)
    if keras.backend.backend() == "torch":
        import torch

        return list(torch.autograd.grad(loss(), values, allow_unused=True))
    import jax

    def of_values(values: list[Any]) -> Any:
        mapping = list(zip(model.trainable_variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return loss()

    return jax.grad(of_values)(values)
