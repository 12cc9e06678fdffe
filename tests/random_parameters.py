"""Parameter objects at random: of values that can be, and of anything at all."""

from __future__ import annotations

import math
import random

import numpy as np

from diffusion_walkthrough.parameters import (
    LOSS_NAMES,
    PRECISION_NAMES,
    PREDICTION_NAMES,
    SCHEDULE_NAMES,
    VARIANCE_NAMES,
    DiffusionParameters,
    ScheduleParameters,
    TrainingParameters,
    UNetParameters,
)

#: What people and damaged files put in the place of a value.
ANYTHING = [
    *(None, True, False, "", "1", "1000", "linear", "Cosine", "none", b"x", object(), {}, {"a": 1}),
    *(-1, 0, 1, 2, 7, 2**31, 10**18, 10**400, -(10**18), 2.5, 1.0, 0.0, -0.5, 1e-300, 1e39, 1e-12),
    *(math.nan, math.inf, -math.inf, 1j, [], (), [0], [1, 2], (2.0,), ["1"], [None], [1] * 10_000),
    *(np.int64(4), np.float32(0.5), np.array(3), np.array([1, 2]), np.bool_(True), np.nan),
]


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def schedule_values(rng: random.Random) -> dict[str, object]:
    start = log_uniform(rng, 1e-7, 0.5)
    return {
        "name": rng.choice(SCHEDULE_NAMES),
        "timesteps": round(log_uniform(rng, 1, 3000)),
        "beta_start": start,
        "beta_end": min(start * log_uniform(rng, 0.9, 1e4), 0.9999),
        "scaled": rng.random() < 0.7,
    }


def unet_values(rng: random.Random, most: int = 4) -> dict[str, object]:
    levels = rng.randint(1, most)
    side = rng.randint(1, 4) * 2 ** rng.randint(max(levels - 2, 0), levels)
    sides = [side // 2**i for i in range(levels)]
    groups = rng.choice([1, 2, 3, 4])
    return {
        "image_size": side,
        "channels": rng.randint(1, 4),
        "base_width": rng.randint(1, 4) * rng.choice([groups, 2 * groups]),
        "width_multipliers": [rng.randint(1, 3) for _ in range(levels)],
        "residual_blocks": rng.randint(1, 2),
        "attention_sizes": rng.sample(sides, rng.randint(0, levels)),
        "dropout": rng.choice([0.0, 0.0, 0.1, 0.99]),
        "groups": groups,
        "labels": rng.choice([(), (), {"class": 3}, [["hat", 2], ["glasses", 4]]]),
    }


def training_values(rng: random.Random) -> dict[str, object]:
    warmup, parts = rng.choice([0, 1, 5000]), rng.choice([1, 1, 2])
    return {
        "learning_rate": log_uniform(rng, 1e-9, 10),
        "warmup_steps": warmup,
        "decay_steps": rng.choice([None, warmup + 1, 10_000]),
        "batch_size": rng.choice([1, 2, 3, 128]),
        "gradient_clip": rng.choice([None, log_uniform(rng, 1e-9, 1e9)]),
        "ema_momentum": rng.choice([None, 0.9999, rng.random() or 0.5]),
        "horizontal_flip": rng.random() < 0.5,
        "precision": rng.choice(PRECISION_NAMES),
        "gradient_accumulation_steps": parts,
    }


def choices(rng: random.Random) -> dict[str, object]:
    return {
        "prediction": rng.choice(PREDICTION_NAMES),
        "variance": rng.choice(VARIANCE_NAMES),
        "loss": rng.choice(LOSS_NAMES),
        "pixel_levels": rng.choice([2, 17, 256]),
    }


def random_parameters(rng: random.Random, most_levels: int = 4) -> DiffusionParameters:
    """Make an object, or raise what it raises: now and then a value is anything at all."""
    share = rng.choice([0.0, 0.0, 0.02, 0.3])

    def spoilt(values: dict[str, object]) -> dict[str, object]:
        return {
            name: rng.choice(ANYTHING) if rng.random() < share else value
            for name, value in values.items()
        }

    parts = {
        "schedule": ScheduleParameters(**spoilt(schedule_values(rng))),
        "unet": UNetParameters(**spoilt(unet_values(rng, most_levels))),
        "training": TrainingParameters(**spoilt(training_values(rng))),
    }
    return DiffusionParameters(**spoilt(parts | choices(rng)))
