"""What the folders of models and of runs hold, and where a run has saved its model.

Known without TensorFlow, so that a command line can look before it is imported.
"""

from __future__ import annotations

from pathlib import Path

from diffusion_walkthrough.files import writing

#: Where a run keeps what it goes on from. JupyterLab cannot open a folder named "checkpoints", as
#: version 0.1 named it: in its addresses that word has a meaning of its own.
RESUME, RESUME_BEFORE = "resume", "checkpoints"
MODEL = "model"

#: What a checkpoint is named, in the folder that a run goes on from.
CHECKPOINTS = "checkpoint-*.npz"

#: The parameters of a saved model, as JSON or as a pickle.
PARAMETERS_FILES = ("parameters.json", "parameters.pkl")


def resume_folder(folder: Path) -> Path:
    """Where the checkpoints of a run are, or will be."""
    before = folder / RESUME_BEFORE
    return before if before.is_dir() else folder / RESUME


def has_begun(folder: Path) -> bool:
    """Whether a folder is that of a run, and none that somebody else named like one of its parts.

    From its first moment on, a run has a lock or a checkpoint where it goes on from.
    """
    names = (".lock", f"{CHECKPOINTS}*")
    return any(next(resume_folder(folder).glob(name), None) for name in names)


def model_of_run(folder: Path, named: str) -> Path | None:
    """Where the newest model of a run is; None for a folder that is not the folder of a run.

    Raises FileNotFoundError, which begins with what the folder was ``named``, for a run that has
    saved none yet.
    """
    place = folder / MODEL
    if not place.exists() and writing.earlier_folder(place):
        writing.tidy(folder)  # the run was killed while replacing it, or is about to
        return place
    if place.is_dir():
        return place
    if has_begun(folder):
        raise FileNotFoundError(
            f"{named}: this run has saved no model yet, which it does when it draws a picture, and "
            "at its end. Run the line that began it again: it goes on."
        )
    return None
