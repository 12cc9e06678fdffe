"""Exercises of chapter 11: a step, the share of noise, the image in a velocity, directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
    show_solution as show_solution,
)


def check_euler_step(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x, v, s, s_next)`` that takes Euler's step from s to a smaller s_next."""
    x, v = np.random.default_rng(11).standard_normal((2, 5))
    s, s_next = 0.8, 0.5
    answer = call(attempt, x, v, s, s_next)
    hints = [
        (x + (s - s_next) * v, "Away from the image: v = ε - x_0 points to the noise, and s falls, "
         "so the way in s is s_next - s, below 0."),
        (x - s * v, "That goes all the way to s = 0 at once: it is the guess of the image. Here "
         "the walk ends at s_next."),
        (x + s * v, "The sign is wrong, and it is too far: the way is s_next - s."),
        (x - s_next * v, "That is as far as there is still to go. This step goes from s to "
         "s_next."),
        (x - v, "That is a step from s = 1 to 0. The velocity is what x changes for each unit "
         "of s: multiply by the way in s."),
        (x + v, "The velocity is what x changes for each unit of s: multiply by the way in s."),
        (v * (s_next - s), "That is the step alone. Add it to where you stand."),
        (s_next / s * x, "Only the noise shrinks in that proportion; x does so only if x_0 is 0."),
        (x, "That is x again: nothing has moved."),
        ((1 - s_next) * x + s_next * v, "That mixes x and v as a line mixes image and noise. But "
         "v is a velocity: x moves along it."),
    ]  # fmt: skip
    right = "The way in s is below 0, so the step goes against the velocity: to the image."
    parts = {"x": x, "v": v}
    return mark(answer, x + (s_next - s) * v, hints, right, parts=parts)


def solution_euler_step(x: Any, v: Any, s: float, s_next: float) -> Any:
    """What x changes for each unit of s, times the way in s."""
    return x + (s_next - s) * v


look_euler_step = (
    "the function euler_by_hand in “A line from noise to data”: there all steps are alike."
)


def check_share(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(a, b)`` that says at which s of the straight path x_t = a x_0 + b ε is."""
    a, b = np.array([0.96, 0.8, 0.28]), np.array([0.28, 0.6, 0.96])
    answer = call(attempt, a, b)
    hints = [
        (b, "b is the factor of the noise while a² + b² = 1. On the straight path the two factors "
         "add up to 1."),
        (b**2, "b² is the noise's share of the variance. On the straight path the factors "
         "themselves add up to 1."),
        (b / a, "That is σ of chapter 09, where all is divided by a. Here the two factors are to "
         "add up to 1."),
        (a / (a + b), "That is 1 - s, the share of the image: s is 1 where all is noise."),
        (1 - a, "With 1 - a the noise has what the image has lost; but a + b is not 1 here. Divide "
         "both by their sum first."),
        (b**2 / (a**2 + b**2), "That is b² again, as a² + b² is 1 already. No squares: the factors "
         "are to add up to 1."),
        (a, "a is the image's factor. s is the share of the noise."),
        (a + b, "That is what to divide by. Which of the two factors is then s?"),
        (1 / (a + b), "That is what both are multiplied with. Which of them is then s?"),
        (b / np.sqrt(a**2 + b**2), "√(a² + b²) is 1 already, so that is b. Divide by a + b."),
    ]  # fmt: skip
    right = (
        "Divided by a + b, the factors add up to 1: x_t has moved along its ray to the straight "
        "path, and image and noise are as strong to each other as before."
    )
    return mark(answer, b / (a + b), hints, right)


def solution_share(a: Any, b: Any) -> Any:
    """Make the factors add up to 1; s is that of the noise."""
    return b / (a + b)


look_share = "the picture of the rays in “The same thing as diffusion”."


def check_image(attempt: Callable[..., Any]) -> Verdict:
    """Mark a function ``(x_s, v, s)`` that reads the clean image off a velocity."""
    x_start, noise = np.random.default_rng(12).standard_normal((2, 5))
    s = 0.3
    x_s, v = (1 - s) * x_start + s * noise, noise - x_start
    answer = call(attempt, x_s, v, s)
    hints = [
        (noise, "That is the noise, at the other end of the line: s rises on the way to it."),
        (x_s - v, "That is a whole unit of s. From s to 0 it is only s of it."),
        (x_s + s * v, "The sign: v points to the noise, and the image lies behind you."),
        (x_s - (1 - s) * v, "1 - s is the way to the noise. To the image it is s."),
        (x_s + v, "v points to the noise, and a whole unit of s is too far: to the image it is s."),
        (-v, "-v is image less noise. Noise has to be added back, or go from x_s instead."),
        (x_s / (1 - s), "That leaves the noise in it, even stronger. The velocity says what it "
         "is."),
        ((x_s - s * v) / (1 - s), "Take one thing less: x_s - s v has no noise left in it, and the "
         "image is whole already. Put x_s and v in their own formulas to see it."),
        (x_s - s * v * (1 - s), "Only s belongs there: the line is walked at an even pace, v for "
         "each unit of s."),
        (x_s, "That is x_s as it is, noise and all."),
    ]  # fmt: skip
    right = "Walk the line on to s = 0: Euler's longest step is the guess of the image."
    return mark(answer, x_start, hints, right, parts={"x_s": x_s, "v": v})


def solution_image(x_s: Any, v: Any, s: float) -> Any:
    """Go the way s against the velocity."""
    return x_s - s * v


look_image = "the two formulas of “A line from noise to data”: put both into x_s - s v."


def check_direction(attempt: Any) -> Verdict:
    """Mark the letter: how to ask a network of the papers' direction, at our s = 0.8."""
    replies = {
        "a": "At its 0.8 hardly any noise is left. Time runs the other way there, too.",
        "b": "The time is right. But its velocity goes from noise to data: by our formula one "
        "would walk away from the data.",
        "c": "The sign is right. But its 0.8 is nearly clean, and ours nearly noise.",
    }
    message = (
        "Both turn together: time 1 - s, and minus the velocity. One of them alone is the mistake "
        "that people ask about most."
    )
    return mark_choice(attempt, right="d", message=message, replies=replies)


solution_direction = "d"


def check_straight(attempt: Any) -> Verdict:
    """Mark the letter of what is straight in flow matching, without anything else."""
    replies = {
        "b": "The walks follow the mean of all lines that pass, and that turns where another heap "
        "comes to weigh more.",
        "c": "Wherever lines of several pairs pass, their mean turns. In the first picture nearly "
        "every walk bends.",
        "d": "A network that is exact learns the mean velocity exactly, and its walks bend as "
        "those of the closed form do.",
    }
    message = (
        "Each pair has its line. What is learnt is their mean, and only where no lines cross is "
        "that straight, too: paired well, or after reflow."
    )
    return mark_choice(attempt, right="a", message=message, replies=replies)


solution_straight = "a"


def check_labels(attempt: Any) -> Verdict:
    """Mark the letter: what goes wrong with pairs from optimal transport across classes?"""
    replies = {
        "a": "The lines are no worse: they are short and seldom cross. But what does the noise "
        "say now?",
        "b": "It is harder for nobody: a batch is paired in a millisecond either way.",
        "d": "The label is told to the network all the same. What it never meets is that label "
        "together with noise of another region.",
    }
    message = (
        "While drawing, a class meets noise from everywhere, and the network has seen it with "
        "noise of its own region alone. Pair within each class."
    )
    return mark_choice(attempt, right="c", message=message, replies=replies)


solution_labels = "c"


def check_cost(attempt: Any) -> Verdict:
    """Mark how often a network is asked to make 10,000 pairs for reflow in 20 steps of Heun."""
    hints = [
        (200_000, "Heun asks twice a step: here and there."),
        (20_000, "That is twice for each pair. There are 20 steps on the way of each."),
        (10_000, "Once for each pair would be a single step of Euler's. Here it is 20 steps of "
         "Heun's."),
        (40, "That is for one pair. There are 10,000."),
        (20, "So many steps has one pair; Heun asks twice in each, and there are 10,000 pairs."),
        (390_000, "In chapter 09 Heun's last step asks once, as σ = 0 has no slope. On the "
         "straight path the velocity is known at s = 0 as well."),
        (800_000, "Twice too many: one walk makes a pair, its noise is there already."),
        (600_000, "Heun asks twice a step, not three times."),
        (500, "Steps are to be multiplied with pairs."),
        (4_000_000, "One zero too many: 10,000 times 20 is 200,000."),
        (100_000, "Heun asks twice in a step, not once in two."),
    ]  # fmt: skip
    right = (
        "As often as 3,125 training steps with 128 images: reflow buys cheap walks with an "
        "expensive data set."
    )
    return mark(attempt, 400_000, hints, right, tolerance=1e-9)


solution_cost = 400_000
steps_cost = "pairs, times steps of each, times how often a step of Heun asks."
