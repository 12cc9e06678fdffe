"""The exercises of chapter 05 answer right and wrong attempts with what they deserve."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.classroom.exercises import training as ask
from diffusion_walkthrough.training import DiffusionModel


def fall(step, begin=100, end=1080, turns=np.pi):
    share = np.clip((step - begin) / (end - begin), 0, 1)
    return 0.5 * (1 + np.cos(turns * share))


def rise(step):
    return min(step / 100, 1)


@pytest.mark.parametrize(
    ("check", "solution"),
    [
        (ask.check_steps, ask.solution_steps),
        (ask.check_one_t, ask.solution_one_t),
        (ask.check_own_marking, ask.solution_own_marking),
        (ask.check_changed_line, ask.solution_changed_line),
        (ask.check_which_run, ask.solution_which_run),
        (ask.check_start_share, ask.solution_start_share),
        (ask.check_learning_rate, ask.solution_learning_rate),
    ],
)
def test_solutions_are_right(check, solution):
    assert check(solution).right is True


@pytest.mark.parametrize(
    ("check", "attempt", "hint"),
    [
        (ask.check_steps, 23 * 100, "1,472"),
        (ask.check_steps, 2344, "Round up"),
        (ask.check_steps, 150_000, "whole batch"),
        (ask.check_steps, 24, "There are 100"),
        (ask.check_steps, 100, "many steps"),
        (ask.check_one_t, "b", "drawn anew for each batch"),
        (ask.check_one_t, "c", "nobody can know"),
        (ask.check_one_t, "d", "right shape"),
        (ask.check_changed_line, "a", "somebody has to do it"),
        (ask.check_changed_line, "b", "does not know what an answer means"),
        (ask.check_changed_line, "d", "takes each guessed image away"),
        (ask.check_which_run, "a", "chance"),
        (ask.check_which_run, "c", "nothing by heart"),
        (ask.check_which_run, "d", "easier ones"),
        (ask.check_which_run, "e", "not among the answers"),
        (ask.check_start_share, 1 - 0.999**500, "share of everything later"),
        (ask.check_start_share, 0.999, "after one step"),
        (ask.check_start_share, 0.5, "a thousandth of what is left"),
        (ask.check_start_share, 0.001, "newest weights"),
        (ask.check_learning_rate, lambda s: 0.006 * fall(s) if s >= 100 else 0.006, "warm-up"),
        (ask.check_learning_rate, lambda s: 0.006 * rise(s) * (fall(s, 0) if s >= 100 else 1),
         "before the rise is over"),
        (ask.check_learning_rate, lambda s: 0.006 * rise(s) * fall(s, turns=2 * np.pi),
         "comes back up"),
        (ask.check_learning_rate,
         lambda s: 0.006 * rise(s) * (1 - np.clip((s - 100) / 980, 0, 1)), "straight line"),
        (ask.check_learning_rate, lambda s: 0.006 * rise(s), "stays at the top"),
        (ask.check_learning_rate, lambda s: 1.0, "All your numbers are 1"),
    ],
)  # fmt: skip
def test_each_foreseen_mistake_gets_its_own_hint(check, attempt, hint):
    verdict = check(attempt)
    assert verdict.right is False
    assert hint in verdict.message


def marked(loss):
    """A kind of model that marks like this: ``loss(x, y, y_pred)``."""

    class Marked(DiffusionModel):
        def compute_loss(self, x=None, y=None, y_pred=None, **others):
            return loss(x, y, y_pred)

    return Marked


MARKS = {
    "mean squared error": lambda x, y, p: ops.mean((y["noise"] - p) ** 2),
    "root of the mean square": lambda x, y, p: ops.sqrt(ops.mean((y["noise"] - p) ** 2)),
    "errors are summed": lambda x, y, p: ops.sum(ops.abs(y["noise"] - p)),
    "Without ops.abs": lambda x, y, p: ops.mean(p - y["noise"]),
    "opposite sign cancel": lambda x, y, p: ops.abs(ops.mean(y["noise"] - p)),
    "clean image": lambda x, y, p: ops.mean(ops.abs(y["x_start"] - p)),
    "what was shown": lambda x, y, p: ops.mean(ops.abs(x[0] - p)),
    "one number for each image": lambda x, y, p: ops.mean(ops.abs(y["noise"] - p), axis=(1, 2, 3)),
    "has shape (6, 8, 8, 1)": lambda x, y, p: ops.abs(y["noise"] - p),
    "KeyError": lambda x, y, p: ops.mean(ops.abs(y["image"] - p)),
    "return": lambda x, y, p: None,
}


@pytest.mark.parametrize("hint", MARKS)
def test_each_mistake_in_a_marking_of_ones_own_gets_its_hint(hint):
    verdict = ask.check_own_marking(marked(MARKS[hint]))
    assert verdict.right is False
    assert hint in verdict.message


def test_a_marking_may_call_the_package_s_own_and_use_the_model():
    class Marked(DiffusionModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            super().compute_loss(x, y, y_pred, sample_weight, training)
            assert len(self.schedule) == 100
            return ops.mean(ops.abs(y_pred - y["noise"]))

    assert ask.check_own_marking(Marked).right is True


@pytest.mark.parametrize(
    ("attempt", "hint"),
    [
        (3, "class itself"),
        (lambda: DiffusionModel, "class itself"),
        (dict, "kind of DiffusionModel"),
        (type("Same", (DiffusionModel,), {}), "compute_loss of its own"),
    ],
)
def test_what_marks_nothing_of_its_own_is_told_so(attempt, hint):
    verdict = ask.check_own_marking(attempt)
    assert verdict.right is False
    assert hint in verdict.message


@pytest.mark.parametrize("check", [ask.check_learning_rate])
@pytest.mark.parametrize("attempt", [3, "text", lambda *_: 1 / 0, lambda *_: None])
def test_what_is_no_answer_is_told_so(check, attempt):
    verdict = check(attempt)
    assert verdict.right is False
    assert verdict.message


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the notebooks run on TensorFlow, in its words"
)
def test_a_dictionary_taken_for_the_noise_is_told_what_it_is():
    class Whole(DiffusionModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.abs(y - y_pred))

    verdict = ask.check_own_marking(Whole)
    assert verdict.right is False
    assert "take y['noise']" in verdict.message
