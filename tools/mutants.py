"""The published mistakes, put into this package one at a time: do the tests notice?

Each :class:`Mutant` replaces one passage of one module. ``make mutants`` runs, for each of them,
the tests named with it in a process of their own, in which the module is imported with the mistake
in it; the files themselves stay as they are. A mutant is caught if a test sees a wrong result (a
crash does not count) that it does not see without the mistake. Last line: ``N mutants, N caught``.

By hand: ``MUTANT=noise_at_the_last_step pytest tests/test_backward_sampling.py``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "diffusion_walkthrough"

#: The environment variable that switches a mutant on.
SWITCH = "MUTANT"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One mistake: ``right`` stands exactly once in the module, and ``wrong`` takes its place."""

    name: str
    mistake: str
    module: str
    right: str
    wrong: str
    tests: tuple[str, ...]  # files or names of tests, below tests/
    crashes: bool = False  # the mistake itself makes the program stop, with equal widths say

    @property
    def path(self) -> Path:
        """The module's file."""
        return ROOT / PACKAGE / f"{self.module}.py"

    def source(self) -> str:
        """The module's text with the mistake in it.

        Raises ValueError if the right passage is not there exactly once.
        """
        text = self.path.read_text("utf-8")
        if text.count(self.right) != 1:
            raise ValueError(
                f"mutant {self.name}: {self.module}.py holds {text.count(self.right)} times, and "
                f"must hold once: {self.right!r}. The module has changed; change the mutant too."
            )
        return text.replace(self.right, self.wrong)


FORWARD = ("test_forward_diffusion.py",)
SCHEDULE = ("test_noise_schedule.py",)
LOSS = ("test_loss.py",)
BACKWARD = ("test_backward_sampling.py",)
UNET = ("test_unet.py",)
PARAMETERS = ("test_parameters.py",)
DATA = ("test_data.py",)
COST = ("test_scaling_up.py::test_the_epoch_of_eight_days",)
TRAINING = "test_training.py"  # slow: its tests are named one by one

MUTANTS = (
    Mutant(
        "betas_not_scaled_to_a_short_chain",
        "the betas of 1000 steps in a chain of 50: at its end most of the image is still there",
        "noise_schedule",
        "REFERENCE_TIMESTEPS / checked.timesteps if checked.scaled else 1.0",
        "1.0",
        SCHEDULE,
    ),
    Mutant(
        "variance_for_its_root_in_many_steps",
        "the noise multiplied by the variance 1-ᾱ, not by its root",
        "forward_diffusion",
        "noise_rate = extract(schedule.sqrt_one_minus_alphas_cumprod, t, ndim)",
        "noise_rate = extract(1.0 - schedule.alphas_cumprod, t, ndim)",
        FORWARD,
    ),
    Mutant(
        "variance_for_its_root_in_one_step",
        "the noise multiplied by β, not by its root",
        "forward_diffusion",
        "+ ops.sqrt(beta) * noise",
        "+ beta * noise",
        FORWARD,
    ),
    Mutant(
        "variance_for_its_root_on_the_way_back",
        "the new noise multiplied by the variance σ², not by σ",
        "backward_sampling",
        "ops.exp(0.5 * step.log_variance)",
        "ops.exp(step.log_variance)",
        BACKWARD,
    ),
    Mutant(
        "noise_at_the_last_step",
        "new noise also in the step that gives the image",
        "backward_sampling",
        "not_last = ops.convert_to_tensor(t) > 0",
        "not_last = ops.convert_to_tensor(t) >= 0",
        BACKWARD,
    ),
    Mutant(
        "images_from_0_to_255",
        "training takes images that no noise of variance 1 can drown",
        "data",
        "if low >= 0 and 1.5 < high <= 255:",
        "if low >= 0 and 1.5 < high <= 255:\n        return\n    if False:",
        DATA,
    ),
    Mutant(
        "images_from_0_to_1",
        "training takes images that never fall below 0",
        "data",
        "if low >= 0 and high <= 1 + RANGE_TOLERANCE and low < high:",
        "if False:",
        DATA,
    ),
    Mutant(
        "digits_from_0_to_2",
        "the embedded images are not moved to lie around 0",
        "data",
        "/ 8.0 - 1.0  # from 0 ... 16",
        "/ 8.0",
        DATA,
    ),
    Mutant(
        "alpha_bar_off_by_one_in_the_posterior",
        "ᾱ of the same step where that of the step before belongs",
        "noise_schedule",
        "self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])",
        "self.alphas_cumprod_prev = self.alphas_cumprod.copy()",
        SCHEDULE,
    ),
    Mutant(
        "alpha_bar_off_by_one_in_the_guess",
        "the guessed image from ᾱ of the step before",
        "forward_diffusion",
        "- extract(schedule.sqrt_recipm1_alphas_cumprod, t, ndim) * noise",
        "- extract(schedule.sqrt_recipm1_alphas_cumprod, ops.maximum(t - 1, 0), ndim) * noise",
        LOSS,
    ),
    Mutant(
        "cumulative_product_over_the_batch",
        "α multiplied up along the images of the batch, not along the steps",
        "forward_diffusion",
        "signal_rate = extract(schedule.sqrt_alphas_cumprod, t, ndim)",
        "signal_rate = ops.sqrt(ops.cumprod(extract(schedule.alphas, t, ndim), axis=0))",
        FORWARD,
    ),
    Mutant(
        "average_from_another_network",
        "the averaged weights do not start from this run's weights, but from others (here 0)",
        "training",
        "    def _clip_gradients(self, grads: Any) -> Any:\n",
        "    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:\n"
        "        averages = self._model_variables_moving_average\n"
        "        for weight, average in zip(trainable_variables, averages, strict=True):\n"
        "            share = self.ema_momentum\n"
        "            average.assign(share * average + (1 - share) * weight)\n\n"
        "    def _clip_gradients(self, grads: Any) -> Any:\n",
        (f"{TRAINING}::test_the_average_starts_from_this_run_and_replaces_the_weights_after_fit",),
    ),
    Mutant(
        "average_too_slow_for_a_short_run",
        "a momentum of 0.9999 from the first step on: the start never leaves the average",
        "training",
        "ops.minimum(self._full_momentum, (1.0 + step) / (10.0 + step))",
        "self._full_momentum + 0 * step",
        (f"{TRAINING}::test_the_average_starts_from_this_run_and_replaces_the_weights_after_fit",),
    ),
    Mutant(
        "average_shown_and_then_trained_on",
        "after a look at the averaged weights, training goes on from them",
        "training",
        "                weight.assign(value)\n            self._own_weights = None",
        "                pass\n            self._own_weights = None",
        (f"{TRAINING}::test_training_goes_on_with_its_own_weights_while_others_see_the_average",),
    ),
    Mutant(
        "posterior_weight_without_beta",
        "the weight of x_0 in the posterior mean without β: 8,339 times too large at t = 1",
        "noise_schedule",
        "self.posterior_mean_coef1 = self.betas * np.sqrt(earlier)",
        "self.posterior_mean_coef1 = np.sqrt(earlier)",
        SCHEDULE,
    ),
    Mutant(
        "kl_with_a_wrong_sign",
        "the log variances exchanged in the KL divergence",
        "loss",
        "0.5 * (-log_ratio + ops.expm1(log_ratio)",
        "0.5 * (log_ratio + ops.expm1(log_ratio)",
        LOSS,
    ),
    Mutant(
        "attention_without_scaling",
        "scores not divided by √C: the softmax looks at one pixel only, and float16 overflows",
        "unet",
        "queries * (1 / math.sqrt(queries.shape[-1]))",
        "queries * 1.0",
        UNET,
    ),
    Mutant(
        "attention_without_normalization",
        "the pixels go into the attention as they come",
        "unet",
        "ops.reshape(normalize(x, groups), (-1, height * width, channels))",
        "ops.reshape(x, (-1, height * width, channels))",
        UNET,
    ),
    Mutant(
        "attention_that_is_silently_absent",
        "an attention size that no level has is taken without a word",
        "parameters",
        "if size not in self.level_sizes:",
        "if False:",
        PARAMETERS,
    ),
    Mutant(
        "levels_told_apart_by_their_width",
        "a level is taken for the last because it is as wide: equal widths lose a halving",
        "unet",
        "        if level != levels - 1:\n            skips.append(downsample(skips[-1]))",
        "        if parameters.level_widths[level] != parameters.level_widths[-1]:\n"
        "            skips.append(downsample(skips[-1]))",
        UNET,
        crashes=True,
    ),
    Mutant(
        "small_variance_for_the_digits",
        "the variance in the preset of the digits is the one that leaves more of them out",
        "parameters",
        "                decay_steps=1080,\n"
        "                ema_momentum=None,\n"
        "                horizontal_flip=False,\n"
        "            ),\n"
        '            variance="fixed_large",',
        "                decay_steps=1080,\n"
        "                ema_momentum=None,\n"
        "                horizontal_flip=False,\n"
        "            ),\n"
        '            variance="fixed_small",',
        (
            "test_backward_sampling.py"
            "::test_the_variance_of_the_digits_draws_well_and_leaves_little_out",
        ),
    ),
    Mutant(
        "large_variance_called_small",
        "β where β̃ is asked for",
        "backward_sampling",
        "return schedule.posterior_variance, schedule.posterior_log_variance_clipped",
        "return schedule.betas, np.log(schedule.betas)",
        BACKWARD,
    ),
    Mutant(
        "shares_that_overlap",
        "cores that divide a batch answer some images twice, and all answers are handed on",
        "side_by_side",
        "results.append(result[tf.minimum(i * length - start, length) :])",
        "results.append(result)",
        ("test_side_by_side.py",),
        crashes=True,
    ),
    Mutant(
        "last_share_left_short",
        "the images that are left over go to no core: the answers of others stand in their place",
        "side_by_side",
        "start = tf.minimum(i * length, n - length)",
        "start = 0 * i",
        ("test_side_by_side.py",),
    ),
    Mutant(
        "statistics_held_constant",
        "a gradient of normalization written by hand, as if mean and variance did not depend on x",
        "fused",
        "of_x = of_x - x * _for_pixels(slope, x) + _for_pixels(shift, x)",
        "of_x = of_x + 0 * shift[0, 0, 0]",
        ("test_fused.py",),
    ),
    Mutant(
        "loss_scaling_forgotten",
        "a training step of one's own, without the scaling that float16 needs",
        "training",
        "    @property\n    def backward_options(self)",
        "    def train_step(self, data: Any) -> Any:\n"
        "        import tensorflow as tf\n\n"
        "        x = data[0] if isinstance(data, tuple) else data\n"
        "        with tf.GradientTape() as tape:\n"
        "            loss = self.compute_loss(y_pred=self(x, training=True))\n"
        "        weights = self.trainable_variables\n"
        "        self.optimizer.apply(tape.gradient(loss, weights), weights)\n"
        "        self._loss_tracker.update_state(loss)\n"
        "        return self.get_metrics_result()\n\n"
        "    @property\n    def backward_options(self)",
        (f"{TRAINING}::test_half_precision_takes_the_same_steps",),
    ),
    Mutant(
        "loss_on_clipped_predictions",
        "the answer held within [-1, 1] before it is marked",
        "loss",
        "answer, target = as_float32(answer), as_float32(noise)",
        "answer, target = ops.clip(as_float32(answer), -1.0, 1.0), as_float32(noise)",
        LOSS,
    ),
    Mutant(
        "simple_loss_on_clipped_predictions",
        "the same in the loss of chapter 04",
        "loss",
        "guess = as_float32(denoise_fn(q_sample(schedule, x_start, t, noise), t))",
        "guess = ops.clip(as_float32(denoise_fn(q_sample(schedule, x_start, t, noise), t)), -1, 1)",
        LOSS,
    ),
    Mutant(
        "interpolation_in_pixel_space",
        "the clean images mixed before the noise, and called latent",
        "backward_sampling",
        "    return (1 - share) * noisy_1 + share * noisy_2",
        "    clean = (1 - share) * image_1 + share * image_2\n"
        "    noise = keras.random.normal(image_1.shape, seed=generator)\n"
        "    return q_sample(\n"
        '        schedule, clean, np.full(len(share), t, "int32"), noise + 0 * as_float32(clean)\n'
        "    )",
        BACKWARD,
    ),
    Mutant(
        "small_images_blown_up",
        "32x32 photographs trained on at 256x256: 59 times the work",
        "parameters",
        "return cls(ScheduleParameters(), UNetParameters(), TrainingParameters())",
        "return cls(ScheduleParameters(), UNetParameters(image_size=256, attention_sizes=()), "
        "TrainingParameters())",
        COST,
    ),
    Mutant(
        "weighted_like_the_bound_at_the_last_step",
        "a KL divergence at t = 0, where the bound has the probability of the grey level",
        "loss",
        "at_last_step = ops.convert_to_tensor(t) == 0",
        "at_last_step = ops.convert_to_tensor(t) < 0",
        LOSS,
    ),
    Mutant(
        "darkest_and_brightest_levels_cut_short",
        "the outermost bins end where the others do, so that the probabilities miss some",
        "loss",
        "ops.where(x < -1 + half_bin, lowest, probability)",
        "ops.where(x < -2, lowest, probability)",
        LOSS,
    ),
    Mutant(
        "learned_variance_for_its_logarithm",
        "the second half of the channels taken for the variance itself",
        "backward_sampling",
        "return answer, ops.exp(log_variances), log_variances",
        "return answer, log_variances, ops.log(ops.abs(log_variances))",
        BACKWARD,
    ),
    Mutant(
        "one_noise_for_the_whole_batch",
        "every image of the batch gets the same noise on the way back",
        "backward_sampling",
        "    if not shared:\n        return keras.random.normal(shape, seed=generator)\n",
        "",
        BACKWARD,
    ),
    Mutant(
        "time_steps_that_all_look_alike",
        "an embedding whose frequencies fall ten thousand times too fast",
        "unet",
        "frequencies = ops.exp(-math.log(10_000.0) * exponents)",
        "frequencies = ops.exp(-10_000.0 * exponents)",
        UNET,
    ),
)

#: What a test says when it has seen a wrong result. Anything else is a crash, and proves nothing.
JUDGEMENTS = ("AssertionError", "assert ", "Failed: DID NOT RAISE")


def named(name: str) -> Mutant:
    """Look up a mutant. Raises KeyError naming those there are."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    if name not in known:
        raise KeyError(f"{SWITCH}={name}: no such mutant. There are: {', '.join(sorted(known))}")
    return known[name]


class _Loader(importlib.machinery.SourceFileLoader):
    """Load a module with a mistake in it, past the bytecode cached for the right one."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Find one module, and hand out its mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant, self.fullname = mutant, f"{PACKAGE}.{mutant.module}"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.fullname:
            return None
        loader = _Loader(fullname, str(self.mutant.path), self.mutant.source())
        return importlib.util.spec_from_file_location(fullname, self.mutant.path, loader=loader)


def switch_on(name: str) -> None:
    """Let the module of this mutant be imported with the mistake in it, from now on.

    Raises KeyError for an unknown name, and RuntimeError if the module has been imported already.
    """
    mutant = named(name)
    if f"{PACKAGE}.{mutant.module}" in sys.modules:
        raise RuntimeError(f"{mutant.module} is imported already: too late for {name}")
    sys.meta_path.insert(0, _Finder(mutant))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the tests said about a mutant."""

    mutant: Mutant
    failed_test: str | None  # the first test that failed by seeing a wrong result
    said: str
    seconds: float


def run_tests(tests: Sequence[str], mutant: str = "") -> subprocess.CompletedProcess[str]:
    """Run tests up to the first that fails, with a mutant switched on or, by default, none."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rf", "-p", "no:cacheprovider", *tests]
    # A wide terminal, or pytest would cut short what the test has said.
    environment = {**os.environ, SWITCH: mutant, "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "1000"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def examine(mutant: Mutant) -> Outcome:
    """Run the mutant's tests with the mistake in place, up to the first that fails."""
    start = time.monotonic()
    run = run_tests([f"tests/{test}" for test in mutant.tests], mutant.name)
    failed = re.search(r"^FAILED (.*?) - (.*)$", run.stdout, re.MULTILINE)
    if run.returncode == 0:
        name, said = None, "NOT CAUGHT: every test passed"
    elif run.returncode == 1 and failed and (mutant.crashes or failed[2].startswith(JUDGEMENTS)):
        name = said = failed[1]
    else:
        name, said = None, f"NOT CAUGHT, but broken: {run.stdout[-600:]}{run.stderr[-300:]}"
    return Outcome(mutant, name, said, time.monotonic() - start)


def main() -> int:
    """Examine every mutant, or those named; return 0 if all are caught."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="mutants to examine (all if none is named)")
    parser.add_argument("--workers", type=int, default=2, help="how many at a time")
    arguments = parser.parse_args()
    mutants = [named(name) for name in arguments.names] or list(MUTANTS)
    judges = set()
    caught = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        for outcome in pool.map(examine, mutants):
            print(
                f"{outcome.mutant.name} ({outcome.seconds:.0f} s)\n    {outcome.said}", flush=True
            )
            if outcome.failed_test:
                caught += 1
                judges.add(outcome.failed_test)
    if judges:
        print(f"The {len(judges)} tests that failed, without any mistake:", end=" ", flush=True)
        right = run_tests(sorted(judges))
        print("all pass" if right.returncode == 0 else f"NOT ALL PASS\n{right.stdout[-2000:]}")
        caught = 0 if right.returncode else caught
    print(f"{len(mutants)} mutants, {caught} caught")
    return 0 if caught == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
