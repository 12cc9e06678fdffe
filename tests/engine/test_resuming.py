"""Training that is interrupted ends as if nothing had happened; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops
from pocket import pocket_model, pocket_network, pocket_parameters
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine import resuming
from diffusion_walkthrough.engine.callbacks import SampleHistory
from diffusion_walkthrough.engine.resuming import (
    FILE_FORMAT,
    FILE_VERSION,
    ResumeTraining,
    newest_checkpoint,
    write_checkpoint,
)
from diffusion_walkthrough.files import archives
from diffusion_walkthrough.training import AveragingAdam, DiffusionModel, learning_rate_schedule

TESTS = Path(__file__).parent.parent
IMAGES = load_images("digits")[0][:104]  # 7 steps an epoch, the last of 8 images
# All that changes along the way: averages, a learning rate that rises and falls.
RULES = {"ema_momentum": 0.99, "batch_size": 16, "decay_steps": 21, "warmup_steps": 2}


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


class Flat(keras.callbacks.EarlyStopping):
    """Stops after two epochs, whatever the loss."""

    def __init__(self, **options):
        super().__init__("loss", patience=1, min_delta=10, **options)


OPTIMIZERS = {
    "gradient descent": lambda: keras.optimizers.SGD(0.01),
    "another beta": lambda: AveragingAdam(
        learning_rate_schedule(pocket_parameters(**RULES).training), 0.8
    ),
}


@functools.cache
def built(optimizer, seed, steps_per_execution, changes) -> tuple[DiffusionModel, list]:
    """A model of one kind, ready to train, and all that it starts from."""
    model = pocket_model(seed, **{**RULES, **dict(changes)})
    quickly = {"run_eagerly": True} if keras.backend.backend() == "torch" else {}
    chosen = OPTIMIZERS[optimizer]() if optimizer else None
    model.compile(chosen, steps_per_execution=steps_per_execution, **quickly)
    model.optimizer.build(model.trainable_variables)
    return model, state(model)


def new_model(optimizer=None, seed=3, steps_per_execution=1, **changes) -> DiffusionModel:
    """A model at its start, as a new process would build it; traced only once."""
    model, start = built(optimizer, seed, steps_per_execution, tuple(changes.items()))
    return begun_again(model, start)


def begun_again(model, start) -> DiffusionModel:
    for variable, value in zip(variables(model), start, strict=True):
        variable.assign(value)
    model.epochs_asked, model.holds_average = 0, False
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
    callbacks = [ResumeTraining(folder), *options.pop("callbacks", [])]
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
    """The same lines without a checkpoint at all."""
    model = new_model()
    history = model.fit(IMAGES, epochs=3, verbose=0)
    return Run(history.history, history.epoch, state(model))


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


def test_a_network_with_dropout_goes_on_too(tmp_path):
    unet = dataclasses.replace(TINY.unet, dropout=0.1)

    if keras.backend.backend() == "torch":
        pytest.skip("on PyTorch, dropout draws from a generator of the process")
    model = pocket_model(3, **RULES, unet=unet)
    model.compile()
    model.optimizer.build(model.trainable_variables)
    start = state(model)

    def run(folder, interrupt_after=None):
        begun_again(model, start)
        return train(folder, epochs=2, model=model, interrupt_after=interrupt_after)

    assert run(tmp_path, interrupt_after=9) is None
    assert_same_run(run(tmp_path), run(tmp_path / "undisturbed"))


def test_accumulated_gradients_and_validation_go_on_too(tmp_path):
    def run(folder, **options):
        model = new_model(gradient_accumulation_steps=2)
        return train(folder, model=model, validation_split=0.2, **options)

    expected = run(tmp_path / "undisturbed")
    assert len(expected.history["val_loss"]) == 3
    assert run(tmp_path / "run", interrupt_after=15) is None  # 11 parts an epoch: 5 steps and half
    assert_same_run(run(tmp_path / "run"), expected)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="takes one step a call there")
def test_several_steps_in_one_call(undisturbed, tmp_path):
    """Also where calls of 3 steps do not make up an epoch of 7."""

    def run(folder, **options):
        return train(folder, model=new_model(steps_per_execution=3), **options)

    expected = run(tmp_path / "undisturbed")
    for name, losses in undisturbed.history.items():
        np.testing.assert_allclose(expected.history[name], losses, rtol=1e-4)
    assert run(tmp_path / "run", interrupt_after=5) is None
    assert_same_run(run(tmp_path / "run"), expected)


def test_epochs_of_fewer_steps_than_the_images_have(tmp_path):
    expected = train(tmp_path / "undisturbed", steps_per_epoch=5)
    assert train(tmp_path / "run", steps_per_epoch=5, interrupt_after=8) is None
    assert_same_run(train(tmp_path / "run", steps_per_epoch=5), expected)


def test_a_model_that_was_trained_before_its_run_goes_on(tmp_path):
    """The lines that run again train it before, too."""

    def run(folder, interrupt_after=None):
        model = new_model(decay_steps=None)
        model.fit(IMAGES[:32], epochs=2, verbose=0)
        return train(folder, model=model, interrupt_after=interrupt_after)

    assert run(tmp_path / "run", interrupt_after=9) is None
    assert_same_run(run(tmp_path / "run"), run(tmp_path / "undisturbed"))


def test_in_the_same_kernel_the_checkpoint_counts_not_the_model(undisturbed, tmp_path):
    """In a notebook the cell is run again, and the model is not a new one."""
    model = new_model()
    assert train(tmp_path, interrupt_after=9, model=model) is None
    model.fit(IMAGES, epochs=1, verbose=0)
    assert_same_run(train(tmp_path, model=model), undisturbed)


def test_what_other_callbacks_do_at_the_end_of_an_epoch_is_saved(tmp_path):
    class LowerAndTell(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.01 / (2 + epoch)
            logs["own"] = np.float32(epoch)

    def run(folder, **options):
        model = new_model("gradient descent")
        return train(folder, model=model, callbacks=[LowerAndTell()], **options)

    expected = run(tmp_path / "undisturbed")
    assert run(tmp_path / "run", interrupt_after=9) is None
    assert_same_run(run(tmp_path / "run"), expected)
    assert expected.history["own"] == [0, 1, 2]


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

    expected = train(tmp_path / "undisturbed", images=Batches())
    assert train(tmp_path / "run", images=Batches(), interrupt_after=5) is None
    assert newest_checkpoint(tmp_path / "run").about["epoch"] == 1
    assert_same_run(train(tmp_path / "run", images=Batches()), expected)


# Runs that have ended --------------------------------------------------------------------------


def test_a_run_that_has_ended_is_shown_as_it_was_and_takes_more_epochs(undisturbed, tmp_path):
    ended = train(tmp_path, epochs=2)
    taken = InterruptAfter(1)
    assert_same_run(train(tmp_path, epochs=2, callbacks=[taken]), ended)
    assert taken.steps == 1  # none
    assert_same_run(train(tmp_path), undisturbed)


def test_an_interrupted_run_of_which_no_more_is_asked_ends_with_its_averages(undisturbed, tmp_path):
    """What was saved on the way to more epochs holds the training's own weights."""
    model = new_model()
    expected, weights = train(tmp_path / "whole", epochs=2), model.network.get_weights()
    assert train(tmp_path / "run", interrupt_after=15) is None
    ended = train(tmp_path / "run", epochs=2)
    assert (ended.history, ended.epochs) == (expected.history, expected.epochs)
    for found, value in zip(model.network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, value)
    assert model.holds_average
    assert_same_run(train(tmp_path / "run"), undisturbed)  # and more epochs go on as ever


def test_a_run_that_began_at_a_later_epoch_has_ended_too(tmp_path):
    for _ in range(2):
        model = new_model()
        options = {"initial_epoch": 2, "callbacks": [ResumeTraining(tmp_path)]}
        history = model.fit(IMAGES, epochs=3, verbose=0, **options)
        assert (history.epoch, int(ops.convert_to_numpy(model.optimizer.iterations))) == ([2], 7)
    assert [path.name for path in tmp_path.glob("*.npz")] == ["checkpoint-000003.npz"]


@pytest.mark.parametrize("best", [False, True])
def test_a_run_that_another_callback_stops_has_ended(best, tmp_path):
    def run(**options):
        stop = Flat(restore_best_weights=best)
        return train(tmp_path, model=new_model(), epochs=20, callbacks=[stop], **options)

    first = run()
    assert len(first.epochs) == 2
    assert len(train(tmp_path / "other", epochs=2, callbacks=[]).epochs) == 2
    for _ in range(2):
        assert_same_run(run(), first)


def test_the_best_weights_are_the_ended_run_s_also_if_it_was_not_stopped(tmp_path):
    def run():
        # The learning rate falls from the first epoch on.
        how = {"mode": "max", "patience": 9, "restore_best_weights": True}
        stop = keras.callbacks.EarlyStopping("learning_rate", **how)
        model = new_model()
        return train(tmp_path, model=model, epochs=2, callbacks=[stop]), model.sample(1, seed=0)

    ended, drawn = run()
    assert len(ended.epochs) == 2
    again, drawn_again = run()
    assert_same_run(again, ended)
    np.testing.assert_array_equal(drawn, drawn_again)


def test_a_run_that_was_stopped_goes_on_with_more_epochs(undisturbed, tmp_path):
    stopped = train(tmp_path, epochs=2, callbacks=[Flat(restore_best_weights=True)])
    assert len(stopped.epochs) == 2
    assert_same_run(train(tmp_path), undisturbed)


class StopAfter(InterruptAfter):
    """Ends ``fit`` after so many steps, as a callback with a limit of time does."""

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        self.model.stop_training |= self.steps == 0


@pytest.mark.parametrize("steps", [3, 10])
def test_an_epoch_that_a_callback_cuts_is_trained_again_if_there_are_more(
    steps, undisturbed, tmp_path
):
    cut = train(tmp_path, epochs=2, callbacks=[StopAfter(steps)])
    assert len(cut.epochs) == 1 + steps // 7
    assert_same_run(train(tmp_path, epochs=2), cut)  # the same lines: it has ended
    assert_same_run(train(tmp_path), undisturbed)


def test_a_run_whose_learning_rate_has_fallen_to_zero_cannot_go_on(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="the run is over"):
        train(tmp_path, epochs=4)


# Killed ----------------------------------------------------------------------------------------

# Each run is a process of its own, forked from one that has imported all and never computes. Last
# line: how they ended.
SCRIPT = """
import json, os, signal, sys
sys.path[:0] = [{tests!r}, {tests!r} + "/engine"]
import keras, numpy as np
from test_resuming import IMAGES, new_model, state
from diffusion_walkthrough.engine.resuming import ResumeTraining

folder, result, moments = *sys.argv[1:3], json.loads(sys.argv[3])

def after(function, calls):
    count = iter(range(1, 10**9))
    def wrapped(*args, **options):
        result = function(*args, **options)
        if next(count) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

def run(mode, number, step_taken):
    if mode == "within the file":
        np.lib.format.write_array = after(np.lib.format.write_array, number)
    elif mode == "before the name":
        os.fsync = after(os.fsync, number)
    elif mode == "after the name":
        os.replace = after(os.replace, number)
    model = new_model()
    told = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: step_taken())
    callbacks = [ResumeTraining(folder), told]
    history = model.fit(IMAGES, epochs=3, verbose=0, callbacks=callbacks).history
    np.savez(result, *state(model), **{{"loss": history["loss"]}})
    os._exit(0)

def ended(mode, number):
    ours, its = os.pipe()
    process = os.fork()
    if not process:
        try:
            run(mode, number, lambda: os.write(its, b"s"))
        finally:
            os._exit(1)
    os.close(its)
    steps = 0
    while os.read(ours, 1):
        steps += 1
        if (mode, steps) == ("from outside", number):
            os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

print(json.dumps([ended(*moment) for moment in moments]))
"""


def assert_killed_and_gone_on(folder: Path, moments: list, undisturbed: Run) -> None:
    result, whole = folder / "result.npz", [*moments, ("not at all", 0)]
    words = [str(folder / "run"), str(result), json.dumps(whole)]
    command = [sys.executable, "-c", SCRIPT.format(tests=str(TESTS)), *words]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes == [-signal.SIGKILL] * len(moments) + [0], f"{moments}: {done.stderr[-2000:]}"
    with np.load(result) as file:
        assert file["loss"].tolist() == undisturbed.history["loss"], moments
        for i, expected in enumerate(undisturbed.state):
            np.testing.assert_array_equal(file[f"arr_{i}"], expected, err_msg=str(moments))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_step_a_run_goes_on(undisturbed, tmp_path):
    moment = int(np.random.default_rng().integers(1, 15))
    assert_killed_and_gone_on(tmp_path, [("from outside", moment)], undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_while_it_saves_a_run_goes_on(undisturbed, tmp_path):
    """SIGKILL within a file, before and after it gets its name; then to the end."""
    rng = np.random.default_rng()
    moments = [
        ("within the file", int(rng.integers(1, 2 * len(undisturbed.state)))),
        ("before the name", 1),  # the first call is for the file, the second for its folder
        ("after the name", 1),
    ]
    assert_killed_and_gone_on(tmp_path, moments, undisturbed)


def test_a_second_process_is_told_that_the_first_works_here(tmp_path):
    code = (
        "from diffusion_walkthrough.files.locking import FolderLock\n"
        f"with FolderLock({str(tmp_path)!r}):\n    print('locked', flush=True)\n    input()"
    )
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=TESTS.parent, **options) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError, match=rf"another process .* number {other.pid} on"):
            train(tmp_path)
        other.communicate("\n")
    assert train(tmp_path, epochs=1) is not None


# Files -----------------------------------------------------------------------------------------

NEWEST = "checkpoint-000002.npz"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The two checkpoints of a run that was interrupted in its third epoch, as bytes by name."""
    folder = tmp_path_factory.mktemp("interrupted")
    assert train(folder, interrupt_after=16) is None
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


@pytest.fixture
def folder(interrupted, tmp_path):
    for name, content in interrupted.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_the_last_two_are_kept_and_nothing_else(tmp_path):
    train(tmp_path)
    assert visible(tmp_path) == [NEWEST, "checkpoint-000003.npz"]


def test_a_checkpoint_every_so_many_epochs_and_at_the_end(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(resuming, "write_checkpoint", lambda path, *_: written.append(path.name))
    new_model().fit(IMAGES, epochs=3, verbose=0, callbacks=[ResumeTraining(tmp_path, 2)])
    assert written == [NEWEST, "checkpoint-000003.npz"]


def test_the_folder_may_hold_other_things(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / ".~host-1-00000000-checkpoint-000009.npz").write_bytes(b"half of one")
    assert newest_checkpoint(folder).path.name == NEWEST
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_full_disk_leaves_what_was_there_and_says_so(folder, undisturbed, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match=r"000003\.npz could not be written .*No space.* make room"):
        train(folder)
    assert visible(folder) == ["checkpoint-000001.npz", NEWEST]
    monkeypatch.undo()
    assert_same_run(train(folder), undisturbed)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="everything is allowed here")
def test_a_read_only_folder_is_refused(folder):
    folder.chmod(0o500)
    with pytest.raises(OSError, match="denied"):
        train(folder)


def test_a_checkpoint_holds_no_code(folder):
    arrays = [("model/00000", np.array([print], dtype=object))]
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_checkpoint(folder / "checkpoint-000003.npz", {}, arrays)
    path = newest_checkpoint(folder).path
    assert path.name == NEWEST
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert json.loads(archive.read("about.json"))["epoch"] == 2
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
    damage(folder / NEWEST)
    with pytest.warns(UserWarning, match=r"000002\.npz is damaged .*-000001\.npz"):
        run = train(folder)
    assert (folder / f"{NEWEST}.damaged").exists()
    assert_same_run(run, undisturbed)


def test_if_all_are_damaged_nothing_begins(folder):
    for path in folder.iterdir():
        cut_in_half(path)
    with pytest.raises(ValueError, match=r"None of the checkpoints in .* choose another folder"):
        train(folder)
    assert len(visible(folder)) == 2


@pytest.mark.parametrize(
    ("name", "version"),
    [("checkpoint-000003.npz", FILE_VERSION + 1), ("checkpoint-000003-00000000.npz", 1)],
)
def test_a_file_of_another_version_is_not_guessed_at(name, version, folder):
    about = {"format": FILE_FORMAT, "version": version}
    write_checkpoint(folder / name, about, [])
    with pytest.raises(ValueError, match=rf"another version of this package .* number {version}"):
        train(folder)


def about_of(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("about.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": "2"},
        {"asked": None},
        {"planned": 2.5},
        {"stopped": "no"},
        {"run": []},
        {"history": {}},
        {"history": {"epoch": 1, "logs": {}}},
    ],
    ids=str,
)
def test_a_description_that_is_none_is_damaged(change, folder, undisturbed):
    path = folder / NEWEST
    write_checkpoint(path, {**about_of(path), **change}, [])
    with pytest.warns(UserWarning, match=rf"damaged \(its {next(iter(change))} is"):
        assert_same_run(train(folder), undisturbed)


@pytest.mark.parametrize("run", [{}, {"parameters": 3}, {"parameters": {"schedule": {}}}], ids=str)
def test_a_run_that_is_not_described_is_no_run_of_ours(run, folder):
    path = folder / NEWEST
    write_checkpoint(path, {**about_of(path), "run": run}, [])
    with pytest.raises(ValueError, match=r"000002\.npz does not say well enough .*another folder"):
        train(folder)


def test_arrays_that_are_missing_or_others_change_nothing(folder):
    path = folder / NEWEST
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name != "about.json"]
    with np.load(path) as file:
        arrays = {name: file[name] for name in names}
    about, model = about_of(path), new_model()
    before = state(model)
    first = names[0]
    for changed in (None, arrays[first][:-1], arrays[first].astype(int), np.array(["a"])):
        kept = {name: array for name, array in arrays.items() if name != first}
        kept |= {} if changed is None else {first: changed}
        write_checkpoint(path, about, kept.items())
        with pytest.raises(ValueError, match=rf"000002\.npz holds another {first} than this run"):
            train(folder, model=model)
        for found, value in zip(state(model), before, strict=True):
            np.testing.assert_array_equal(found, value)


def test_a_description_is_neither_written_nor_read_at_any_length(tmp_path, monkeypatch):
    path, about = tmp_path / "checkpoint-000001.npz", {"format": FILE_FORMAT, "run": {}}
    write_checkpoint(path, {**about, "history": [0] * 500}, [])
    monkeypatch.setattr(resuming, "_MOST_ABOUT", 1000)
    with pytest.raises(ValueError, match=r"about\.json has \d+ bytes, more than the 1000"):
        newest_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"more than the 1000 .*Let an epoch have more steps"):
        write_checkpoint(path, {**about, "history": [0] * 500}, [])


def test_a_history_of_80_000_epochs_fits(tmp_path):
    logs = dict.fromkeys(("loss", "learning_rate", "gradient_norm", "val_loss"), [1 / 3] * 80_000)
    about = {"history": {"epoch": [*range(80_000)], "logs": logs}}
    write_checkpoint(tmp_path / "checkpoint-080000.npz", about, [])


def test_a_checkpoint_that_inflates_is_damaged(folder, undisturbed, monkeypatch):
    monkeypatch.setattr(archives, "ROOM", 10**5)
    with zipfile.ZipFile(folder / NEWEST, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(10**7))
    with pytest.warns(UserWarning, match=r"000002\.npz is damaged \(unpacked, it would grow"):
        assert_same_run(train(folder), undisturbed)


# Others' files -----------------------------------------------------------------------------------


def test_others_files_that_bear_a_checkpoint_s_name_are_never_touched(tmp_path):
    np.savez(tmp_path / "checkpoint-000001.npz", theirs=np.arange(3))
    content = (tmp_path / "checkpoint-000001.npz").read_bytes()
    about = {"format": FILE_FORMAT, "version": FILE_VERSION}
    with pytest.raises(ValueError, match=r"000001\.npz .*not written by this package.* Move it"):
        train(tmp_path)
    for number in (2, 3, 4):
        write_checkpoint(tmp_path / f"checkpoint-{number:06d}.npz", about, [])
    assert (tmp_path / "checkpoint-000001.npz").read_bytes() == content
    assert visible(tmp_path) == [f"checkpoint-{number:06d}.npz" for number in (1, 3, 4)]


def test_what_is_no_regular_file_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint-000009.npz").mkdir()
    os.mkfifo(tmp_path / "checkpoint-000008.npz")
    assert newest_checkpoint(tmp_path) is None
    train(tmp_path, epochs=1)
    assert newest_checkpoint(tmp_path).about["epoch"] == 1
    assert (tmp_path / "checkpoint-000009.npz").is_dir()


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(NotADirectoryError, match="run is a file, and not a folder"):
        train(tmp_path / "run")


# What does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate was 0\.002 .* 0\.001 here"),
        ({"seed": 5}, "seed was 3 there and is 5 here"),
        ({"batch_size": 8}, "batch size was 16 there and is 8 here"),
        ({"images": IMAGES[:100]}, "number and shape of the images"),
        ({"images": IMAGES[::-1]}, "checksum of some of the images"),
        ({"sample_weight": np.ones(104)}, "number and shape of the weights was None there"),
        ({"steps_per_epoch": 5}, "steps per epoch was 7 there and is 5 here"),
        ({"shuffle": False}, "shuffle was True there and is False here"),
        ({"optimizer": "gradient descent"}, "kind was 'AveragingAdam' there and is 'SGD'"),
        ({"optimizer": "another beta"}, "optimizer.beta_1 was 0.9 there"),
        ({"width": 8}, r"variable 0 of the model was \[64, 16, 'float32'\] there"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_checkpoint_of_another_run_is_refused(change, message, folder):
    options, own = dict(change), ("learning_rate", "seed", "optimizer")
    model = new_model(**{name: options.pop(name) for name in own if name in options})
    if width := options.pop("width", None):
        parameters = pocket_parameters(**RULES)
        network = pocket_network(parameters, width)
        model = DiffusionModel(parameters, seed=3, network=network)
        model.compile()
    model.optimizer.build(model.trainable_variables)
    before = state(model)
    with pytest.raises(ValueError, match=rf"belongs to another run: .*{message}.*another folder"):
        train(folder, **options, model=model)
    for found, value in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(found, value)


def test_another_backend_adds_up_in_another_order(folder, monkeypatch):
    found = newest_checkpoint(folder)
    run = {**found.about["run"], "backend": "another"}
    with pytest.raises(ValueError, match=r"backend was '\w+' there and is 'another' here"):
        resuming._check_same_run(found, run)


def test_the_number_that_keras_gives_an_optimizer_does_not_count(folder, undisturbed):
    """Each in a process has another: adam, adam_1."""
    for _ in range(2):
        model = pocket_model(3, **RULES)
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
        train(folder / "sgd", epochs=1, model=model, steps_per_epoch=1)
    path, about = folder / NEWEST, about_of(folder / NEWEST)
    assert "name" not in about["run"]["optimizer"]
    about["run"]["optimizer"]["name"] = "adam_1"  # as in the files of before
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "about.json"}
    write_checkpoint(path, about, arrays.items())
    assert_same_run(train(folder), undisturbed)


def test_averages_that_are_in_the_model_between_epochs_are_no_checkpoint(tmp_path):
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    with pytest.raises(ValueError, match="a run would go on from these"):
        train(tmp_path / "run", callbacks=[swap])
    assert not (tmp_path / "run").exists()


def test_never_is_not_written_as_zero(tmp_path):
    with pytest.raises(ValueError, match=r"every_epochs=0: .* at least 1"):
        ResumeTraining(tmp_path, every_epochs=0)


def test_other_models_are_told_what_to_use(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"BackupAndRestore"):
        model.fit(np.ones((4, 1)), np.ones(4), verbose=0, callbacks=[ResumeTraining(tmp_path)])


@pytest.mark.parametrize("interrupt_after", [8])
def test_a_run_that_is_told_labels_goes_on_with_the_same_ones_left_out(tmp_path, interrupt_after):
    unet = dataclasses.replace(TINY.unet, labels=(("digit", 10),))
    labels = load_images("digits")[1][:104]
    runs = []
    for folder in ("whole", "parted"):
        model = pocket_model(3, unet=unet, label_dropping=0.4, **RULES)
        model.compile()
        told = {"y": labels, "model": model, "epochs": 2}
        if folder == "parted":
            assert train(tmp_path / folder, interrupt_after=interrupt_after, **told) is None
        runs.append(train(tmp_path / folder, **told))
    assert_same_run(*runs)
    with pytest.raises(ValueError, match="checksum of some of the labels"):
        train(tmp_path / "parted", **{**told, "y": labels[::-1], "epochs": 3})
