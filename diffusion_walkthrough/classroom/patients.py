"""The patients of chapter 12: what their owners say, who sees it, hints, the cure.

A patient is a mistake of ``published_mistakes`` and what is said of it. To add one: choose a
mistake, show the definitions among which to look, and draw a symptom in ``figures/bug_hunt.py``.
The tests hold each to its level (:data:`LEVELS`).
"""

from __future__ import annotations

from diffusion_walkthrough.bug_hunt import Patient

#: What each level means: whether instruments ring as they are, before a knob is turned.
LEVELS = {
    "easy": "the picture shows it at once",
    "medium": "the picture may deceive; an instrument rings as it is",
    "hard": "no instrument rings as it is: one does when the right knob is turned",
}

#: The patient that the page examines together with the reader.
FIRST = Patient(
    "alpha_bar_off_by_one_in_the_guess",
    "medium",
    ("predict_x_start_from_noise",),
    "ddim_in_twenty",
    "My loss is as low as everybody's. Still, some of my digits come out torn.",
    (("round_trip", {}),),
    (
        "The schedule is well, and the walk is. What lies between the network and the walk?",
        "round_trip() rings: the clean image is not found again. Eq. 15 has two factors, and both "
        "belong to the same t.",
    ),
    "Both factors of Eq. 15 are of the step at which the image stands. With that of the step "
    "before, too little noise is taken out. Clipping hides the worst of it.",
    "Tables that are shifted by one step are reported again and again, in samplers and in "
    "likelihoods: papers count from 1, and programs from 0.",
    {"return (x_t - b * noise) / a": "x_0 = (x_t − b ε) / a is Eq. 4, solved. It is for real t."},
)

PATIENTS = (
    Patient(
        "variance_for_its_root_in_one_step",
        "easy",
        ("add_noise",),
        "fading",
        "My forward process should bury the 3 under noise. It turns grey instead.",
        (("crowd", {}),),
        (
            "Look at the last image: what should be there, and what has become of its contrast?",
            "crowd() says how much variance is left. Eq. 2 has two factors; which is too small?",
        ),
        "β is a variance. What multiplies the noise is a spread, the root of it.",
        "In a widely used course the square root is missing in this very formula, and readers of "
        "two other courses have reported the same.",
        {"as_float32(x_prev)": "That makes tensors of whatever comes in. It changes no number."},
    ),
    Patient(
        "betas_not_scaled_to_a_short_chain",
        "easy",
        ("make_betas",),
        "short_chain",
        "A thousand steps were too slow for me, so I took 50. The last image should be pure noise.",
        (("signal_left", {}),),
        (
            "Is the last image noise? Chapter 02 has one number for that.",
            "signal_left(T=1000) is well, signal_left(T=50) is not. Which line should know T?",
        ),
        "β of the paper is for a thousand steps. In fewer steps each has to add more: β is "
        "multiplied by 1000 / T.",
        "Some of the most copied tutorials take 300, 200 or 50 steps with the β of a thousand. "
        "A fifth to three quarters of the image are left in their “pure noise”.",
        {
            "return jsd_betas": "jsd fits any number of steps as it is: it always ends in nothing.",
            "np.minimum(cosine_betas": "The cosine schedule fits any number of steps; clipping "
            "its last β at 0.999 is the paper's.",
        },
    ),
    Patient(
        "digits_from_0_to_2",
        "easy",
        ("_load_digits",),
        "data",
        "I train on the digits, and what I draw has no black in it.",
        (("images", {}),),
        (
            "The picture is of the data, before any training. What is black in it?",
            "images() gives the two ends. Where do they come from?",
        ),
        "Images live in [−1, 1], around 0, as the noise does: divide by 8, and take 1 away.",
        "A well-known annotated program trains on images from 0 to 1, and a course did so while "
        "its sampler clipped to [−1, 1].",
        {
            "permutation": "The digits are shuffled once and for all, so that both parts have all "
            "numerals.",
            "slice(": "One part is for training, the other is held out.",
        },
    ),
    Patient(
        "noise_at_the_last_step",
        "easy",
        ("ddpm_step", "_is_clean"),
        "ancestral_in_ten",
        "All my digits look as if there were sand on them.",
        (("ending", {}),),
        (
            "The digits are there; what is on top of them came late. How late?",
            "ending() tells every step the answer, and still the crowd does not end there. Which "
            "line decides that a step is the last?",
        ),
        "The last step gives the image itself, with z = 0 (Algorithm 2). The clean image is at "
        "s = −1, so s < 0 is the question.",
        "An annotated program that many learn from adds noise in the last step too; elsewhere "
        "readers ask why theirs does not.",
        {
            'sigma = ops.sqrt(beta if name == "fixed_large" else small)': "β and β̃ are variances, "
            "and σ is the root.",
            "ops.exp(0.5 * log_variance)": "Half of a log variance is a log spread.",
        },
    ),
    Patient(
        "posterior_weight_without_beta",
        "easy",
        ("NoiseSchedule._compute_posterior",),
        "one_by_one",
        "From the second step on, my images are black and white, and nothing else.",
        (("posterior", {}), ("step_back", {})),
        (
            "Numbers that large come from a factor that is too large. Chapter 01 knows where a "
            "step back leads.",
            "posterior(): the mean is far off, the variance is right. Compare both weights with "
            "Eq. 7.",
        ),
        "The weight of x_0 in Eq. 7 is √ᾱ β / (1 − ᾱ), with ᾱ one step earlier above. Without β it "
        "is 8,339 times too large at t = 1 of a thousand.",
        "The factor has been missing in a published program, whose other lines were right.",
        {
            "self.posterior_variance =": "β̃ = β (1 − ᾱ one step earlier) / (1 − ᾱ): as in Eq. 7.",
            "first =": "β̃ is 0 at t = 0 and has no logarithm, so its neighbour stands in. The "
            "original does so too.",
        },
    ),
    Patient(
        "alpha_bar_off_by_one_in_the_posterior",
        "easy",
        ("NoiseSchedule.__init__",),
        "one_by_one",
        "DDIM draws well with my network. Algorithm 2, with the same network, does not.",
        (("posterior", {}),),
        (
            "Which tables does Algorithm 2 look up that DDIM does not?",
            "posterior() is off, jump() is not: so ᾱ is right, and what is made of it for the way "
            "back is not.",
        ),
        "ᾱ one step earlier begins with 1, the clean image, and ends one step before the end.",
        "Several programs have ᾱ of the same step there, or leave the table out; a reader had to "
        "ask why.",
        {
            "np.cumprod": "ᾱ is the product of all α so far.",
            "1.0 / self.alphas_cumprod - 1.0": "√(1/ᾱ − 1), the factor of the noise in Eq. 15.",
        },
    ),
    Patient(
        "signal_of_the_wrong_step",
        "easy",
        ("_moved",),
        "ddim_in_twenty",
        "DDIM, twenty steps: my digits are dull, as if behind fog.",
        (("order", {}), ("fresh_noise", {})),
        (
            "The step goes from t to s. What is of t, and what of s?",
            "order() finds no order at all, whatever the steps. In x_s both factors belong to s.",
        ),
        "At s there is more of the image than at t: a_s x_0 + b_s ε (Eq. 12 of the DDIM paper).",
        "A user of a popular package found its pair of times mixed up, and asked how one could "
        "ever verify such a program. Another has the times off by one.",
        {
            "left =": "σ_s² / σ_t², the share of the noise's variance that is left.",
            "kept =": "With η = 0 that is 1: all noise is kept, only weaker.",
        },
    ),
    Patient(
        "variance_for_its_root_in_many_steps",
        "medium",
        ("q_sample",),
        "jumped",
        "Everything runs, the noised images look right to me. The samples are poor.",
        (("jump", {}),),
        (
            "Noise that looks like noise may still be too weak. Chapter 01 measured it.",
            "jump(): begin and end are right, the middle is not. What has the same ends as √x?",
        ),
        "1 − ᾱ is the variance of the noise; its factor is the root, √(1 − ᾱ). At both ends they "
        "are alike.",
        "A course says so in its text to this day: readers have reported the standard deviation "
        "in the place of the variance for years.",
        {
            "signal_rate =": "√ᾱ is the factor of the image.",
            "check_same_shape": "Noise of another shape would be spread over the images. That is "
            "refused.",
        },
    ),
    Patient(
        "loss_on_clipped_predictions",
        "medium",
        ("squared_error", "mark"),
        "learning",
        "My loss falls nicely, then stops at about 0.17. Larger networks, longer runs: the same.",
        (("marks", {}), ("overfit", {})),
        (
            "Sixteen questions can be learned by heart. Is the loss of the right answer 0?",
            "marks(): the right answer has a loss. In a third of all pixels noise is beyond ±1.",
        ),
        "Answers are marked as they are. Clipped, no answer beyond ±1 can be right, and none that "
        "is too large gets a gradient.",
        "Programs that clip the guess for drawing have done so for the loss as well.",
        {
            "clip=False": "Here nothing is clipped, as it should be in training.",
            "ops.square(target - answer)": "A squared error does not care which is taken from "
            "which.",
        },
    ),
    Patient(
        "kl_with_a_wrong_sign",
        "medium",
        ("normal_kl",),
        "divergence",
        "My bound is excellent. It has just fallen below zero bits.",
        (("kl", {}),),
        (
            "A divergence of two bells is never negative, and 0 only if they are one.",
            "kl(): even a bell and itself are right, so what differs has to do with the spread.",
        ),
        "½ (log σ²_2 − log σ²_1 + …): with r = log σ²_1 − log σ²_2, r stands there with a minus.",
        "The sign of a log variance has been wrong in a published program; in another one a reader "
        "found a mistake in the likelihood.",
        {
            "squared_distance =": "(μ_1 − μ_2)² / σ²_2: exp of minus a log variance divides by it.",
            "log_ratio =": "The log of σ²_1 / σ²_2, whichever sign it gets later.",
        },
    ),
    Patient(
        "attention_without_scaling",
        "medium",
        ("attention_weights",),
        "looks",
        "My network learns slowly, and in half precision it turns to NaN.",
        (("attention", {}),),
        (
            "How many pixels should a pixel look at that knows nothing yet?",
            "attention(): it looks at one or two. The more channels, the larger the scores. A line "
            "may be missing; then accuse the one before which it belongs.",
        ),
        "The product of two random vectors of C numbers has the spread √C. Divided by it, scores "
        "are about 1 whatever C is.",
        "The eight-day run of chapter 08 has attention of this kind, and so do other programs "
        "whose users report NaN.",
        {"ops.softmax": "The softmax in float32 is careful, and right."},
    ),
    Patient(
        "average_too_slow_for_a_short_run",
        "medium",
        ("AveragingAdam._move_averages",),
        "weights",
        "I draw with averaged weights, as the paper does, with its momentum. My short run draws "
        "noise.",
        (("average", {}),),
        (
            "The weight itself is where it belongs. How far does the average look back?",
            "average(): after so few steps nearly all of it is still the start. What should the "
            "momentum depend on?",
        ),
        "0.9999 looks back ten thousand steps. In a short run the momentum begins low and rises, "
        "(1 + n) / (10 + n).",
        "Examples of a major library average with 0.999 in runs of 511 steps: 60 % of what is "
        "drawn with is the random start.",
        {
            "m * average": "So much of the old average, and the rest of the weight.",
            "n = ": "The steps are counted from 0: at the first, the average begins with the "
            "weight.",
        },
    ),
    Patient(
        "leading_for_trailing",
        "medium",
        ("times",),
        "ddim_in_ten",
        "Ten steps: the digits are all right, but they look thin beside those of others.",
        (("asked", {}),),
        (
            "A walk begins with pure noise. At which t does it ask first?",
            "asked(): not at T − 1. Where should the ten places begin to be counted?",
        ),
        "A walk that begins with pure noise has to ask first at T − 1, “trailing”. At t = 90 a "
        "seventh of an image should be in it.",
        "The default of several programs, and a paper of its own (Lin et al. 2023) says what it "
        "costs.",
        {
            "np.round": "A walk stops at whole steps here.",
            "steps = within": "There cannot be more stops than steps of noise.",
        },
    ),
    Patient(
        "cumulative_product_over_the_batch",
        "hard",
        ("q_sample",),
        "jumped",
        "Here is my plot of all thousand t: perfect. Training learns nothing.",
        (("jump", {"t": [999, 500, 0]}),),
        (
            "The plot is right, and the training is not. What is different about the t of a "
            "training batch?",
            "jump() asks all t in order. Ask some, in another order: t=[999, 500, 0].",
        ),
        "The product runs along the steps of the schedule. Along the batch it is the same only "
        "when the batch is 0, 1, 2 and so on.",
        "The linear schedule of a textbook does this; it serves a plot there, where it is right.",
        {"noise_rate =": "√(1 − ᾱ) of each image's own t, from the table."},
    ),
    Patient(
        "levels_told_apart_by_their_width",
        "hard",
        ("_down", "_up"),
        "refusal",
        "My small network works. This one stops before it begins.",
        (("network", {"multipliers": (1, 2, 2)}), ("network", {"multipliers": (2, 2)})),
        (
            "A network with multipliers (1, 2) is well. Which others should be?",
            "network(multipliers=(1, 2, 2)): two levels of one width. Which line compares widths?",
        ),
        "A level is the last by its number. Its width says nothing: others may be as wide.",
        "In the example of a major library, on the way down; the way up counts levels, as it "
        "should.",
        {
            "if level != 0": "The way up ends at level 0, whatever the widths.",
            "skips.pop()": "What the way down kept last is met first.",
            "residual_blocks + 1": "One more than on the way down: for what each level began with.",
        },
    ),
    Patient(
        "ends_of_the_parabola_not_rooted",
        "hard",
        ("linear_betas", "cosine_betas", "sigmoid_betas", "quad_betas", "warmup_betas"),
        "parabola",
        "This is the schedule in my settings. I no longer know which one it is.",
        (("signal_left", {"name": "quad"}),),
        (
            "Hardly any noise, and yet signal_left() is silent: of which schedule is that?",
            'There are "linear", "sigmoid", "quad", "warmup10", "cosine". Try them all.',
        ),
        "√β rises evenly, from √β of the first to that of the last, and the square of it is β.",
        "An older version of the most copied tutorial had the wrong power at these ends, and so "
        "had programs that took it over.",
        {
            "np.pi / 2": "A squared cosine, as in Eq. 17 of Nichol and Dhariwal.",
            "1 / (1 + np.exp": "A sigmoid from −6 to 6.",
        },
    ),
    Patient(
        "large_variance_called_small",
        "hard",
        ("p_mean_variance", "fixed_variance", "p_sample"),
        "scattered",
        "A crowd in ten steps. They say that the choice of the variance matters most with few "
        "steps. With mine it does not matter at all.",
        (("step_back", {"T": 10, "t": 1}),),
        (
            "With a thousand steps both variances are nearly the same. When are they not?",
            "step_back(T=10, t=1): a long step. How wide should it be, if x_0 is known?",
        ),
        "fixed_small is β̃ of Eq. 7. This program has β under both names, so who compares the two "
        "compares one with itself. In long steps they differ by far.",
        "The paper of DDIM has the number: with β in ten steps a Fréchet distance of 367.",
        {
            "first =": "For fixed_large, β̃ of t = 1 stands in at t = 0, as in the original.",
            "ops.exp(0.5 * step.log_variance)": "σ: half of a log variance is a log spread.",
        },
    ),
    Patient(
        "interpolation_in_pixel_space",
        "hard",
        ("interpolate",),
        "between",
        "Interpolation in latent space, I wrote. A colleague says it is none. Both ends are right.",
        (("halfway", {"share": 0.5}),),
        (
            "Both ends are right: what is there half-way?",
            "halfway(share=0.5): the noise in the mix is too strong. Of what are two mixed, and "
            "when?",
        ),
        "The noisy images are mixed, each with noise of its own; so half-way the noise has half "
        "the variance. Mixing clean images and adding noise afterwards gives the same double "
        "exposure, under all of the noise.",
        "Seen under the name of latent interpolation in programs that mix pixels.",
        {
            "noises =": "Each image has noise of its own here.",
            "setdefault": "The same noise on the way back for every λ, so that only the mix "
            "differs.",
        },
    ),
    Patient(
        "darkest_and_brightest_levels_cut_short",
        "hard",
        ("discretized_gaussian_log_likelihood",),
        "costs",
        "My model has a bit more to pay for a 3 than others' have, and I do not know where.",
        (("levels", {"mean": -1.0}),),
        (
            "Where in the picture is it paid? And how grey are these pixels?",
            "levels() has its bell in the middle. Move it to one end, and to the other.",
        ),
        "The outermost levels reach to infinity: black is everything below −1 and half a level.",
        "Readers have found likelihoods of this kind that do not add up.",
        {
            "distance = -ops.abs": "Folded to one side, for the digits of float32.",
            "highest, probability": "White reaches to infinity, as it should.",
            "ops.maximum(probability": "No probability counts as less than 1e-12.",
        },
    ),
)
