"""Draw the picture at the top of the README with the model that ships.

python tools/readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_walkthrough.backward_sampling import p_sample_loop_trajectory
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.classroom import plots

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "from_noise_to_digits.png"


def journeys(count: int = 8, stops: int = 14) -> np.ndarray:
    """Draw some digits, one row each, from noise on the left to the digit on the right."""
    model = load_model("digits")
    shape = (count, *model.diffusion_parameters.unet.image_shape)
    walk = p_sample_loop_trajectory(model.denoise, model.schedule, shape, stops=stops, seed=3)
    _, pictures = walk
    by_row = np.swapaxes(pictures, 0, 1).reshape(-1, *shape[1:])
    return plots.tile(by_row / 1.2, columns=stops, scale=6, gap=3)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(plots.to_png(journeys()))
    print(f"wrote {PICTURE.name}")
