"""A run of training, and what Keras's methods take: checked, fed, watched and resumed.

``DiffusionModel`` is a :class:`TrainedOnQuestions`. It says what a question is and how answers are
marked; here stands what any such model needs to be trained by Keras's ``fit`` on images.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine import doors
from diffusion_walkthrough.engine.callbacks import AveragedWeights, TrainingLogs
from diffusion_walkthrough.engine.feeding import (
    CutAnew,
    QuestionSet,
    QuestionsFromBatches,
    as_data_set,
    taken_apart,
)
from diffusion_walkthrough.engine.guarding import TrainingGuard
from diffusion_walkthrough.engine.labels import (
    as_array,
    checked_interval,
    checked_labels,
    checked_number,
    labels_for,
)
from diffusion_walkthrough.engine.optimizer import bare_optimizer, calls_taken, replica_count
from diffusion_walkthrough.engine.precision import floats_of_32_bits, warn_of_another_policy
from diffusion_walkthrough.engine.resuming import ResumeTraining
from diffusion_walkthrough.files.structures import structure
from diffusion_walkthrough.parameters import DiffusionParameters


class TrainedOnQuestions(keras.Model):
    """A Keras model that is trained on questions about images.

    A model of this kind says itself what is asked, in ``questions(images, labels, weights,
    **options)``, and marks the answers in ``compute_loss``.

    Attributes:
        diffusion_parameters: all that defines the model (``parameters`` alone is a method of
            every PyTorch module, and would be hidden).
        network: a functional model from ``[x_t, t]`` (and labels) to its answer.
        seed: of the questions.
        epochs_asked: for how many epochs it has been trained; the next one has other questions.
    """

    def __init__(
        self,
        parameters: Any,
        seed: int | None = None,
        epochs_asked: int = 0,
        **options: Any,
    ) -> None:
        """Choose the precision, and where the questions begin."""
        if isinstance(parameters, dict):
            parameters = DiffusionParameters.from_dict(parameters, version=1)  # of any age
        if not isinstance(parameters, DiffusionParameters):
            rule, remedy = "it must be DiffusionParameters", "Use DiffusionParameters.digits()"
            raise TypeError(checks.message("parameters", parameters, rule, remedy))
        precision = parameters.training.precision
        warn_of_another_policy(precision)
        super().__init__(dtype=precision, **options)  # in float16, Keras scales the loss
        self.autocast = False  # or Keras rounds images and steps to 16 bits before call sees them
        self.diffusion_parameters = parameters
        self.epochs_asked = checks.integer("epochs_asked", epochs_asked, 0)
        seed = checks.seed("seed", seed)
        if seed is None:  # one that follows keras.utils.set_random_seed, as each layer's does
            seed = int(ops.convert_to_numpy(keras.random.SeedGenerator().state)[0])
        self.seed = seed
        self.built = True  # the network has its weights from the start

    def shape_of(self, n: int) -> tuple[int, ...]:
        """The shape of ``n`` images, ``(n, height, width, channels)``.

        Raises:
            ValueError: if ``n`` is not a whole number of at least 1.
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(
                f"n = {n!r} images cannot be drawn; ask for a whole number of at least 1."
            )
        return (n, *self.diffusion_parameters.unet.image_shape)

    def checked(self, images: Any, labels: Any = None, weights: Any = None) -> tuple[Any, ...]:
        """Images, labels and weights, if there are any, as NumPy arrays that fit the network.

        Labels become None for a network that is told none, with a warning.

        Raises:
            ValueError: if the images are not ``(n, height, width, channels)`` of the network's
                size, or do not lie in [-1, 1]; if there is not one label, or one weight, each; or
                if a network that is told labels does not know one, or gets none.
        """
        images = doors.as_images(images)
        doors.check_images(images, self.diffusion_parameters.unet.image_shape)
        weights = doors.as_weights(weights, images)
        if described := self.diffusion_parameters.unet.labels:
            return images, checked_labels(labels, described, len(images)), weights
        labels = doors.as_labels(labels, images)
        if labels is not None and not self.takes_labels:
            checks.warn(
                "there are labels, but this network is told none and learns nothing of them. Leave "
                "them out, or build a model with UNetParameters(labels=…)."
            )
        return images, labels if self.takes_labels else None, weights

    @property
    def takes_labels(self) -> bool:
        """Whether the network is told labels."""
        return len(self.network.inputs) > 2

    @property
    def beside(self) -> int:
        """How much the network is shown beside x_t, t and labels: 1 if what is known of images."""
        return len(self.network.inputs) - 2 - bool(self.diffusion_parameters.unet.labels)

    def told(
        self,
        n: int,
        labels: Any = None,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Make of ``labels`` and ``guidance_scale`` what a walk takes; other options stay.

        Args:
            n: how many images are to be drawn.
            labels: what they are to show, for a network that is told it: one value, or one for each
                image; of several labels a row, or a row for each, or ``{"hat": 3, …}``. What is -1,
                or not named, is not said.
            guidance_scale: how far to go towards what the labels say; see ``guidance``. 1 is off.
            guidance_interval: the σ between which it is on; None for all.
            **options: of the walk.

        Raises TypeError or ValueError for labels or a scale that cannot be.
        """
        described = self.diffusion_parameters.unet.labels
        scale = checked_number(guidance_scale)
        if scale == 1 and guidance_interval is not None:
            rule = "there is no guidance, whose scale is 1"
            remedy = "Pass guidance_scale=2, say"
            raise ValueError(checks.message("guidance_interval", guidance_interval, rule, remedy))
        if labels is None and scale == 1:
            return options
        if labels is None or not described:
            name, value = ("guidance_scale", scale) if labels is None else ("labels", labels)
            rule = "without labels there is nothing to be guided to"
            remedy = "Pass labels=… too, or leave it out"
            if not described:
                rule, remedy = "this network is told no labels", "Leave it out"
            raise ValueError(checks.message(name, value, rule, remedy))
        told = [labels_for(labels, described, n)]
        if scale != 1:
            told.append(np.full(n, scale, "float32"))
            if guidance_interval is not None:
                told.append(checked_interval(guidance_interval, n))
        questions, told = min(len(told), 2), [*options.get("told", ()), *told]
        return {**options, "told": told, "questions": questions}

    @property
    def label_dropping(self) -> float:
        """The share of images whose labels are left out in training."""
        parameters = self.diffusion_parameters
        return parameters.training.label_dropping if parameters.unet.labels else 0.0

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to build the model again, to load or to copy it.

        Raises ValueError if the model was given a network that it would not have then, and
        TypeError if its class takes something that is not kept.
        """
        if getattr(self, "network_given", False) and not self.is_described():
            raise ValueError(
                "the model's network is one that was given, and Keras, which keeps the parameters "
                "alone, would build another in its place. Keep its weights with "
                "model.network.save_weights('own.weights.h5') (ModelCheckpoint: "
                "save_weights_only=True), and build the model around it anew to load or copy it."
            )
        config = self._config()
        if type(self).get_config is TrainedOnQuestions.get_config:
            self._check_what_it_takes(config)
        return config

    def _check_what_it_takes(self, config: dict[str, Any]) -> None:
        try:
            inspect.signature(type(self).__init__).bind(self, **config)
        except TypeError as error:
            kind = type(self).__name__
            raise TypeError(
                f"a {kind} could not be built again from {', '.join(config)} ({error}). Return "
                "what else it takes, too: def get_config(self): return {**super().get_config(), …}"
            ) from None

    def save(self, *args: Any, **options: Any) -> None:
        """Save as ``keras.Model.save`` does, which begins a file before it asks ``get_config``."""
        self.get_config()
        super().save(*args, **options)

    def _config(self) -> dict[str, Any]:
        parameters = self.diffusion_parameters.to_dict()
        names = ("seed", "epochs_asked", "name")
        return {"parameters": parameters, **{name: getattr(self, name) for name in names}}

    def is_described(self, kind: type[TrainedOnQuestions] | None = None) -> bool:
        """Whether a model that is built again from the parameters has this network.

        Args:
            kind: the class that it is built as; None for the model's own, or the nearest of ours
                where that one takes more than the parameters.
        """
        nearest = next(cls for cls in type(self).__mro__ if is_ours(cls))
        before = random.getstate()
        try:  # the weights are drawn, too, which is not to be noticed
            with keras.device("cpu:0"):
                try:
                    described = (kind or type(self)).from_config(self._config()).network
                except TypeError:
                    described = nearest.from_config(self._config()).network
        finally:
            random.setstate(before)
        return structure(self.network) == structure(described)

    @floats_of_32_bits()
    def compile(self, optimizer: Any = None, **options: Any) -> None:
        """Make ready for ``fit``, with any Keras optimizer and options of ``keras.Model.compile``.

        ``jit_compile`` is off on TensorFlow unless asked for: on a CPU, XLA's convolutions are the
        slower ones. Raises ValueError for a loss or a metric, which would never be asked, and for
        ``steps_per_execution`` that is no number of steps.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if options.get(name) is not None:
                raise ValueError(
                    f"{name} = {options[name]!r} cannot be chosen: a DiffusionModel marks its "
                    f"network's answers itself. Leave {name} out; DiffusionParameters(loss='kl') "
                    "trains on the variational bound, and compute_loss can be overridden."
                )
        checks.integer("steps_per_execution", options.get("steps_per_execution", 1), 1)
        if keras.backend.backend() == "tensorflow":
            options.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **options)

    def get_compile_config(self) -> dict[str, Any] | None:
        """What Keras needs to compile a loaded model again."""
        return {"optimizer": keras.optimizers.serialize(self.optimizer)} if self.compiled else None

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a loaded model with the saved one's optimizer, ready to go on training."""
        # The saved optimizer scales the loss, or was told not to.
        optimizer = keras.optimizers.deserialize(config["optimizer"])
        self.compile(optimizer=optimizer, auto_scale_loss=False)
        self.optimizer.build(self.trainable_variables)

    @floats_of_32_bits()
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        **options: Any,
    ) -> Any:
        """Measure the loss, without dropout, asking the same about the same images each time.

        Args:
            x: clean images, as for ``fit``.
            y: labels, for a network that is told them; none of them is dropped.
            batch_size: how many at a time; None takes the parameters' number. For images in one
                array it changes nothing but the memory it takes.
            verbose, **options: as for ``keras.Model.evaluate``; ``sample_weight`` weighs images.
        """
        self._check_compiled()
        doors.check_numbers(batch_size=batch_size, **options)
        weights = options.pop("sample_weight", None)
        steps = None if isinstance(x, QuestionSet) else options.pop("steps", None)
        x = self._held_out(x, y, weights, batch_size, steps)
        with _left_in_order(self, [x]):
            return super().evaluate(x, verbose=verbose, **options)

    def _check_compiled(self) -> None:
        if not self.compiled:
            raise ValueError("the model is not compiled. Call model.compile() first.")

    def _held_out(
        self, x: Any, labels: Any, weights: Any, batch_size: int | None, steps: int | None = None
    ) -> QuestionSet:
        alike: dict[str, Any] = {"shuffle": False, "always_alike": True}
        if batch_size is None or doors.is_data_set(x):
            return self._asked(x, labels, weights, batch_size, steps_per_epoch=steps, **alike)
        return CutAnew(self._asked(x, labels, weights, None, **alike), batch_size, steps)

    def _asked(
        self, x: Any, labels: Any, weights: Any, batch_size: int | None, parts: int = 1, **told: Any
    ) -> QuestionSet:
        """Questions about images in one array, or about a data set that yields batches of them.

        A step sees ``batch_size`` images, in so many parts; None takes the parameters' number.
        """
        if doors.is_data_set(x):
            own = {"y": labels, "sample_weight": weights, "batch_size": batch_size}
            if isinstance(x, QuestionSet):
                steps = told.get("steps_per_epoch")
                doors.check_planned(type(x).__name__, **own, steps_per_epoch=steps)
                if not isinstance(x, QuestionsFromBatches):  # which would be read, perhaps once
                    doors.check_shown(x, self.network)
                return x
            doors.check_alone(type(x).__name__, **own)
            return QuestionsFromBatches(x, self.questions, **told)
        if batch_size is None:
            batch_size = self.diffusion_parameters.training.batch_size
        if batch_size % parts:
            raise ValueError(
                f"batch_size = {batch_size} cannot be divided into the {parts} parts that "
                "gradient_accumulation_steps asks for. Use a multiple of it."
            )
        return self.questions(x, labels, weights, batch_size=batch_size // parts, **told)

    @floats_of_32_bits()
    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **options: Any
    ) -> Any:
        """Take one step on a batch of clean images; ``y`` are labels, if the network has any.

        Raises ValueError as ``fit`` does, also if the run is over.
        """
        self._check_compiled()
        of_class = options.pop("class_weight", None)
        weights, x = doors.by_class(sample_weight, of_class, y), doors.as_images(x)
        y = y if of_class is None or self.takes_labels else None
        asked = self.questions(x, y, weights, batch_size=max(len(x), 1), shuffle=False)
        self._check_not_over(1)
        asked.epoch = calls_taken(self.optimizer)
        return super().train_on_batch(*asked[0], **options)

    @floats_of_32_bits()
    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **options: Any
    ) -> Any:
        """Measure the loss of a batch of clean images."""
        x = doors.as_images(x)
        asked = self._held_out(x, y, sample_weight, max(len(x), 1))
        return super().test_on_batch(*asked[0], **options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Ask about noisy images, ``(x_t, t)``; TypeError for anything else, as for clean ones."""
        if args and not isinstance(args[0], (tuple, list, Mapping)):
            self.predict()
        return super().__call__(*args, **options)

    def predict(self, *args: Any, **options: Any) -> Any:
        """Refuse, as there is nothing that Keras could ask about images; TypeError."""
        raise TypeError(
            "a DiffusionModel predicts nothing about clean images. To draw some: model.sample(16). "
            "To ask about noisy ones at steps t: model.denoise(x_t, t) for the clean image, "
            "model.network.predict([x_t, t]) for the network's own answer."
        )

    predict_on_batch = predict

    def export(self, *args: Any, **options: Any) -> Any:
        """Refuse, as only the network can be asked without this package; TypeError."""
        raise TypeError(
            "a DiffusionModel is not exported: what others can ask is its network. Write "
            "model.network.export(…) with the same arguments, or model.save('model.keras')."
        )

    @floats_of_32_bits()
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose: Any = "auto",
        **options: Any,
    ) -> keras.callbacks.History:
        """Train on images in [-1, 1], with the parameters' own defaults.

        Args:
            x: clean images, float32 ``(n, height, width, channels)`` in [-1, 1]; or a data set
                that yields batches of them.
            y: labels, for a network that is told them (int32 ``(n,)``, of several ``(n, k)``; -1
                for what is not known), and for ``class_weight``.
            batch_size: images per step, all its parts together; None takes the parameters' number.
            epochs: None plans the whole run of ``decay_steps`` steps, or 1 epoch without them.
            verbose, **options: as for ``keras.Model.fit``. An epoch of ``steps_per_epoch`` steps
                goes on through the images where the one before has ended.

        A ``fit`` that is interrupted leaves the weights of its last step in the model, one that
        ends leaves the averaged ones. With :class:`ResumeTraining` among the callbacks, a run whose
        process was killed goes on.

        Returns Keras's history: of each epoch the loss, the learning rate at its end, and the mean
        global norm of the gradients before clipping. Raises ValueError if the images do not fit the
        network or do not lie in [-1, 1], or if the run is over: its learning rate has fallen to 0.
        """
        doors.check_numbers(batch_size=batch_size, epochs=epochs, **options)
        asked = self._asked_in_training(x, y, batch_size, options)
        epochs = self._planned_epochs(len(asked)) if epochs is None else epochs
        self._build_optimizer()
        callbacks = self._with_own_callbacks(options.pop("callbacks", None), asked)
        options |= {"epochs": epochs, "verbose": verbose, "callbacks": callbacks}
        kept = [callback for callback in callbacks if isinstance(callback, ResumeTraining)]
        resumed = kept[0].going_on(self, asked, options) if kept else contextlib.nullcontext()
        asking = [asked, options.get("validation_data")]
        with _left_in_order(self, asking, callbacks), resumed as history:
            if history is not None:
                return history
            left = epochs - options.get("initial_epoch", 0)
            self._check_not_over(left, len(asked))
            asked.epoch = self.epochs_asked
            return super().fit(**self._fed(asked, left), shuffle=False, **options)

    def _asked_in_training(
        self, x: Any, y: Any, batch_size: int | None, options: dict[str, Any]
    ) -> QuestionSet:
        """The questions of a run, and in the options those about what is held out."""
        if isinstance(x, QuestionSet):
            own = {name: options.get(name) for name in ("shuffle", "class_weight")}
            doors.check_planned(type(x).__name__, **own)
        split, held_out = options.pop("validation_split", 0.0), options.get("validation_data")
        weights, of_class = options.pop("sample_weight", None), options.pop("class_weight", None)
        if split and held_out is None:
            if doors.is_data_set(x):
                doors.check_alone(type(x).__name__, validation_split=split)
            x, y, weights, held_out = _divided(doors.as_images(x), y, weights, split)
            if of_class is not None and not self.takes_labels:
                held_out = (held_out[0], None, held_out[2])
        if held_out is not None:
            planned = isinstance(held_out, QuestionSet)  # whose steps Keras counts itself
            at_once = options.pop("validation_batch_size", None)
            steps = None if planned else options.pop("validation_steps", None)
            options["validation_data"] = self._held_out(*taken_apart(held_out), at_once, steps)
        if doors.is_data_set(x):
            doors.check_alone(type(x).__name__, class_weight=of_class)
        weights = doors.by_class(weights, of_class, y)
        y = y if of_class is None or self.takes_labels else None
        told = {
            "shuffle": options.pop("shuffle", True),
            "mirror": self.diffusion_parameters.training.horizontal_flip,
            "steps_per_epoch": options.pop("steps_per_epoch", None),
        }
        return self._asked(x, y, weights, batch_size, self.parts, **told)

    @property
    def parts(self) -> int:
        """In how many parts the optimizer's step goes through its batch."""
        optimizer = bare_optimizer(self.optimizer) if self.compiled else None
        own = getattr(optimizer, "parts", None)
        return own or getattr(optimizer, "gradient_accumulation_steps", None) or 1

    def _planned_epochs(self, steps: int) -> int:
        """How many epochs make up ``decay_steps`` steps; 1 if the run has no planned end."""
        total = self.diffusion_parameters.training.decay_steps
        return 1 if total is None else math.ceil(total * self.parts / max(steps, 1))

    def _check_not_over(self, epochs: int, steps: int = 1) -> None:
        """Refuse to train at a learning rate that has fallen to 0, or warn: nothing would change.

        Asked before so many ``epochs`` of so many batches.
        """
        total = self.diffusion_parameters.training.decay_steps
        if not self.compiled or epochs <= 0:
            return
        if not self.trainable_variables:
            raise ValueError(
                "no weight of the network is to be trained, so that nothing would change. Set "
                "model.network.trainable = True."
            )
        done = int(ops.convert_to_numpy(bare_optimizer(self.optimizer).iterations))
        if total is None:
            self._check_own_rate(done, math.ceil(epochs * steps / self.parts))
            return
        needed = max(math.ceil((total - done) * self.parts / steps), 0)
        rate = doors.rate_of(self.optimizer) if epochs > needed else None
        if rate is None or float(ops.convert_to_numpy(rate(total))) > 0:
            return
        if done < total:
            checks.warn(
                f"the learning rate falls to 0 over {total} steps (decay_steps), so that the last "
                f"{epochs - needed} of {epochs} epochs would change nothing. Leave out epochs, or "
                "build the model with more decay_steps in its TrainingParameters."
            )
            return
        raise ValueError(
            f"the run is over: its {total} steps (decay_steps) have been taken, and at a learning "
            "rate of 0 more would change nothing. model.compile() begins a new run from these "
            "weights; for a longer one, build the model with more decay_steps in its "
            "TrainingParameters."
        )

    def _check_own_rate(self, done: int, ahead: int) -> None:
        """Refuse to take steps at a learning rate that an own schedule leaves at 0 for all.

        Of a number that is 0, warn: a callback may be going to raise it.
        """
        if (rate := doors.rate_of(self.optimizer)) is None:
            if float(ops.convert_to_numpy(bare_optimizer(self.optimizer).learning_rate)) == 0:
                checks.warn(
                    "the learning rate of this optimizer is 0, so that nothing changes as long as "
                    "no callback raises it. Compile the model with another one."
                )
            return
        places = np.linspace(done, done + ahead, 9)  # a warm-up begins at 0, too
        if not any(float(ops.convert_to_numpy(rate(place))) for place in places):
            raise ValueError(
                f"the learning rate of this optimizer's schedule is 0 from step {done} on, so that "
                "nothing would change. Compile the model with a new optimizer."
            )

    def _fed(self, asked: QuestionSet, epochs: int) -> dict[str, Any]:
        """What Keras's ``fit`` is to be given to train on so many epochs of questions."""
        # Calls of several steps that do not make up an epoch would go on into the next one's.
        apart = len(asked) % self.steps_per_execution or isinstance(asked, QuestionsFromBatches)
        if apart or keras.backend.backend() != "tensorflow":
            return {"x": asked}
        return {"x": as_data_set(asked, max(epochs, 1)), "steps_per_epoch": len(asked)}

    def _build_optimizer(self) -> None:
        """Make the optimizer's variables; TensorFlow writes a step that makes them down twice."""
        to_build = self.compiled and not self.optimizer.built
        if to_build and keras.backend.backend() == "tensorflow":
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _with_own_callbacks(self, callbacks: Any, asked: QuestionSet) -> list[Any]:
        """Put this package's callbacks before the caller's, which then see what ours have done."""
        others = getattr(callbacks, "callbacks", callbacks)  # those in a CallbackList
        others = [c for c in keras.tree.flatten(others) if c is not None]
        doors.check_callbacks(others, self.optimizer if self.compiled else None)
        if len(kept := [c for c in others if isinstance(c, ResumeTraining)]) > 1:
            rule, remedy = "a run is kept in one folder", "Leave all but one ResumeTraining out"
            raise ValueError(checks.message("callbacks", kept, rule, remedy))
        guards = [c for c in others if isinstance(c, TrainingGuard)] or [TrainingGuard()]
        for guard in guards:
            guard.questions = asked
        # What is to be resumed from is saved before the averages take the weights' place.
        kinds = (keras.callbacks.BackupAndRestore, ResumeTraining)
        backups = [TrainingLogs(asked), *(c for c in others if isinstance(c, kinds))]
        own = []
        if self.compiled and getattr(bare_optimizer(self.optimizer), "momentum", None):
            own = [c for c in others if isinstance(c, AveragedWeights)] or [AveragedWeights()]
        ours = [*guards, *backups, *own]
        return [*ours, *(c for c in others if c not in ours)]


def _divided(x: np.ndarray, y: Any, weights: Any, split: float) -> tuple[Any, Any, Any, tuple]:
    """What is trained on, and what is held out: the first images and the rest, with their own."""
    kept = math.floor(len(x) * (1.0 - split))
    if not kept:
        rule = f"it leaves none of the {len(x)} images to train on"
        raise ValueError(checks.message("validation_split", split, rule, "Use less"))
    both: list[tuple[Any, Any]] = []
    for name, part in (("labels", y), ("weights", weights)):
        whole = None if part is None else as_array(name, part)
        both.append((None, None) if whole is None else (whole[:kept], whole[kept:]))
    (y, held_y), (weights, held_weights) = both
    return x[:kept], y, weights, (x[kept:], held_y, held_weights)


def is_ours(kind: type) -> TypeGuard[type[TrainedOnQuestions]]:
    """Whether a class of models comes with the course."""
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def mean_of_batch(losses: Any, weights: Any = None) -> Any:
    """Average the losses of a batch's images, ``(batch,)``, each with its weight if there are any.

    Of several devices each has its share of the batch; what they return adds up to the mean.
    """
    if weights is not None:
        losses = losses * ops.reshape(ops.cast(weights, "float32"), (-1,))
    return ops.mean(losses) / replica_count()


@contextlib.contextmanager
def _left_in_order(model: Any, questions: list[Any], callbacks: Any = ()) -> Iterator[None]:
    """Leave the training's own weights in a model whose run was interrupted.

    Where TensorFlow wraps what was wrong with a data set into an error of its own, say it plainly.
    """
    try:
        yield
    except BaseException as error:
        if keras.backend.backend() == "jax":
            model.jax_state_sync()  # or the variables would have no values any more
        for callback in callbacks:
            if isinstance(callback, AveragedWeights):
                callback.show_own()
        for fault in (getattr(asked, "fault", None) for asked in questions):
            if fault is not None and fault is not error:
                raise fault from None
        raise
