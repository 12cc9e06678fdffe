"""Training that is interrupted ends as if nothing had happened; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
import subprocess
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops
from tiny import TINY

from diffusion_walkthrough import resuming
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.resuming import OrderedImages, newest_checkpoint, write_checkpoint
from diffusion_walkthrough.training import (
    AveragingAdam,
    DiffusionModel,
    ResumeTraining,
    SampleHistory,
)

TESTS = Path(__file__).parent
# All that has a state: dropout, averages, a learning rate that falls.
PARAMETERS = dataclasses.replace(
    TINY,
    unet=dataclasses.replace(TINY.unet, dropout=0.1),
    training=dataclasses.replace(
        TINY.training, ema_momentum=0.99, batch_size=16, decay_steps=21, warmup_steps=2
    ),
)
IMAGES = load_images("digits")[0][:104]  # 7 steps an epoch, the last of 8 images


class Interrupted(Exception):
    pass


class InterruptAfter(keras.callbacks.Callback):
    """Stops ``fit`` after so many steps, as Ctrl-C would."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            raise Interrupted


@functools.cache
def built(kind: str) -> tuple[DiffusionModel, list[np.ndarray]]:
    """A model of one kind, ready to train, and all that it starts from."""
    training = {"learning_rate": 1e-3} if kind == "another rate" else {}
    training = dataclasses.replace(PARAMETERS.training, **training)
    keras.utils.set_random_seed(1)
    model = DiffusionModel(dataclasses.replace(PARAMETERS, training=training), seed=3)
    optimizer = None
    if kind == "gradient descent":
        optimizer = keras.optimizers.SGD()
    if kind == "without averages":
        optimizer = AveragingAdam(2e-3)
    if kind == "accumulating":
        options = {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.99}
        optimizer = AveragingAdam(2e-3, **options)
    quickly = {"run_eagerly": True} if keras.backend.backend() == "torch" else {}
    model.compile(optimizer, steps_per_execution=3 if kind == "three a call" else 1, **quickly)
    model.optimizer.build(model.trainable_variables)
    return model, state(model)


def new_model(kind: str = "plain") -> DiffusionModel:
    """A model at its start, as a new process would build it; traced only once."""
    model, start = built(kind)
    for variable, value in zip(variables(model), start, strict=True):
        variable.assign(value)
    model._fit_has_ended = False
    keras.utils.set_random_seed(1)  # on PyTorch, dropout draws from a generator of the process
    return model


def variables(model) -> list:
    return [*model.variables, *model.optimizer.variables]


def state(model) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables(model)]


class Run(NamedTuple):
    """What a run has come to."""

    history: dict
    epochs: list
    state: list


def train(folder, *, epochs=3, interrupt_after=None, model=None, images=IMAGES, **options):
    """Run the lines that a user would run again; None if interrupted."""
    model = model or new_model()
    callbacks = [ResumeTraining(folder, every_steps=2), *options.pop("callbacks", [])]
    if interrupt_after:
        callbacks.append(InterruptAfter(interrupt_after))
    try:
        history = model.fit(images, epochs=epochs, verbose=0, callbacks=callbacks, **options)
    except Interrupted:
        return None
    return Run(history.history, history.epoch, state(model))


def assert_same_run(found: Run, expected: Run) -> None:
    assert found.history == expected.history
    assert found.epochs == expected.epochs
    for a, b in zip(found.state, expected.state, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Run:
    return train(tmp_path_factory.mktemp("undisturbed"))


# Interrupted runs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interruptions",
    [[1, 9, 4], [7, 7], [20]],
    ids=["in the middle of epochs", "where epochs end", "one step before the end"],
)
def test_an_interrupted_run_ends_as_if_nothing_had_happened(interruptions, undisturbed, tmp_path):
    for steps in interruptions:
        assert train(tmp_path, interrupt_after=steps) is None
    assert_same_run(train(tmp_path), undisturbed)


def test_accumulated_gradients_and_validation_go_on_too(tmp_path):
    def run(folder, **options):
        model = new_model("accumulating")
        return train(folder, model=model, validation_split=0.2, **options)

    expected = run(tmp_path / "undisturbed")
    assert len(expected.history["val_loss"]) == 3
    assert run(tmp_path / "run", interrupt_after=15) is None  # in the middle of a whole step
    assert newest_checkpoint(tmp_path / "run").about["step"] == 2
    assert_same_run(run(tmp_path / "run"), expected)


def test_several_steps_in_one_call(tmp_path):
    def run(folder, **options):
        return train(folder, model=new_model("three a call"), **options)

    if keras.backend.backend() == "torch":
        pytest.skip("Keras on PyTorch takes one step a call")
    expected = run(tmp_path / "undisturbed")
    assert run(tmp_path / "run", interrupt_after=5) is None
    assert newest_checkpoint(tmp_path / "run").about["step"] == 3
    assert_same_run(run(tmp_path / "run"), expected)


def test_an_epoch_of_fewer_steps_than_the_images_have(tmp_path):
    expected = train(tmp_path / "undisturbed", steps_per_epoch=5)
    assert train(tmp_path / "run", steps_per_epoch=5, interrupt_after=8) is None
    assert_same_run(train(tmp_path / "run", steps_per_epoch=5), expected)


def test_a_run_that_has_ended_is_shown_as_it_was_and_takes_more_epochs(undisturbed, tmp_path):
    ended = train(tmp_path, epochs=2)
    taken = InterruptAfter(1)
    assert_same_run(train(tmp_path, epochs=2, callbacks=[taken]), ended)
    assert taken.steps == 1  # none
    assert_same_run(train(tmp_path), undisturbed)


def test_a_model_that_was_trained_before_goes_on_with_the_checkpoint(undisturbed, tmp_path):
    """In a notebook the cell is run again in the same kernel, and the model is not a new one."""
    model = new_model()
    assert train(tmp_path, interrupt_after=9, model=model) is None
    model.fit(IMAGES, epochs=1, verbose=0)
    assert_same_run(train(tmp_path, model=model), undisturbed)


def test_no_pictures_are_drawn_where_an_interrupted_run_goes_on(tmp_path):
    assert train(tmp_path, interrupt_after=9) is None
    history = SampleHistory(every=2, n=1)
    train(tmp_path, callbacks=[history])
    assert list(history.images) == [2, 3]


def test_data_sets_of_another_kind_go_on_between_epochs(tmp_path):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return (IMAGES[16 * index : 16 * index + 16],)

    def run(folder, interrupt_after=None):
        model = new_model()
        callbacks = [ResumeTraining(folder, every_seconds=1e-9)]
        callbacks += [InterruptAfter(interrupt_after)] if interrupt_after else []
        history = model.fit(Batches(), epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        return Run(history.history, history.epoch, state(model))

    expected = run(tmp_path / "undisturbed")
    with pytest.raises(Interrupted):
        run(tmp_path / "run", interrupt_after=5)
    about = newest_checkpoint(tmp_path / "run").about
    assert (about["epoch"], about["step"]) == (1, 0)
    assert_same_run(run(tmp_path / "run"), expected)
    with pytest.raises(ValueError, match=r"every_steps = 2 needs images in one array"):
        train(tmp_path / "other", images=Batches())


def test_a_checkpoint_is_due_after_so_many_seconds(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(resuming, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    written = []
    monkeypatch.setattr(resuming, "write_checkpoint", lambda path, *_: written.append(path.name))
    model = new_model()
    callback = ResumeTraining(tmp_path, every_epochs=2, every_seconds=12)
    model.fit(IMAGES, epochs=2, verbose=0, callbacks=[callback])
    places = [tuple(map(int, name[11:-4].split("-"))) for name in written]
    # The clock moves on 4 seconds when it is read: before each step but an epoch's first, and
    # after saving.
    assert places == [(0, 3), (0, 6), (1, 3), (1, 6), (2, 0)]


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import keras, numpy as np
from diffusion_walkthrough import resuming
from test_resuming import IMAGES, new_model, state
from diffusion_walkthrough.training import ResumeTraining

folder, mode, number = sys.argv[1], sys.argv[2], int(sys.argv[3])

def after(function, calls):
    count = iter(range(1, 10**9))
    def wrapped(*args, **options):
        result = function(*args, **options)
        if next(count) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

class Tell(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("step", flush=True)

if mode == "within the file":
    np.lib.format.write_array = after(np.lib.format.write_array, number)
elif mode == "before the name":
    os.fsync = after(os.fsync, number)
elif mode == "after the name":
    os.replace = after(os.replace, number)
model = new_model()
callbacks = [ResumeTraining(folder, every_steps=2), Tell()]
history = model.fit(IMAGES, epochs=3, verbose=0, callbacks=callbacks).history
np.savez(sys.argv[4], *state(model), **{{"loss": history["loss"]}})
"""


def run_and_kill(folder: Path, mode: str, number: int, result: Path) -> int:
    """Run the script in a process of its own; in the mode "from outside", kill it here."""
    script = SCRIPT.format(tests=str(TESTS))
    command = [sys.executable, "-c", script, str(folder), mode, str(number), str(result)]
    process = subprocess.Popen(
        command, cwd=TESTS.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for count, _ in enumerate(process.stdout, 1):
        if mode == "from outside" and count == number:
            process.kill()
    return process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not known there")
def test_killed_at_any_moment_a_run_goes_on(undisturbed, tmp_path):
    """SIGKILL at a step, within a file, before and after it gets its name; then to the end."""
    rng = np.random.default_rng()
    arrays = len(variables(new_model()))
    moments = [
        ("from outside", int(rng.integers(1, 8))),
        ("within the file", int(rng.integers(1, 2 * arrays))),
        ("before the name", 1),  # the first call is for the file, the second for its folder
        ("after the name", int(rng.integers(1, 3))),
    ]
    folder, result = tmp_path / "run", tmp_path / "result.npz"
    for mode, number in moments:
        assert run_and_kill(folder, mode, number, result) == -signal.SIGKILL, (mode, number)
    assert run_and_kill(folder, "not at all", 0, result) == 0
    with np.load(result) as file:
        assert file["loss"].tolist() == undisturbed.history["loss"], moments
        for i, expected in enumerate(undisturbed.state):
            np.testing.assert_array_equal(file[f"arr_{i}"], expected, err_msg=str(moments))


# The order of the images -----------------------------------------------------------------------


def test_each_pass_shows_every_image_once_in_another_order():
    images = np.arange(10)
    data = OrderedImages(images, batch_size=4, seed=(7, 0))
    passes = []
    for data.epoch in range(3):
        batches = [data[i][0] for i in range(len(data))]
        assert [len(batch) for batch in batches] == [4, 4, 2]
        passes.append(np.concatenate(batches))
        np.testing.assert_array_equal(np.sort(passes[-1]), images)
    assert len({tuple(p) for p in passes}) == 3
    other = OrderedImages(images, batch_size=4, seed=(8, 0))
    assert tuple(np.concatenate([other[i][0] for i in range(3)])) != tuple(passes[0])


def test_any_step_is_known_without_those_before_it():
    images = np.arange(10)
    data = OrderedImages(images, batch_size=4, steps_per_epoch=4, seed=(7,))
    stream = []
    for data.epoch in range(3):
        stream += [data[i][0] for i in range(4)]
    np.testing.assert_array_equal(np.sort(np.concatenate(stream[:3])), images)
    np.testing.assert_array_equal(np.sort(np.concatenate(stream[3:6])), images)
    later = OrderedImages(images, batch_size=4, steps_per_epoch=4, seed=(7,))
    later.epoch, later.skipped = 2, 3
    assert len(later) == 1
    np.testing.assert_array_equal(later[0][0], stream[11])


def test_without_a_seed_the_images_stay_in_their_order(tmp_path):
    data = OrderedImages(np.arange(5), batch_size=2)
    assert [data[i][0].tolist() for i in range(3)] == [[0, 1], [2, 3], [4]]
    expected = new_model().fit(IMAGES, epochs=3, shuffle=False, verbose=0).history
    found = train(tmp_path, shuffle=False).history
    # On PyTorch, Keras's loader draws from the generator of dropout between epochs; ours does not.
    off = 0.05 if keras.backend.backend() == "torch" else 1e-4
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=off, err_msg=name)


# Files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The two checkpoints of a run that was interrupted after 9 steps, as bytes by name."""
    folder = tmp_path_factory.mktemp("stopped")
    assert train(folder, interrupt_after=10) is None
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(stopped, tmp_path):
    for name, content in stopped.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_last_two_are_kept_and_nothing_else(stopped):
    assert sorted(stopped) == ["checkpoint-000001-00000000.npz", "checkpoint-000001-00000002.npz"]


def test_the_folder_may_hold_other_things(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / ".checkpoint-000009-00000000.npz.tmp").write_bytes(b"half of one")
    assert newest_checkpoint(folder).path.name == "checkpoint-000001-00000002.npz"
    assert (folder / "notes.txt").read_text() == "mine"
    assert not list(folder.glob(".*"))


def test_a_failure_while_writing_leaves_what_was_there(folder):
    def arrays():
        yield "model/00000", np.zeros(3)
        raise OSError("the disk is full")

    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(OSError, match="disk is full"):
        write_checkpoint(folder / "checkpoint-000002-00000000.npz", {}, arrays())
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_checkpoint_holds_no_code(folder):
    def arrays():
        yield "model/00000", np.array([print], dtype=object)

    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_checkpoint(folder / "checkpoint-000002-00000000.npz", {}, arrays())
    path = newest_checkpoint(folder).path
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert json.loads(archive.read("about.json"))["epoch"] == 1
    assert all(name.endswith(".npy") for name in names if name != "about.json")


def change_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [change_one_byte, cut_in_half, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(damage, folder, undisturbed):
    newest = folder / "checkpoint-000001-00000002.npz"
    damage(newest)
    with pytest.warns(UserWarning, match=r"checkpoint-000001-00000002\.npz is damaged"):
        run = train(folder)
    assert newest.with_name(newest.name + ".damaged").exists()
    assert_same_run(run, undisturbed)


def test_if_all_are_damaged_nothing_begins(folder):
    for path in folder.iterdir():
        cut_in_half(path)
    with pytest.raises(ValueError, match=r"None of the checkpoints in .* choose another folder"):
        train(folder)


def test_a_file_of_a_later_version_is_not_guessed_at(folder):
    write_checkpoint(
        folder / "checkpoint-000002-00000000.npz",
        {"format": resuming.FILE_FORMAT, "version": resuming.FILE_VERSION + 1},
        [],
    )
    with pytest.raises(ValueError, match="later version of this package"):
        train(folder)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(NotADirectoryError, match="Give a folder"):
        train(tmp_path / "run")


# What does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "another rate"}, r"learning_rate was 0\.002 .* 0\.001 here"),
        ({"batch_size": 8}, "batch size was 16 there and is 8 here"),
        ({"images": IMAGES[:100]}, "number and shape of the images"),
        ({"images": IMAGES[::-1]}, "checksum of some of the images"),
        ({"steps_per_epoch": 5}, "steps per epoch was 7 there and is 5 here"),
        ({"shuffle": False}, "shuffle was True there and is False here"),
        ({"model": "gradient descent"}, "optimizer AveragingAdam"),
        ({"model": "without averages"}, "variables of the optimizer"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_checkpoint_of_another_run_is_refused(change, message, folder):
    model = new_model(change.get("model", "plain"))
    before = state(model)
    with pytest.raises(ValueError, match=rf"belongs to another run: .*{message}.*another folder"):
        train(folder, **{**change, "model": model})
    for found, value in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(found, value)


def test_another_backend_draws_other_numbers(folder, monkeypatch):
    monkeypatch.setattr(resuming.keras.backend, "backend", lambda: "another")
    with pytest.raises(ValueError, match=r"backend was '\w+' there and is 'another' here"):
        resuming._check_same_run(
            newest_checkpoint(folder), resuming._description(new_model(), None, True)
        )


def test_weights_of_the_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"sample_weight cannot be used .*PyDataset"):
        train(tmp_path, sample_weight=np.ones(len(IMAGES)))


@pytest.mark.parametrize("option", ["every_epochs", "every_steps", "every_seconds"])
def test_never_is_not_written_as_zero(option, tmp_path):
    with pytest.raises(ValueError, match=f"{option} = 0 must be"):
        ResumeTraining(tmp_path, **{option: 0})


def test_other_models_are_told_what_to_use(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"BackupAndRestore"):
        model.fit(np.ones((4, 1)), np.ones(4), verbose=0, callbacks=[ResumeTraining(tmp_path)])


def test_only_its_own_warning_is_silenced(tmp_path):
    callback = ResumeTraining(tmp_path)
    callback._start = (1, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with callback.in_the_middle_of_an_epoch():
            warnings.warn("Your input ran out of data; interrupting training.", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["something else"]
