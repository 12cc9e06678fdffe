import ipywidgets
import numpy as np
import pytest

from diffusion_walkthrough.classroom import predict as module
from diffusion_walkthrough.classroom.predict import in_words, predict, to_number

BECAUSE = "Each step adds 0.02 and takes nothing away."


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "show_widget", lambda *arguments: calls.append(arguments))
    return calls


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch):
    monkeypatch.setattr(module, "_asked", {})


def choose():
    return predict("What is the variance in the end?", "about 1", "about 21", "over 1,000")


def number():
    return predict("How many steps?")


def replied(guess):
    begin, end = '<div role="status">', "</div>"
    assert guess.reply.value.startswith(begin)
    assert guess.reply.value.endswith(end)
    return guess.reply.value[len(begin) : -len(end)]


# Nothing was entered: what the page says.


def test_without_a_guess_the_answer_stands_below_the_experiment(capsys):
    guess = choose()
    assert guess.value is None
    assert guess.entry.value is None
    guess.reveal("about 21", BECAUSE)
    assert capsys.readouterr().out == f"It is: about 21. {BECAUSE}\n"


def test_nothing_of_the_answer_is_on_the_page_before_the_experiment(shown):
    guess = choose()
    ((widget, text),) = shown
    assert widget is guess
    assert text == repr(guess)
    assert text == (
        "Predict. What is the variance in the end?\n"
        "  ○ about 1\n  ○ about 21\n  ○ over 1,000\nRun this cell to choose."
    )
    assert repr(number()) == "Predict. How many steps?\nRun this cell to write down a number."


# A choice.


def test_a_choice_is_noted_before_and_compared_after_the_experiment(capsys):
    guess = choose()
    guess.entry.value = "over 1,000"
    assert replied(guess) == "Noted: over 1,000. Now run the next cell."
    guess.reveal("about 21", BECAUSE)
    said = f"You said over 1,000; it is: about 21. {BECAUSE}"
    assert capsys.readouterr().out == said + "\n"
    assert replied(guess) == said


def test_the_right_choice_is_told_so(capsys):
    guess = choose()
    guess.entry.value = "about 21"
    guess.reveal("about 21", BECAUSE)
    assert capsys.readouterr().out == f"You said about 21, and so it is. {BECAUSE}\n"


def test_a_choice_made_after_the_experiment_changes_the_reply_below_the_question(capsys):
    guess = choose()
    guess.reveal("about 21", BECAUSE)
    capsys.readouterr()
    guess.entry.set_state({"index": 0})  # as the browser sends it
    assert replied(guess) == f"You said about 1; it is: about 21. {BECAUSE}"
    guess.entry.set_state({"index": 1})
    assert replied(guess) == f"You said about 21, and so it is. {BECAUSE}"
    assert capsys.readouterr().out == ""


def test_a_cell_run_again_asks_anew(capsys):
    guess = choose()
    guess.entry.value = "about 1"
    guess.reveal("about 21", BECAUSE)
    guess = choose()
    assert (guess.value, guess.answer, guess.reply.value) == (None, None, "")
    capsys.readouterr()
    guess.reveal("about 21", BECAUSE)
    assert capsys.readouterr().out.startswith("It is: about 21.")


def test_what_was_entered_stays_when_the_question_is_asked_again_before_its_answer(capsys):
    """After a click on a choice, Shift+Enter runs the cell with the question."""
    for ask, entered in ((choose, "about 1"), (number, "20")):
        guess = ask()
        guess.entry.value = entered
        again = ask()
        assert again is not guess
        assert again.entry.value == entered
        assert replied(again).startswith("Noted")
        again.reveal(entered if ask is choose else 20, "")
        assert capsys.readouterr().out.startswith(f"You said {entered}, and so it is.")
        assert not ask().entry.value
    assert predict("Another?", "about 1", "about 21", "over 1,000").value is None


def test_an_experiment_run_again_gives_its_new_answer(capsys):
    guess = number()
    guess.entry.value = "5"
    guess.reveal(5, "")
    guess.reveal(7, "")
    assert "it is: 7." in capsys.readouterr().out.splitlines()[-1]
    assert "it is: 7." in replied(guess)


def test_a_choice_that_is_a_sentence_keeps_one_full_stop(capsys):
    guess = predict("What happens?", "It grows.", "It shrinks.")
    guess.entry.value = "It grows."
    guess.reveal("It shrinks.", "So.")
    assert capsys.readouterr().out == "You said It grows; it is: It shrinks. So.\n"


@pytest.mark.parametrize("answer", ["about 22", "", None, 21])
def test_an_answer_that_is_no_choice_is_refused_and_changes_nothing(answer):
    guess = choose()
    with pytest.raises(ValueError, match="not among the choices") as error:
        guess.reveal(answer, BECAUSE)
    assert "about 1, about 21, over 1,000" in str(error.value)
    assert "What is the variance" in str(error.value)
    assert guess.answer is None
    assert guess.reply.value == ""


@pytest.mark.parametrize("choices", [["one"], ["one", "two", "one"]])
def test_choices_that_leave_no_choice_are_refused(choices, shown):
    with pytest.raises(ValueError, match="at least two, all different"):
        predict("Which?", *choices)
    assert shown == []


# A number.


@pytest.mark.parametrize(
    ("entered", "meant"),
    [
        ("20", 20), (" 20 ", 20), ("20 %", 20), ("20%", 20), ("+20", 20), ("-3", -3), ("−3", -3),
        ("≈ 20", 20), ("~20", 20), ("0.5", 0.5), (".5", 0.5), ("0,5", 0.5), (",5", 0.5),
        ("0,125", 0.125), ("12,5", 12.5), ("1234,5", 1234.5), ("1.234", 1.234), ("1e-4", 1e-4),
        ("1,000", 1000), ("-1,000", -1000), ("12,345", 12345), ("1,234,567.5", 1234567.5),
        ("1.234,5", 1234.5), ("1.234.567", 1234567), ("1.234.567,5", 1234567.5), ("1 000", 1000),
        ("1\N{NO-BREAK SPACE}000,5", 1000.5), ("1_000", 1000), ("1'000.5", 1000.5),
        ("1’000", 1000), ("0", 0), ("0,0", 0),
    ],
)  # fmt: skip
def test_a_number_in_english_or_german_notation(entered, meant):
    assert to_number(entered) == meant
    guess = number()
    guess.entry.value = entered
    assert guess.value == meant
    assert replied(guess) == f"Noted: {in_words(to_number(entered))}. Now run the next cell."


@pytest.mark.parametrize(
    "entered",
    ["many", "nan", "NaN", "inf", "-inf", "1e999", "1,2,3", "1.2.3", "1,000.5.5", "1.5,3.2", "-",
     "%", " ", "½x", "1/2"],
)  # fmt: skip
def test_what_is_no_number_is_named_before_and_after(entered, capsys):
    assert to_number(entered) is None
    guess = number()
    guess.entry.value = entered
    assert guess.value is None
    expected = f"{entered!r} is not a number. Write one, such as 0.5 or 20."
    assert replied(guess) == expected
    guess.reveal(3, "So.")
    assert capsys.readouterr().out == "It is: 3. So.\n"
    assert replied(guess) == expected


@pytest.mark.parametrize(
    ("entered", "answer", "said"),
    [
        ("21", 21, "You said 21, and so it is."),
        ("21,0", 21.04, "You said 21, and so it is."),
        ("20", 21.04, "You said 20, which is close: it is 21."),
        ("-20", -21.04, "You said -20, which is close: it is -21."),
        ("18", 21.04, "You said 18; it is: 21."),
        ("-21", 21.04, "You said -21; it is: 21."),
        ("0", 1e-3, "You said 0; it is: 0.001."),
        ("0", 0, "You said 0, and so it is."),
        ("1", 0, "You said 1; it is: 0."),
        ("12,345", 12345, "You said 12,345, and so it is."),
        ("12,346", 12345, "You said 12,346, which is close: it is 12,345."),
    ],
)
def test_a_number_is_compared_with_the_answer(entered, answer, said, capsys):
    guess = number()
    guess.entry.value = entered
    guess.reveal(answer, BECAUSE)
    assert capsys.readouterr().out == f"{said} {BECAUSE}\n"
    assert replied(guess) == f"{said} {BECAUSE}"


def test_a_number_erased_is_no_guess(capsys):
    guess = number()
    guess.entry.value = "5"
    guess.entry.value = ""
    assert guess.value is None
    assert replied(guess) == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (21.0449, "21"), (0.98765, "0.988"), (35_746_307, "35,746,307"), (12345.6, "12,300"),
        (np.int64(1200), "1,200"), (np.float32(0.1), "0.1"), (-0.0, "0"), (1e-7, "1e-07"),
        (999.9, "1,000"), (np.float64(1e6), "1,000,000"), (np.array(2.5), "2.5"),
    ],
)  # fmt: skip
def test_the_answer_is_said_in_three_digits_or_as_a_whole_number(answer, said, capsys):
    number().reveal(answer, "")
    assert capsys.readouterr().out == f"It is: {said}.\n"


@pytest.mark.parametrize("answer", [float("nan"), np.float32("nan"), float("inf"), "21"])
def test_an_answer_that_is_no_finite_number_is_refused(answer):
    guess = number()
    with pytest.raises(ValueError, match="no finite number"):
        guess.reveal(answer, BECAUSE)
    assert guess.answer is None


# The page.


def test_text_from_outside_is_text_and_not_html(capsys):
    guess = predict("Is a < b & <i>c</i>?", "<b>yes</b>", "no")
    asked = guess.children[0].value
    assert "a &lt; b &amp; &lt;i&gt;c&lt;/i&gt;?" in asked
    guess.entry.value = "<b>yes</b>"
    assert "&lt;b&gt;yes&lt;/b&gt;" in replied(guess)
    guess.reveal("no", "1 < 2")
    assert "<b>" not in replied(guess)
    assert "1 &lt; 2" in replied(guess)
    assert capsys.readouterr().out == "You said <b>yes</b>; it is: no. 1 < 2\n"


def test_the_place_for_a_number_waits_for_the_whole_number():
    entry = number().entry
    assert isinstance(entry, ipywidgets.Text)
    assert not entry.continuous_update
