"""A bar in a terminal, plain lines elsewhere, and none of them too often."""

import io
import sys

import pytest
from PIL import Image
from pocket import compiled, digits

from diffusion_walkthrough.command_line import watching
from diffusion_walkthrough.command_line.watching import Lines, counter, duration, progress
from diffusion_walkthrough.engine.callbacks import RunProgress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("encoding", "terminal", "bars"),
    [("utf-8", True, True), ("UTF8", True, True), ("ascii", True, False), ("utf-8", False, False)],
)
def test_a_bar_is_drawn_where_it_can_be_read(monkeypatch, encoding, terminal, bars):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    assert watching.shows_bars() is bars


def test_standard_output_may_be_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert watching.shows_bars() is False


def test_a_line_comes_now_and_then_and_says_what_is_left(capsys):
    now = [0.0]
    lines = Lines(100, clock=lambda: now[0])
    for done in range(41):  # each takes a second; twenty were done before this process began
        now[0] = float(done)
        lines.tell(20 + done, f"{20 + done} of 100")
    assert capsys.readouterr().out.splitlines() == [
        "30 of 100, about 70 s left",
        "40 of 100, about 60 s left",
        "50 of 100, about 50 s left",
        "60 of 100, about 40 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations_are_said_in_one_number(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(watching, "SECONDS_BETWEEN_LINES", 0.0)


@pytest.mark.usefixtures("impatient")
def test_images_are_counted_in_lines_without_signs(capsys):
    add = counter(5, "image", quiet=False)
    for more in (2, 2, 1):
        add(more)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("2 of 5 images", "5 of 5 images")


def test_who_wants_quiet_has_it(capsys):
    counter(5, "image", quiet=True)(5)
    assert progress(3, 100, quiet=True) == (0, [])
    assert capsys.readouterr().out == ""


def test_a_terminal_has_one_bar_for_short_epochs_and_one_each_for_long_ones(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    verbose, (bar,) = progress(3, 4, quiet=False)
    assert (verbose, type(bar)) == (0, RunProgress)
    assert progress(3, 21, quiet=False) == (1, [])
    counter(5, "image", quiet=False)(5)
    assert "5/5" in sys.stdout.getvalue()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("short", [20, 3])
def test_a_run_tells_its_epochs_and_the_steps_of_long_ones(monkeypatch, capsys, short):
    monkeypatch.setattr(watching, "SHORT_EPOCH", short)
    verbose, callbacks = progress(2, 4, quiet=False)
    told_to = {"verbose": verbose, "callbacks": callbacks}
    fitted = compiled().fit(digits(64), epochs=2, batch_size=16, **told_to)
    told = capsys.readouterr().out
    assert not set(told) & set("\r\b\x1b━")
    of_epochs = [line.partition(", about")[0] for line in told.splitlines() if "loss" in line]
    losses = fitted.history["loss"]
    assert of_epochs == [f"epoch {n} of 2, loss {loss:.4f}" for n, loss in enumerate(losses, 1)]
    assert ("epoch 2 of 2, step 3 of 4" in told) == (short == 3)


def test_a_log_has_the_first_epoch_and_the_last(capsys):
    verbose, callbacks = progress(4, 4, quiet=False)
    compiled().fit(digits(64), epochs=4, batch_size=16, verbose=verbose, callbacks=callbacks)
    told = [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["epoch 1 of 4", "epoch 4 of 4"]


def test_a_picture_holds_all_images_enlarged(tmp_path):
    watching.write_grid(tmp_path / "new" / "a.png", digits(3))
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert picture.size == (2 * 50 + 2, 2 * 50 + 2)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    assert watching.scale_of((256, 256, 3)) == 1
