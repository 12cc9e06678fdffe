"""What is said and written while a run goes on: progress, history, pictures.

In a terminal, progress is a bar. Elsewhere, in a log file for instance, it is a plain line now and
then: a bar would fill it with signs that only move a cursor.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_walkthrough.files.writing import write_whole

#: No more than one line in so many seconds.
SECONDS_BETWEEN_LINES = 10.0

#: An epoch of no more steps has no bar of its own: one for the whole run says more.
SHORT_EPOCH = 20


def shows_bars() -> bool:
    """Whether standard output is a terminal, and knows the signs that a bar is made of."""
    is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
    return is_terminal and "utf" in (getattr(sys.stdout, "encoding", "") or "").lower()


class Lines:
    """A line now and then that says how far something is, and how long it may still take."""

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at 0 of ``total``."""
        self.total, self._clock = total, clock
        self._start = self._latest = clock()
        self._done_at_start: float | None = None

    def tell(self, done: float, text: str, always: bool = False) -> None:
        """Print ``text`` if the last line is some seconds old, or if it is to be said always."""
        now = self._clock()
        if self._done_at_start is None:  # what an earlier process did is not this one's speed
            self._done_at_start, self._start = done, now
        if not always and now - self._latest < SECONDS_BETWEEN_LINES:
            return
        self._latest = now
        here = done - self._done_at_start
        left = (now - self._start) * (self.total - done) / here if here > 0 else 0.0
        print(text + (f", about {duration(left)} left" if left >= 1 else ""), flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def counter(total: int, what: str, quiet: bool) -> Callable[[int], None]:
    """A function that is told how many more are done, and shows it."""
    if quiet:
        return lambda more: None
    if shows_bars():
        import keras

        return keras.utils.Progbar(total, unit_name=what).add
    lines, done = Lines(total), 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        lines.tell(done, f"{done} of {total} {what}s")

    return add


def progress(epochs: int, steps: int, quiet: bool) -> tuple[int, list[Any]]:
    """Keras's ``verbose`` and the callbacks with which a ``fit`` shows how far it is."""
    if quiet:
        return 0, []
    if not shows_bars():
        return 0, [_lines(epochs, steps)]
    if steps > SHORT_EPOCH:
        return 1, []
    from diffusion_walkthrough.engine.callbacks import RunProgress

    return 0, [RunProgress()]


def _lines(epochs: int, steps: int) -> Any:
    """A callback that says how far a run is: its first epoch, its last, and now and then."""
    import keras

    lines, epoch = Lines(epochs), 0

    def begin(number: int, logs: Any = None) -> None:
        nonlocal epoch
        epoch = number

    def step(number: int, logs: dict[str, Any]) -> None:
        text = f"epoch {epoch + 1} of {epochs}, step {number + 1} of {steps}"
        lines.tell(epoch + (number + 1) / steps, text)

    def end(number: int, logs: dict[str, Any]) -> None:
        text = f"epoch {number + 1} of {epochs}, loss {logs['loss']:.4f}"
        lines.tell(number + 1, text, always=number in (0, epochs - 1))

    by_steps = {"on_train_batch_end": step} if steps > SHORT_EPOCH else {}
    return keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end, **by_steps)


def history_file(model: Any, path: Path) -> Any:
    """A callback that writes the history of all epochs, also those before an interruption."""
    import keras

    def write(epoch: int, logs: dict[str, float]) -> None:
        past = model.history  # of the epochs before this one
        columns = [[name, *past.history.get(name, []), value] for name, value in logs.items()]
        numbers = ["epoch", *(finished + 1 for finished in [*past.epoch, epoch])]
        text = io.StringIO()
        csv.writer(text).writerows(zip(numbers, *columns, strict=True))
        with _going_on_without():
            write_whole(path, text.getvalue().encode())

    return keras.callbacks.LambdaCallback(on_epoch_end=write)


def pictures(model: Any, folder: Path, save: Callable[[], Any], every: int) -> Any:
    """A callback that draws a few images now and then, and saves the model that drew them."""
    from diffusion_walkthrough.engine.callbacks import SampleHistory

    def show(epochs: int, images: np.ndarray) -> None:
        if not folder.parent.is_dir():  # moved away, as the next checkpoint will say
            return
        with _going_on_without():
            write_grid(folder / f"epoch-{epochs:06d}.png", images)
        if epochs:
            with _going_on_without():
                save()

    return SampleHistory(every=every, show=show)


@contextlib.contextmanager
def _going_on_without() -> Iterator[None]:
    """Warn of a file that could not be written on the way: the next time may go better."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{error} Training goes on without that.", stacklevel=3)


def scale_of(shape: tuple[int, ...]) -> int:
    """How many times a small image is enlarged in a picture."""
    return max(1, 48 // shape[0])


def write_grid(path: Path, images: np.ndarray) -> None:
    """Write images as one picture, small ones enlarged."""
    from diffusion_walkthrough.classroom.plots import tile, to_png

    columns = math.ceil(math.sqrt(len(images)))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = tile(images, columns=columns, scale=scale_of(images.shape[1:]))
    write_whole(path, to_png(grid))
