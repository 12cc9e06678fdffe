"""The checks of single values, and what they say."""

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from diffusion_walkthrough import checks

KNOWN = ("digits", "mnist", "fashion_mnist", "cifar10", "T4")


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10**7,
        ["a" * 10**6] * 1000,
        {"b" * 10**6: 1},
        10**5000,
        Unprintable(),
        [[[[[[1]]]]]] * 9,
    ],
    ids=["text", "texts", "key", "number", "unprintable", "nested"],
)
def test_any_value_is_shown_in_few_letters(value):
    assert 0 < len(checks.shown(value)) <= 80


@pytest.mark.parametrize(
    "value", [None, 3, b"run", ["run"], "", "a\0b", "x" * 256, "a/" + "ü" * 200, "x/" * 3000]
)
def test_what_can_be_no_path_is_refused(value):
    with pytest.raises((TypeError, ValueError), match="folder must be a path, as text") as caught:
        checks.path("folder", value)
    assert len(str(caught.value)) < 300


def test_a_path_may_be_long_and_begin_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checks.path("folder", "~/run") == tmp_path / "run"
    assert checks.path("folder", Path("ü" * 127 + "/" + "x" * 255)).name == "x" * 255


def test_what_is_masked_is_refused_and_an_empty_mask_is_not():
    values = np.ma.masked_greater(np.arange(4.0), 2)
    for masked in (values, [values, values], [1, np.ma.masked]):
        with pytest.raises(ValueError, match=r"betas are masked.*with betas\.filled\(…\)"):
            checks.unmasked("betas", masked)
    for whole in (values.filled(0), np.ma.masked_greater(values, 9)[:3], [1, 2], None):
        checks.unmasked("betas", whole)


def test_short_values_are_shown_as_they_are():
    for value in ("linear", 3, -1.5, None, True, (1, 2), [1, "b"], {"a": 1}, math.nan):
        assert checks.shown(value) == repr(value)


def test_a_list_that_holds_itself_is_shown():
    circle = []
    circle.append(circle)
    assert checks.shown([circle, circle]).startswith("[[[")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("digit", "digits"),
        ("Digits", "digits"),
        ("t4", "T4"),
        ("mnits", "mnist"),
        ("fashion", "fashion_mnist"),
        ("cifar", "cifar10"),
        ("zzz", None),
        ("", None),
        (3, None),
        (("digits",), None),
        ("mnist" * 10**6, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_nearest_name_is_found_or_none(word, near):
    guess = checks.did_you_mean(word, KNOWN, "Choose.")
    assert guess == (f"Did you mean {near!r}?" if near else "Choose.")


@pytest.mark.parametrize("value", [5, np.int64(5), np.uint8(5)])
def test_whole_numbers_of_any_kind_become_plain_ones(value):
    assert type(checks.integer("n", value, 1)) is int


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "1000",
            r"n='1000': n must be a whole number of at least 1\. Write n=1000, without quotes\.",
        ),
        (" -3 ", "Write n=-3, without quotes"),
        ("1e3", "Give an int"),
        ("9" * 100, "Give an int"),
        ("٣", "Give an int"),
        (1000.0, r"n=1000.0: .* Write n=1000\."),
        (2.5, "Give an int"),
        (math.inf, "Give an int"),
        (True, "Give an int"),
        (None, "Give an int"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_whole_number_is_answered_with_how_to_write_it(value, said):
    with pytest.raises(TypeError, match=said):
        checks.integer("n", value, 1)


def test_a_number_that_is_too_small_or_large_is_answered_with_one_that_fits():
    with pytest.raises(ValueError, match=r"n=0: .*at least 2\. Use 2 or more\."):
        checks.integer("n", 0, 2)
    with pytest.raises(ValueError, match=r"n=10+\.*: .*at most 9\. Use 9 or less\."):
        checks.integer("n", 10**40, 2, 9)
    assert checks.integer("n", 9, 2, 9) == 9


def test_a_seed_is_what_keras_and_numpy_take():
    for value in (0, 7, 2**32 - 1, np.int64(5)):
        assert type(checks.seed("seed", value)) is int
    assert checks.seed("seed", None) is None
    for value in (-1, 2**32, True, 1.0, "1"):
        with pytest.raises((TypeError, ValueError), match="seed must be a whole number"):
            checks.seed("seed", value)


def test_whole_numbers_in_a_range():
    assert checks.within("n", None, 1, 7) == 7
    assert type(checks.within("n", np.int32(3), 1, 7)) is int
    for wrong in (0, 8, 2.0, "3", True):
        with pytest.raises(ValueError, match=f"n = {wrong!r} must be a whole number in 1 … 7"):
            checks.within("n", wrong, 1, 7)


def positive(value):
    return checks.real("x", value, "above 0", lambda v: v > 0)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), Fraction(1, 2), 3e38, 1e-300])
def test_numbers_of_any_kind_become_floats(value):
    assert type(positive(value)) is float
    assert positive(value) == float(value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, 10**400, 1e39, 4e38])
def test_numbers_that_are_not_finite_in_float32_or_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"x must be a finite number above 0"):
        positive(value)


@pytest.mark.parametrize("value", ["0.5", True, None, 1j, [1.0]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="Give a float, without quotes"):
        positive(value)


def test_the_largest_number_of_float32_is_numpys():
    assert float(np.finfo(np.float32).max) == checks.LARGEST


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((64, 128), r"images must be square.*image_size=64; load_images\(…, image_size=64\) cuts"),
        ([32, 32], "Write image_size=32"),
        ((None, "a"), "images must be square"),
        ((), "Give an int"),
        ("64", "Write image_size=64, without quotes"),
    ],
    ids=str,
)
def test_images_that_are_not_square_are_answered_with_how_to_get_squares(value, said):
    with pytest.raises(TypeError, match=said):
        checks.side("image_size", value)
    assert checks.side("image_size", 64) == 64


def test_names_flags_and_tuples():
    assert checks.choice("name", "digits", KNOWN) == "digits"
    with pytest.raises(ValueError, match=r"name='digit': .*Did you mean 'digits'\?$"):
        checks.choice("name", "digit", KNOWN)
    with pytest.raises(ValueError, match=r"Choose for example 'digits'\.$"):
        checks.choice("name", "zzz", KNOWN)
    with pytest.raises(TypeError, match="as text"):
        checks.choice("name", 3, KNOWN)
    assert checks.flag("on", True) is True
    with pytest.raises(TypeError, match="True or False, without quotes"):
        checks.flag("on", "True")
    assert checks.integers("sizes", [np.int32(4), 2]) == (4, 2)
    assert checks.descending("sizes", [2, 4, 2]) == (4, 2)
    with pytest.raises(TypeError, match=r"Write sizes=\(16,\)"):
        checks.integers("sizes", 16)
    with pytest.raises(TypeError, match=r"Write sizes=\(1, 2\)"):
        checks.integers("sizes", "12")
    with pytest.raises(ValueError, match=r"sizes\[1\]=0"):
        checks.integers("sizes", (1, 0))
    with pytest.raises(ValueError, match=r"sizes\[1\]=5: .*at most 4"):
        checks.integers("sizes", (1, 5), 4)
    with pytest.raises(ValueError, match="sizes must have at most 3 numbers, and there are 5000"):
        checks.descending("sizes", [1] * 5000, 4, 3)


# In the language of a JSON file -------------------------------------------------------------------


IN_JSON = [
    (lambda: checks.integer("n", "5", 1), r'^"n": "5": .*Write "n": 5, without quotes\.$'),
    (lambda: checks.integer("n", 5.0, 1), r'^"n": 5\.0: .*Write "n": 5\.$'),
    (lambda: checks.integer("n", None, 1), r'^"n": null: .*Give a whole number, such as 1\.$'),
    (lambda: checks.integer("n", True, 1), r'^"n": true: '),
    (lambda: checks.real("x", "0.5", "above 0", bool), r"Give a number, without quotes\.$"),
    (lambda: checks.flag("on", "True"), r'"on": "True": on must be true or false\. Write true or'),
    (lambda: checks.choice("name", "digit", KNOWN), r'one of "digits", .*Did you mean "digits"\?'),
    (lambda: checks.integers("sizes", 4), r'must be a list of .*Write "sizes": \[4\]\.$'),
    (lambda: checks.integers("sizes", [4, "a"]), r'^sizes\[1\]: "a": '),
    (lambda: checks.side("size", [8, 9]), r'^"size": \[8, 9\]: .*Write "size": 8; '),
    (lambda: checks.keys("It", [1], KNOWN), r"needs \{…\} with the keys .* got \[1\]"),
    (
        lambda: checks.keys("It", {"digit": 1}, KNOWN),
        r'no parameter "digit"\. Did you mean "digits"',
    ),
    (lambda: checks.keys("It", {}, ["a"]), r'It lacks "a"\. Add it there'),
]


@pytest.mark.parametrize(("check", "said"), IN_JSON)
def test_what_is_read_from_json_is_answered_in_json(check, said):
    with pytest.raises((TypeError, ValueError), match=said), checks.speaking_json():
        check()
    with pytest.raises((TypeError, ValueError)) as caught:
        check()
    for word in ("true", "null", '": '):
        assert word not in str(caught.value)


def test_in_json_too_any_value_is_shown_in_few_letters():
    with checks.speaking_json():
        for value in ("a" * 10**6, Unprintable(), {1: {2}}, 10**5000):
            assert 0 < len(checks.shown(value)) <= 80


def test_keys_are_all_there_and_no_others():
    checks.keys("It", {"a": 1, "b": 2}, ["a", "b"])
    with pytest.raises(ValueError, match=r"It lacks 'b'\. Add it"):
        checks.keys("It", {"a": 1}, ["a", "b"])
    with pytest.raises(ValueError, match=r"no parameter 'digit'\. Did you mean 'digits'\?"):
        checks.keys("It", {"digit": 1}, KNOWN)
    with pytest.raises(ValueError, match=r"no parameter 'zzz'\. The parameters are digits, mnist"):
        checks.keys("It", {"zzz": 1}, KNOWN)
    with pytest.raises(TypeError, match="needs a dictionary"):
        checks.keys("It", ["a"], ["a"])


def test_a_key_of_very_many_letters_is_refused_in_few():
    with pytest.raises(ValueError, match="has no parameter") as caught:
        checks.keys("It", {"a" * 10**7: 1}, KNOWN)
    assert len(str(caught.value)) < 200


def test_importing_the_checks_loads_only_the_standard_library():
    code = (
        "import sys, diffusion_walkthrough.checks\n"
        "print([m for m in ('numpy', 'keras', 'tensorflow', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
