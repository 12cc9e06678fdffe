"""The published mistakes as data: which passage, what stands there by mistake, which test notices.

Two read this list: ``make mutants`` puts each row into the package and sees a test fail
(tools/mutants.py), and chapter 12 puts some into a program in which they are to be found
(``bug_hunt``). A row breaks as soon as the passage it replaces is written differently: then change
the row (tests/test_published_mistakes.py names it). Importing this imports nothing else of the
package, so that any module can still be imported with a mistake in it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PACKAGE = FOLDER.name


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One mistake: ``right`` stands exactly once in the module, and ``wrong`` takes its place."""

    name: str
    mistake: str
    module: str  # "loss", or "engine.cores"
    right: str
    wrong: str
    tests: tuple[str, ...]  # "test_loss.py::test_a_function", below tests/: as few as will do
    crashes: bool = False  # the mistake itself makes the program stop, with equal widths say

    @property
    def path(self) -> Path:
        """The module's file."""
        return FOLDER.joinpath(*self.module.split(".")).with_suffix(".py")

    @property
    def fullname(self) -> str:
        """The module's name with the package in front."""
        return f"{PACKAGE}.{self.module}"

    def source(self) -> str:
        """The module's text with the mistake in it.

        Raises ValueError if the right passage is not there exactly once.
        """
        text = self.path.read_text("utf-8")
        if text.count(self.right) != 1:
            raise ValueError(
                f"mutant {self.name}: {self.path.name} holds {text.count(self.right)} times, and "
                f"must hold once: {self.right!r}. The module has changed; change the row too."
            )
        return text.replace(self.right, self.wrong)


def named(name: str) -> Mistake:
    """Look up a mistake. Raises KeyError naming those there are."""
    known = {mistake.name: mistake for mistake in MISTAKES}
    if name not in known:
        raise KeyError(f"{name}: no such mistake. There are: {', '.join(sorted(known))}")
    return known[name]


MISTAKES = (
    Mistake(
        "betas_not_scaled_to_a_short_chain",
        "the betas of 1000 steps in a chain of 50: at its end most of the image is still there",
        "noise_schedule",
        "REFERENCE_TIMESTEPS / checked.timesteps if checked.scaled else 1.0",
        "1.0",
        ("test_noise_schedule.py::test_schedules_end_in_noise_by_default",),
    ),
    Mistake(
        "ends_of_the_parabola_not_rooted",
        "√β should rise evenly, but what rises is β itself, and is squared: hardly any noise",
        "noise_schedule",
        "return _rise(np.sqrt(beta_start), np.sqrt(beta_end), timesteps) ** 2",
        "return _rise(beta_start, beta_end, timesteps) ** 2",
        ("test_noise_schedule.py::test_the_others_rise_as_their_names_say",),
    ),
    Mistake(
        "variance_for_its_root_in_many_steps",
        "the noise multiplied by the variance 1-ᾱ, not by its root",
        "forward_diffusion",
        "noise_rate = extract(schedule.sqrt_one_minus_alphas_cumprod, t, ndim)",
        "noise_rate = extract(1.0 - schedule.alphas_cumprod, t, ndim)",
        (
            "test_forward_diffusion.py"
            "::test_jump_carries_the_one_dimensional_world_to_its_exact_density",
        ),
    ),
    Mistake(
        "variance_for_its_root_in_one_step",
        "the noise multiplied by β, not by its root",
        "forward_diffusion",
        "+ ops.sqrt(beta) * noise",
        "+ beta * noise",
        ("test_forward_diffusion.py::test_one_step_on_numbers_worked_out_on_paper",),
    ),
    Mistake(
        "variance_for_its_root_on_the_way_back",
        "the new noise multiplied by the variance σ², not by σ",
        "backward_sampling",
        "ops.exp(0.5 * step.log_variance)",
        "ops.exp(step.log_variance)",
        ("test_backward_sampling.py::test_one_step_is_algorithm_2_in_its_other_form",),
    ),
    Mistake(
        "noise_at_the_last_step",
        "new noise also in the step that gives the image",
        "backward_sampling",
        "ops.reshape(s < 0, ",
        "ops.reshape(s < -1, ",
        ("test_backward_sampling.py::test_one_step_is_algorithm_2_in_its_other_form",),
    ),
    Mistake(
        "images_from_0_to_255",
        "training takes images that no noise of variance 1 can drown",
        "data",
        "    if seldom_below_0 and not",
        "    if seldom_below_0 and high > 1.5:\n        return\n    if seldom_below_0 and not",
        ("test_data.py::test_a_wrong_npz_is_refused_with_the_remedy",),
    ),
    Mistake(
        "images_from_0_to_1",
        "training takes images that never fall below 0",
        "data",
        "    if seldom_below_0 and not",
        "    if seldom_below_0 and high <= 1.5:\n        return\n    if seldom_below_0 and not",
        ("test_data.py::test_a_wrong_npz_is_refused_with_the_remedy",),
    ),
    Mistake(
        "digits_from_0_to_2",
        "the embedded images are not moved to lie around 0",
        "data",
        "/ 8.0 - 1.0  # from 0 ... 16",
        "/ 8.0",
        ("test_data.py::test_digits_are_split_once_and_for_all",),
    ),
    Mistake(
        "alpha_bar_off_by_one_in_the_posterior",
        "ᾱ of the same step where that of the step before belongs",
        "noise_schedule",
        "self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])",
        "self.alphas_cumprod_prev = self.alphas_cumprod.copy()",
        ("test_noise_schedule.py::test_linear_tables_are_the_published_ones",),
    ),
    Mistake(
        "alpha_bar_off_by_one_in_the_guess",
        "the guessed image from ᾱ of the step before",
        "predictions",
        "- extract(schedule.sqrt_recipm1_alphas_cumprod, t, ndim) * noise",
        "- extract(schedule.sqrt_recipm1_alphas_cumprod, np.maximum(t - 1, 0), ndim) * noise",
        ("test_predictions.py::test_a_prediction_is_its_formula_there_and_back",),
    ),
    Mistake(
        "cumulative_product_over_the_batch",
        "α multiplied up along the images of the batch, not along the steps",
        "forward_diffusion",
        "signal_rate = extract(schedule.sqrt_alphas_cumprod, t, ndim)",
        "signal_rate = ops.sqrt(ops.cumprod(extract(schedule.alphas, t, ndim), axis=0))",
        (
            "test_forward_diffusion.py"
            "::test_jump_carries_the_one_dimensional_world_to_its_exact_density",
        ),
    ),
    Mistake(
        "average_from_another_network",
        "the averaged weights do not start from this run's weights, but from others (here 0)",
        "engine.optimizer",
        '* ops.cast(n > 0, "float32")',
        "+ 0 * n",
        ("engine/test_optimizer.py::test_the_average_is_that_of_its_formula",),
    ),
    Mistake(
        "average_too_slow_for_a_short_run",
        "a momentum of 0.9999 from the first step on: the start never leaves the average",
        "engine.optimizer",
        "ops.minimum(self.momentum, (1.0 + n) / (10.0 + n))",
        "self.momentum",
        ("engine/test_optimizer.py::test_a_short_run_forgets_its_start",),
    ),
    Mistake(
        "average_shown_and_then_trained_on",
        "after a look at the averaged weights, training goes on from them",
        "engine.callbacks",
        "                weight.assign(value)\n            self.own_weights = None",
        "                pass\n            self.own_weights = None",
        (
            "engine/test_callbacks.py"
            "::test_training_goes_on_with_its_own_weights_while_others_see_the_average",
        ),
    ),
    Mistake(
        "posterior_weight_without_beta",
        "the weight of x_0 in the posterior mean without β: 8,339 times too large at t = 1",
        "noise_schedule",
        "self.posterior_mean_coef1 = self.betas * np.sqrt(earlier)",
        "self.posterior_mean_coef1 = np.sqrt(earlier)",
        ("test_noise_schedule.py::test_linear_tables_are_the_published_ones",),
    ),
    Mistake(
        "kl_with_a_wrong_sign",
        "the log variances exchanged in the KL divergence",
        "loss",
        "0.5 * (-log_ratio + ops.expm1(log_ratio)",
        "0.5 * (log_ratio + ops.expm1(log_ratio)",
        ("test_loss.py::test_kl_is_what_integration_finds",),
    ),
    Mistake(
        "attention_without_scaling",
        "scores not divided by √C: the softmax looks at one pixel only, and float16 overflows",
        "unet",
        "    queries = queries * (1 / math.sqrt(queries.shape[-1]))  "
        "# before the product, which could grow\n",
        "",
        ("test_unet.py::test_the_whole_network_equals_an_independent_numpy_version",),
    ),
    Mistake(
        "attention_without_normalization",
        "the pixels go into the attention as they come",
        "unet",
        '    normalized = normalize(x, groups, _within(name, "norm"))\n',
        "    normalized = x\n",
        ("planner/test_counting.py::test_the_formula_counts_what_is_built",),
    ),
    Mistake(
        "attention_that_is_silently_absent",
        "an attention size that no level has is taken without a word",
        "parameters",
        "if size not in self.level_sizes:",
        "if False:",
        ("test_parameters.py::test_a_wrong_value_is_refused_with_its_name_value_and_remedy",),
    ),
    Mistake(
        "levels_told_apart_by_their_width",
        "a level is taken for the last because it is as wide: equal widths lose a halving",
        "unet",
        "        if level != levels - 1:\n            skips.append(downsample(skips[-1]",
        "        if parameters.level_widths[level] != parameters.level_widths[-1]:\n"
        "            skips.append(downsample(skips[-1]",
        ("planner/test_counting.py::test_the_formula_counts_what_is_built",),
        crashes=True,
    ),
    Mistake(
        "small_variance_for_the_digits",
        "the variance in the preset of the digits is the one that draws too tidy ones",
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
            "::test_the_variance_of_the_digits_draws_well_and_as_densely_as_real_ones_lie",
        ),
    ),
    Mistake(
        "large_variance_called_small",
        "β where β̃ is asked for",
        "backward_sampling",
        "return schedule.posterior_variance, schedule.posterior_log_variance_clipped",
        "return schedule.betas, np.log(schedule.betas)",
        ("test_backward_sampling.py::test_one_step_is_algorithm_2_in_its_other_form",),
    ),
    Mistake(
        "shares_that_overlap",
        "cores that divide a batch answer some images twice, and all answers are handed on",
        "engine.cores",
        "results.append(result[tf.minimum(i * length - start, length) :])",
        "results.append(result)",
        ("engine/test_cores.py::test_each_image_gets_its_own_answer_whatever_the_batch",),
        crashes=True,
    ),
    Mistake(
        "last_share_left_short",
        "the images that are left over go to no core: the answers of others stand in their place",
        "engine.cores",
        "start = tf.minimum(i * length, n - length)",
        "start = 0 * i",
        ("engine/test_cores.py::test_each_image_gets_its_own_answer_whatever_the_batch",),
    ),
    Mistake(
        "statistics_held_constant",
        "a gradient of normalization written by hand, as if mean and variance did not depend on x",
        "engine.layers",
        "of_x = of_x - x * _for_pixels(slope, x) + _for_pixels(shift, x)",
        "of_x = of_x + 0 * shift[0, 0, 0]",
        ("engine/test_layers.py::test_the_gradient_is_that_of_the_chain_rule",),
    ),
    Mistake(
        "loss_scaling_forgotten",
        "a training step of one's own, without the scaling that float16 needs",
        "training",
        "    def questions(\n",
        "    def train_step(self, data: Any) -> Any:\n"
        "        import tensorflow as tf\n\n"
        "        x, y = data[:2]\n"
        "        with tf.GradientTape() as tape:\n"
        "            loss = self.compute_loss(x, y, self(x, training=True))\n"
        "        weights = self.trainable_variables\n"
        "        self.optimizer.apply(tape.gradient(loss, weights), weights)\n"
        "        self._loss_tracker.update_state(loss)\n"
        "        return self.get_metrics_result()\n\n"
        "    def questions(\n",
        ("engine/test_precision.py::test_half_precision_takes_the_same_steps",),
    ),
    Mistake(
        "loss_on_clipped_predictions",
        "the answer held within [-1, 1] before it is marked",
        "loss",
        "return squared_error(answer, target)",
        "return squared_error(ops.clip(as_float32(answer), -1.0, 1.0), target)",
        ("test_loss.py::test_marks_are_of_answers_as_they_are_where_clipping_would_hide_an_error",),
    ),
    Mistake(
        "simple_loss_on_clipped_predictions",
        "the same in the loss of chapter 04",
        "loss",
        "return squared_error(guess_noise(q_sample(schedule, x_start, t, noise), t), noise)",
        "guess = as_float32(guess_noise(q_sample(schedule, x_start, t, noise), t))\n"
        "    return squared_error(ops.clip(guess, -1.0, 1.0), noise)",
        (
            "test_loss.py::"
            "test_wild_guesses_cost_more_than_slight_ones_where_clipping_would_hide_it",
        ),
    ),
    Mistake(
        "interpolation_in_pixel_space",
        "the clean images mixed before the noise, and called latent",
        "backward_sampling",
        "    mixed = as_float32(1 - share) * noisy_1 + as_float32(share) * noisy_2",
        "    clean = as_float32(1 - share) * images[0] + as_float32(share) * images[1]\n"
        "    noise = keras.random.normal(clean.shape, seed=generator)\n"
        "    mixed = q_sample(schedule, clean, np.full(len(share), t), noise)",
        ("test_backward_sampling.py::test_the_noisy_images_are_mixed_each_with_noise_of_its_own",),
    ),
    Mistake(
        "small_images_blown_up",
        "32x32 photographs trained on at 256x256: 59 times the work",
        "parameters",
        "return cls(ScheduleParameters(), UNetParameters(), TrainingParameters())",
        "return cls(ScheduleParameters(), UNetParameters(image_size=256, attention_sizes=()), "
        "TrainingParameters())",
        ("test_scaling_up.py::test_the_epoch_of_eight_days",),
    ),
    Mistake(
        "weighted_like_the_bound_at_the_last_step",
        "a KL divergence at t = 0, where the bound has the probability of the grey level",
        "loss",
        "at_last_step = ops.convert_to_tensor(t) == 0",
        "at_last_step = ops.convert_to_tensor(t) < 0",
        ("test_loss.py::test_the_right_answer_costs_nothing",),
    ),
    Mistake(
        "darkest_and_brightest_levels_cut_short",
        "the outermost bins end where the others do, so that the probabilities miss some",
        "loss",
        "ops.where(x < -1 + half_bin, lowest, probability)",
        "ops.where(x < -2, lowest, probability)",
        ("test_loss.py::test_the_probabilities_of_all_levels_sum_to_1",),
    ),
    Mistake(
        "learned_variance_for_its_logarithm",
        "the second half of the channels taken for the variance itself",
        "backward_sampling",
        "return BackwardStep(mean, ops.exp(log_variance), log_variance, x_start)",
        "return BackwardStep(mean, log_variance, ops.log(ops.abs(log_variance)), x_start)",
        (
            "test_backward_sampling.py"
            "::test_a_learned_variance_is_taken_from_the_second_half_of_the_channels",
        ),
    ),
    Mistake(
        "one_noise_for_the_whole_batch",
        "every image of the batch gets the same noise on the way back",
        "engine.noise",
        "if not alike:",
        "if False:",
        (
            "test_backward_sampling.py"
            "::test_mean_and_variance_of_the_result_when_the_data_are_a_bell",
        ),
    ),
    Mistake(
        "time_steps_that_all_look_alike",
        "an embedding whose frequencies fall ten thousand times too fast",
        "unet",
        "frequencies = ops.exp(-math.log(10_000.0) * exponents)",
        "frequencies = ops.exp(-10_000.0 * exponents)",
        ("test_unet.py::test_the_timestep_embedding_equals_numpy",),
    ),
    Mistake(
        "score_turned_round",
        "the score points away from where the data lie denser",
        "gaussian_mixture",
        "slopes = (self.means - _column(x))",
        "slopes = (_column(x) - self.means)",
        ("test_gaussian_mixture.py::test_score_is_the_slope_of_the_log_density",),
    ),
    Mistake(
        "shares_that_wait_for_each_other",
        "with dropout, each core begins when the one before has ended",
        "engine.cores",
        "if self.random or tf.distribute.has_strategy():",
        "if tf.distribute.has_strategy():",
        ("engine/test_cores.py::test_no_share_waits_for_another",),
    ),
    Mistake(
        "balls_of_generated_images",
        "coverage and density with balls around what was generated, as recall has them",
        "evaluation",
        "radii, inside = ball_radii(real_rows, k), np.zeros(len(real_rows))",
        "real_rows, generated_rows = generated_rows, real_rows\n"
        "    radii, inside = ball_radii(real_rows, k), np.zeros(len(real_rows))",
        ("test_evaluation.py::test_density_and_coverage_by_hand",),
    ),
    Mistake(
        "neighbour_of_itself",
        "a ball that reaches to the (k-1)-th neighbour: each image counted as its own first",
        "evaluation",
        "np.partition(part, k, axis=1)[:, k]",
        "np.partition(part, k - 1, axis=1)[:, k - 1]",
        ("test_evaluation.py::test_balls_reach_to_the_kth_other",),
    ),
    Mistake(
        "density_by_real_images",
        "density divided by the number of real images instead of generated ones",
        "evaluation",
        "inside.sum() / (k * len(generated_rows))",
        "inside.sum() / (k * len(real_rows))",
        ("test_evaluation.py::test_density_and_coverage_by_hand",),
    ),
    Mistake(
        "covariance_by_n",
        "a Fréchet distance with covariances divided by n instead of n - 1",
        "evaluation",
        "np.sqrt(len(rows) - 1)",
        "np.sqrt(len(rows))",
        (
            "test_evaluation.py"
            "::test_the_distance_of_two_bells_in_one_dimension_is_known_in_closed_form",
        ),
    ),
    Mistake(
        "drawn_and_held_out_exchanged",
        "a test for copies that suspects the held-out images",
        "evaluation",
        "mannwhitneyu(of_drawn, of_held_out,",
        "mannwhitneyu(of_held_out, of_drawn,",
        ("test_evaluation.py::test_copies_are_found_and_half_of_them_too",),
    ),
    Mistake(
        "suspected_for_being_far",
        "a two-sided test for copies: images unlike all training images are suspected too",
        "evaluation",
        'alternative="less"',
        'alternative="two-sided"',
        ("test_evaluation.py::test_images_that_are_farther_than_held_out_ones_are_no_copies",),
    ),
    Mistake(
        "patches_weighed_by_the_standard_deviation",
        "the root taken where the variance of the noise belongs",
        "exact_denoiser",
        "ops.softmax(fit / b**2)",
        "ops.softmax(fit / b)",
        ("test_exact_denoiser.py::test_the_patch_denoiser_agrees_with_brute_force",),
    ),
    Mistake(
        "none_of_these_is_an_answer",
        "an image counts as recognized if the classifier is sure that it shows nothing",
        "features",
        "p[:, :-1].max(axis=1)",
        "p.max(axis=1)",
        ("test_features.py::test_what_is_no_digit_is_not_recognized",),
    ),
    Mistake(
        "nothing_shows_through",
        "what a part of a face leaves open is filled all the same: hats that hide the face",
        "faces",
        "np.where(over > 0, over, pictures[:, np.newaxis])",
        "np.where(over >= 0, over, pictures[:, np.newaxis])",
        ("test_faces.py::test_a_face_is_painted_layer_over_layer",),
    ),
    Mistake(
        "test_faces_that_training_shows",
        "train and test split drawn from the same faces, as if chance would keep them apart",
        "faces",
        "chosen = self.split_of(rolled) == split",
        'chosen = (self.split_of(rolled) == "kept_out") == (split == "kept_out")',
        ("test_faces.py::test_the_rule_of_the_splits",),
    ),
    Mistake(
        "unseen_attributes_counted",
        "faces told apart by the colour of hats that nobody wears",
        "faces",
        "np.where(seen, faces[colour], np.int32(NOT_SEEN))",
        "faces[colour]",
        ("test_faces.py::test_what_cannot_be_seen_does_not_count",),
    ),
    Mistake(
        "a_wrong_part_drowns_in_the_mean",
        "an image judged by its mean error, in which half a hat hardly counts",
        "faces",
        "np.sqrt(patches.max(axis=(1, 2)))",
        "np.sqrt(patches.mean(axis=(1, 2)))",
        ("test_faces.py::test_half_a_hat_and_a_second_mouth_are_not_legal",),
    ),
    Mistake(
        "leading_for_trailing",
        "times spaced from 0 up, so that a walk of few steps never asks at T-1",
        "backward_sampling",
        "places = start + 1 - (start + 1) * np.arange(steps) / steps",
        "places = 1 + (start + 1) // steps * np.arange(steps)[::-1]",
        ("test_backward_sampling.py::test_the_steps_of_a_walk_are_evenly_spaced",),
    ),
    Mistake(
        "eta_times_the_variance",
        "DDIM's fresh noise multiplied by its variance, not by the root",
        "faster_sampling",
        "fresh = eta * ops.sqrt(ops.maximum(1.0 - left, 0.0))",
        "fresh = eta * (1.0 - left)",
        ("test_faster_sampling.py::test_ddim_is_equations_12_and_16",),
    ),
    Mistake(
        "all_the_noise_kept_beside_the_fresh",
        "DDIM with fresh noise on top of all that there was, which is then too much",
        "faster_sampling",
        "kept = ops.sqrt(1.0 - eta**2 + eta**2 * left)",
        "kept = 1.0",
        (
            "test_faster_sampling.py"
            "::test_with_eta_1_a_step_is_that_of_ddpm_with_the_small_variance",
        ),
    ),
    Mistake(
        "signal_of_the_wrong_step",
        "√ᾱ of the step begun from, where that of the step arrived at belongs",
        "faster_sampling",
        "return a_s * x_start + b_s *",
        "return a_t * x_start + b_s *",
        ("test_faster_sampling.py::test_ddim_is_equations_12_and_16",),
    ),
    Mistake(
        "second_order_to_the_very_end",
        "2M carries x_0 on in the last step as well, whose log σ has no end",
        "faster_sampling",
        "at_an_end = ops.logical_or(sigma_next == 0, ops.logical_not(is_known))",
        "at_an_end = ops.logical_not(is_known)",
        ("test_faster_sampling.py::test_a_step_to_the_clean_image_is_the_guess_to_the_last_bit",),
    ),
    Mistake(
        "carried_on_by_the_whole_step",
        "2M carries x_0 on to the end of the step, not to its middle",
        "faster_sampling",
        "share = ops.log(sigma_next / sigma) / ops.log(sigma / sigma_before) / 2",
        "share = ops.log(sigma_next / sigma) / ops.log(sigma / sigma_before)",
        ("test_faster_sampling.py::test_the_order_of_a_step_is_the_slope_of_its_error",),
    ),
    Mistake(
        "heun_with_the_mean_of_places",
        "the mean of where a step ends and where a second one would, for that of the slopes",
        "faster_sampling",
        "return ops.where(has_two_ends, x_s + way * (slope_there - slope) / 2, x_s)",
        "return ops.where(has_two_ends, x_s + way * slope_there / 2, x_s)",
        ("test_faster_sampling.py::test_the_order_of_a_step_is_the_slope_of_its_error",),
    ),
    Mistake(
        "noise_on_images_of_full_strength",
        "a restart that adds σ z to the image, and hands that to the network as x_t",
        "faster_sampling",
        "x_t = q_sample(schedule, images, np.full(len(images), start), noise)",
        "x_t = images + sigma * noise",
        (
            "test_faster_sampling.py::test_a_restart_begins_from_the_crowd_and_the_noise_of_equation_4",
        ),
    ),
    Mistake(
        "last_noise_left_in_the_image",
        "a walk that ends at t = 0, where a little noise is left, and not at the clean image",
        "backward_sampling",
        "visited = [*_times_from_noise(schedule, steps, start, x_T), -1]",
        "visited = [*_times_from_noise(schedule, steps, start, x_T), 0]",
        ("test_backward_sampling.py::test_a_walk_can_stop_where_a_list_says",),
    ),
    Mistake(
        "straight_in_the_wrong_thing",
        "the rates between two steps off a straight line through SNR, not through its logarithm",
        "noise_schedule",
        "root = ops.sqrt(1.0 + ops.square(a) * ops.expm1(change))",
        "root = ops.sqrt(1.0 + ops.square(a) * change)",
        ("test_noise_schedule.py::test_between_two_steps_log_snr_is_a_straight_line",),
    ),
    Mistake(
        "labels_left_out_batch_by_batch",
        "one decision for a whole batch: most batches lose no label, and a few lose all",
        "guidance",
        "left_out = random.random(len(labels)) < share",
        "left_out = np.full(len(labels), random.random() < share)",
        ("test_guidance.py::test_labels_are_left_out_image_by_image",),
    ),
    Mistake(
        "labels_left_out_one_by_one",
        "each label of an image is left out by itself: all of them hardly ever are",
        "guidance",
        "left_out = random.random(len(labels)) < share",
        "left_out = random.random(labels.shape) < share",
        ("test_guidance.py::test_all_labels_of_an_image_are_left_out_together",),
        crashes=True,
    ),
    Mistake(
        "class_0_for_no_label",
        "class 0 stands for no label as well: asked for nothing, the network draws zeros",
        "unet",
        "(column + 1)",
        "(ops.maximum(column, 0))",
        ("test_unet.py::test_the_network_uses_its_labels_and_the_untold_pass_is_untold",),
    ),
    Mistake(
        "zeros_for_no_label",
        "zeros in the place of a learned row for no label",
        "unet",
        "(column + 1)",
        "(column + 1) * ops.cast(column >= 0, 'float32')[:, None]",
        ("test_unet.py::test_rows_of_labels_add_up_and_nothing_said_has_a_row_of_its_own",),
    ),
    Mistake(
        "label_that_goes_nowhere",
        "labels are taken in, and never added to what the blocks are told",
        "unet",
        "embedding = embedding + embed_labels",
        "embedding = embedding + 0.0 * embed_labels",
        ("test_unet.py::test_the_network_uses_its_labels_and_the_untold_pass_is_untold",),
    ),
    Mistake(
        "guidance_of_the_other_convention",
        "a scale that is off at 1, put into the formula that is off at 0",
        "guidance",
        "return untold + scale * (told - untold)",
        "return told + scale * (told - untold)",
        ("test_guidance.py::test_guidance_is_the_equation_in_both_conventions",),
    ),
    Mistake(
        "guidance_halves_swapped",
        "the answers with and without labels taken for each other: guided away from the label",
        "guidance",
        "with_them, without = ops.split",
        "without, with_them = ops.split",
        ("test_guidance.py::test_a_scale_goes_beyond_the_label_in_one_call_of_twice_as_many",),
    ),
    Mistake(
        "labels_left_out_while_measuring",
        "labels are dropped in validation, too, which makes it worse than it is, and noisy",
        "training",
        "self.label_dropping * (not self.always_alike)",
        "self.label_dropping",
        ("test_conditions.py::test_training_leaves_out_labels_and_measuring_does_not",),
    ),
    Mistake(
        "known_part_under_the_noise_of_t",
        "inpainting that puts the known part in with the noise of where the step began",
        "guidance",
        "schedule.rates(s, len(x_s.shape))",
        "schedule.rates(t, len(x_s.shape))",
        ("test_guidance.py::test_the_known_part_is_under_the_noise_of_where_the_step_ends",),
    ),
    Mistake(
        "variance_for_its_root_on_the_way_up",
        "resampling that multiplies the noise by the variance, not by its root",
        "guidance",
        "ops.sqrt(ops.maximum(variance, 0.0))",
        "ops.maximum(variance, 0.0)",
        ("test_guidance.py::test_noised_again_is_equation_4_by_another_way",),
    ),
    Mistake(
        "new_weights_at_random",
        "new input channels whose weights begin at random: what was learnt is disturbed at once",
        "guidance",
        'kernel_initializer="zeros"',
        'kernel_initializer="glorot_uniform"',
        ("test_guidance.py::test_a_network_shown_what_is_known_begins_as_the_old_one",),
    ),
    Mistake(
        "mask_of_the_unknown",
        "a mask that is 1 where a pixel is not known, where the other convention is meant",
        "guidance",
        "np.where(known, images, 0), known]",
        "np.where(known, 0, images), ~known]",
        ("test_guidance.py::test_what_is_known_says_nothing_of_unknown_pixels",),
    ),
    Mistake(
        "known_pixels_under_noise",
        "the network is shown noisy pixels as the known ones, which it has in x_t already",
        "guidance",
        "known = what_is_known(x_start, self.masks",
        "known = what_is_known(x_t, self.masks",
        ("test_guidance.py::test_questions_are_the_old_ones_with_a_part_known",),
    ),
    Mistake(
        "one_mask_for_a_batch",
        "one part known of a whole batch: each step learns from a single one",
        "guidance",
        "self.masks(random, x_start.shape)",
        "self.masks(random, x_start[:1].shape)",
        ("test_guidance.py::test_questions_are_the_old_ones_with_a_part_known",),
    ),
    Mistake(
        "known_said_with_labels_only",
        "guided from an answer without label and without the known part: the two are mixed up",
        "guidance",
        "twice = zip((*shown, labels), (*shown, nothing), strict=True)",
        "hidden = [0 * ops.convert_to_tensor(x) for x in shown[2:]]\n"
        "        twice = zip((*shown, labels), (*shown[:2], *hidden, nothing), strict=True)",
        ("test_guidance.py::test_guidance_says_what_is_known_both_times",),
    ),
    Mistake(
        "straight_path_from_the_wrong_end",
        "the straight path with noise at 0 and data at 1, where all else has it the other way",
        "flow_matching",
        "return (1 - s) * x_start + s * noise",
        "return s * x_start + (1 - s) * noise",
        (
            "test_flow_matching.py"
            "::test_a_line_begins_in_the_image_and_ends_in_the_noise_at_an_even_pace",
        ),
    ),
    Mistake(
        "velocity_of_the_other_direction",
        "the velocity from noise to data, where time runs from data to noise",
        "flow_matching",
        "return noise - x_start",
        "return x_start - noise",
        ("test_flow_matching.py::test_the_other_direction_of_time_is_the_same_walk",),
    ),
    Mistake(
        "direction_turned_by_half",
        "time turned round, and the velocity left as it was",
        "flow_matching",
        "return -velocity, 1 - time",
        "return velocity, 1 - time",
        ("test_flow_matching.py::test_the_other_direction_of_time_is_the_same_walk",),
    ),
    Mistake(
        "walked_away_from_the_data",
        "a step along the velocity, where the walk goes against it, from s = 1 to 0",
        "flow_matching",
        "x = x - ds * v\n",
        "x = x + ds * v\n",
        ("test_flow_matching.py::test_one_step_of_euler_from_noise_ends_in_the_mean",),
    ),
    Mistake(
        "flow_without_the_sum_of_the_rates",
        "the clean image read off a velocity as on the straight path, on a schedule that is round",
        "predictions",
        "return (as_float32(x_t) - b * as_float32(answer)) / (a + b)",
        "return as_float32(x_t) - b * as_float32(answer)",
        ("test_predictions.py::test_a_prediction_is_its_formula_there_and_back",),
    ),
    Mistake(
        "asked_about_the_noise_itself",
        "the network is shown the end of the line, not the point at t",
        "flow_matching",
        "return (a * x_start + b * noise, t)",
        "return (noise, t)",
        ("test_flow_matching.py::test_questions_keep_image_and_noise_together",),
    ),
    Mistake(
        "time_as_a_share_of_1",
        "t in [0, 1] for an embedding that was made for whole steps, and then is almost constant",
        "flow_matching",
        "return (a * x_start + b * noise, t)",
        "return (a * x_start + b * noise, (t / len(self.schedule)).astype('float32'))",
        ("test_flow_matching.py::test_questions_keep_image_and_noise_together",),
    ),
    Mistake(
        "the_same_questions_in_every_epoch",
        "what is random in a question is drawn once, and not anew in each epoch",
        "flow_matching",
        "random = np.random.default_rng([self.seed, epoch, number, 1])",
        "random = np.random.default_rng([self.seed, number, 1])",
        ("test_flow_matching.py::test_questions_keep_image_and_noise_together",),
    ),
    Mistake(
        "transport_across_classes",
        "minibatch optimal transport that takes no notice of labels, and couples noise to a class",
        "flow_matching",
        "classes = np.zeros(len(noise)) if labels is None else np.ravel(labels)",
        "classes = np.zeros(len(noise))",
        (
            "test_flow_matching.py"
            "::test_within_a_class_pairs_are_best_and_the_noise_stays_the_same_for_all",
        ),
    ),
    Mistake(
        "paired_with_the_farthest",
        "the assignment is given what is alike as a cost, and so pairs what is least alike",
        "flow_matching",
        "linear_sum_assignment(-flat @ other.T)[1]",
        "linear_sum_assignment(flat @ other.T)[1]",
        ("test_flow_matching.py::test_in_one_dimension_the_best_pairing_is_by_rank",),
    ),
    Mistake(
        "reflow_swapped",
        "reflow with noise and data exchanged",
        "flow_matching",
        "return Pairs(euler(velocity, noise, steps)[-1], noise)",
        "return Pairs(noise, euler(velocity, noise, steps)[-1])",
        ("test_flow_matching.py::test_reflow_pairs_noise_with_where_it_is_carried",),
    ),
    Mistake(
        "weight_of_v_without_end",
        "the weight of v's error divided by the SNR, which is 0 at pure noise",
        "flow_matching",
        '"v": lambda snr: snr + 1,',
        '"v": lambda snr: (snr + 1) / snr,',
        ("test_flow_matching.py::test_the_weight_of_an_error_is_what_it_does_to_the_answer",),
    ),
)
