"""What watches a run: logs, averaged weights, pictures on the way, one bar for it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine.optimizer import bare_optimizer


class TrainingLogs(keras.callbacks.Callback):
    """Add the learning rate and the norm of the gradients to the logs of each epoch.

    They stand in the history, and in what later callbacks see, TensorBoard for instance:
    ``learning_rate`` is the one reached at the epoch's end; ``gradient_norm`` is the mean, over the
    epoch's steps, of the global norm before clipping (with an optimizer that tallies it, such as
    :class:`~diffusion_walkthrough.engine.optimizer.AveragingAdam`).
    """

    def __init__(self, questions: Any = None) -> None:
        """Take note of the questions: Keras counts its first look at them as an epoch."""
        super().__init__()
        self.questions = questions

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin a new tally, and the questions of this epoch."""
        if self.questions is not None:
            self.questions.epoch = self.model.epochs_asked
        tally = getattr(bare_optimizer(self.model.optimizer), "tally", None)
        if tally is not None:  # it is made with the first step
            tally.assign(np.zeros(4, dtype="float32"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Read both, and count the epoch: the next one has questions of its own."""
        self.model.epochs_asked += 1
        if logs is None:
            return
        optimizer = bare_optimizer(self.model.optimizer)
        logs["learning_rate"] = float(ops.convert_to_numpy(optimizer.learning_rate))
        tally = getattr(optimizer, "tally", None)
        if tally is not None:
            total, steps = ops.convert_to_numpy(tally)[:2]
            logs["gradient_norm"] = float(total / max(steps, 1.0))


class AveragedWeights(keras.callbacks.Callback):
    """Let validation, callbacks at the end of an epoch, and all after the run see the average.

    Training goes on with its own weights. Keras's ``SwapEMAWeights`` is meant for the same, but in
    a run that stops early it leaves the weights of the last step in the model. A
    ``ModelCheckpoint`` saves the averages too: right to draw with.
    """

    def __init__(self) -> None:
        """Begin with the training's own weights in the model."""
        super().__init__()
        #: The training's own weights, while the model shows the averages; else None.
        self.own_weights: list[Any] | None = None

    def _pairs(self) -> list[tuple[Any, Any]]:
        """Each weight that is trained, with its average; none before the first step."""
        optimizer = bare_optimizer(self.model.optimizer)
        if not int(ops.convert_to_numpy(optimizer.iterations)):
            return []
        if not getattr(optimizer, "averages", []):
            return []
        # By weight: what was frozen, or unfrozen, since the optimizer was built moves no place.
        averages = {id(w): a for w, a in zip(optimizer.trained(), optimizer.averages, strict=True)}
        weights = (w for w in self.model.trainable_variables if id(w) in averages)
        return [(weight, averages[id(weight)]) for weight in weights]

    def show_average(self) -> None:
        """Put the averages into the model, and remember the training's own weights."""
        if self.own_weights is None:
            self.own_weights = [copied(weight) for weight, _ in self._pairs()]
            for weight, average in self._pairs():
                weight.assign(copied(average))

    def show_own(self) -> None:
        """Put the training's own weights back."""
        if self.own_weights is not None:
            for (weight, _), value in zip(self._pairs(), self.own_weights, strict=True):
                weight.assign(value)
            self.own_weights = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Start a new average where the last ``fit`` has ended, from what the weights are now."""
        if getattr(self.model, "holds_average", False):
            for weight, average in self._pairs():
                average.assign(copied(weight))
        self.model.holds_average = False

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the averages in the model."""
        self.show_average()
        self.own_weights = None
        self.model.holds_average = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go back to the training's own weights."""
        self.show_own()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show the averages to the callbacks that follow."""
        self.show_average()

    def on_test_begin(self, logs: Any = None) -> None:
        """Show the averages to the validation."""
        self.show_average()

    def on_test_end(self, logs: Any = None) -> None:
        """Go back to the training's own weights."""
        self.show_own()


def copied(variable: Any) -> np.ndarray:
    """The numbers of a variable, in memory of their own.

    On JAX two variables would otherwise share a buffer, which the next step gives away.
    """
    return np.array(ops.convert_to_numpy(variable))


class SampleHistory(keras.callbacks.Callback):
    """Draw a few images from the same noise every now and then, to watch the model learn.

    They are drawn with the averaged weights if the parameters ask for an average
    (``ema_momentum``), else with the weights of that moment.

    Attributes:
        images: for each number of finished epochs, the images drawn then, float32
            ``(n, height, width, channels)``. 0 is before any training.
    """

    def __init__(
        self,
        every: int,
        n: int = 16,
        seed: int = 0,
        show: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        """Plan when to draw.

        Args:
            every: after how many epochs each time, at least 1.
            n: how many images.
            seed: of the noise; the same each time, so that only the model changes.
            show: called with the number of finished epochs and the images, for a live view.

        Raises TypeError or ValueError for a number that is none of these.
        """
        super().__init__()
        self.every, self.n = checks.integer("every", every, 1), checks.integer("n", n, 1)
        self.seed, self.show = checks.seed("seed", seed), show
        self.images: dict[int, np.ndarray] = {}

    def _draw(self, epochs: int) -> None:
        self.images[epochs] = self.model.sample(self.n, seed=self.seed)
        if self.show:
            self.show(epochs, self.images[epochs])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Draw before any training; not where an interrupted one goes on."""
        if epoch == 0:
            self._draw(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draw after every so many epochs, and after the last."""
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]:
            self._draw(epoch + 1)


class RunProgress(keras.callbacks.Callback):
    """One progress bar for a whole run, where Keras's own would print a line each epoch."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the bar."""
        self.bar = keras.utils.Progbar(self.params["epochs"], unit_name="epoch")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Move the bar on and show the epoch's loss."""
        latest = {name: float(value) for name, value in (logs or {}).items()}
        self.bar.stateful_metrics.update(latest)
        self.bar.update(epoch + 1, list(latest.items()))
