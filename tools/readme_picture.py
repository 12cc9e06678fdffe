"""Draw the picture at the top of the README with the model of faces that ships.

python tools/readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_walkthrough.backward_sampling import p_sample_loop_progressive
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.classroom import plots

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "from_noise_to_faces.png"


def journeys(count: int = 7, stops: int = 12) -> np.ndarray:
    """Draw some faces, one row each, from noise on the left to the face on the right.

    The pictures are evenly apart in √t: with this schedule that is how strong the noise is.
    """
    model = load_model("faces")
    shape = (count, *model.diffusion_parameters.unet.image_shape)
    walk = p_sample_loop_progressive(model.denoise, model.schedule, shape, seed=3)
    pictures = np.stack([np.asarray(stop.x) for stop in walk])  # t from T-1 down to -1
    left = np.linspace(1, 0, stops) ** 2 * (len(pictures) - 1)
    chosen = pictures[len(pictures) - 1 - np.round(left).astype(int)]
    by_row = np.swapaxes(chosen, 0, 1).reshape(-1, *shape[1:])
    return plots.tile(np.clip(by_row, -1, 1), columns=stops, scale=4, gap=4)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(plots.to_png(journeys()))
    print(f"wrote {PICTURE.name}")
