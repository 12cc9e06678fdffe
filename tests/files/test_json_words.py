"""Errors about JSON say where and what, in the language of JSON."""

import json

import pytest

from diffusion_walkthrough.files.json_words import syntax_error
from diffusion_walkthrough.files.plain_data import decode_json
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters

SLIPS = [
    ('{"a": 1, }', (1,), "the comma before the closing bracket"),
    ('{\n  "a": [1, 2, ],\n  "b": 2}', (2,), "the comma before the closing bracket"),
    ('{"a": True}', (1, 7), "'True}': write true"),
    ('{"a": [False]}', (1, 8), "write false"),
    ('{\n"a":\nNone}', (3, 1), "write null"),
    ("{'a': 1}", (1, 2), "double quotes"),
    ("{\"a\": 'b'}", (1, 7), "double quotes"),
    ("{a: 1}", (1, 2), "double quotes"),
    ('{"a": linear}', (1, 7), "double quotes"),
    ("{“a”: 1}", (1, 2), "straight ones"),
    ('{"a": (1, 2)}', (1, 7), "square brackets"),
    ('{"a": 1, # one\n"b": 2}', (1, 10), "no comments"),
    ('{"a": 1, // one\n"b": 2}', (1, 10), "no comments"),
    ('{"a": 1\n"b": 2}', (2, 1), "a comma is missing"),
    ('{"a" 1}', (1, 6), "a colon is missing"),
    ('{"a"= 1}', (1, 5), "a colon is missing"),
    ('{"a": 0,5}', (1, 9), "a point, and no comma"),
    ('{"a": .5}', (1, 7), "0.5 or 1.0"),
    ('{"a": 1.}', (1, 8), "0.5 or 1.0"),
    ('{"a": +1}', (1, 7), "no plus"),
    ('{"a": 1_000}', (1, 8), "no underscores"),
    ('{"a": 010}', (1, 8), "not 0"),
    ('{"a": }', (1, 7), "a value is missing"),
    ('{"a": [1,,2]}', (1, 10), "a value is missing"),
    ('{"a": [1, 2}', (1, 12), "this bracket does not close"),
    ('{"a": [1, 2', (1, 12), "the end is missing"),
    ("", (1, 1), "there is nothing in it"),
    (" \n ", (2, 2), "there is nothing in it"),
    ('{"a": "b}', (1, 7), "not closed"),
    ('{"a": "b\nc"}', (1, 9), "end of its line"),
    ('{"a": "C:\\data"}', (1, 10), "backslash"),
    ('{"a": 1} {"b": 2}', (1, 10), "behind the end"),
    ('{"a": 1}}', (1, 9), "behind the end"),
    ('{\n\u00a0 "a": 1}', (2, 1), "at '\"a\": 1}': a character (U+00A0) looks like a space"),
    ('{"a":\u3000\u200b1}', (1, 6), "at '1}': a character (U+3000) looks like a space"),
    ('{"a"\u202f: 1}', (1, 5), "(U+202F)"),
    ('{"a": [1\u200b, 2]}', (1, 9), "(U+200B)"),
    ('{"a": 1}\u00a0', (1, 9), "column 9: a character (U+00A0)"),
    ('\ufeff\ufeff{"a": 1}', (1, 1), "(U+FEFF) looks like a space, and is none. Replace it by"),
    ('{"a": “b”}', (1, 7), "straight ones"),
]


@pytest.mark.parametrize(("text", "place", "slip"), SLIPS, ids=[text for text, _, _ in SLIPS])
def test_a_slip_is_named_with_line_and_column(text, place, slip):
    with pytest.raises(ValueError, match="it is not valid JSON: line ") as caught:
        decode_json(text.encode())
    said = str(caught.value)
    assert slip in said
    words = ("line", "column")
    assert all(f"{word} {number}" in said for word, number in zip(words, place, strict=False))
    assert said.endswith(".")


def test_what_is_unknown_is_said_in_python_s_words():
    error = json.JSONDecodeError("Something new", "abc", 1)
    assert syntax_error("abc", error) == "line 1, column 2, at 'bc': Something new. Correct it"


@pytest.mark.parametrize(
    ("section", "name", "text", "said"),
    [
        ("unet", "attention_sizes", "4", 'Write "attention_sizes": [4]'),
        ("unet", "image_size", "[64, 128]", 'Write "image_size": 64'),
        ("schedule", "timesteps", '"1000"', 'Write "timesteps": 1000, without quotes'),
        ("training", "horizontal_flip", '"true"', "must be true or false"),
        ("training", "learning_rate", "null", '"learning_rate": null'),
        ("schedule", "name", '"lineer"', 'Did you mean "linear"?'),
    ],
)
def test_errors_about_parameters_speak_the_language_of_the_file(
    tmp_path, section, name, text, said
):
    values = DiffusionParameters.digits().to_dict()
    values[section][name] = json.loads(text)
    content = {"format": "diffusion_walkthrough.parameters", "version": 3, "parameters": values}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises((ValueError, TypeError)) as caught:
        load_parameters(tmp_path / "a.json")
    assert said in str(caught.value)
    with pytest.raises((ValueError, TypeError), match=f"{name}="):
        DiffusionParameters.from_dict(values)
