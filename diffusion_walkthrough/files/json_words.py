"""Where a text breaks the rules of JSON, and by what slip, in words."""

from __future__ import annotations

import json
import re

from diffusion_walkthrough.checks import shown

# What was probably meant, by what stands around the place (¦) at which JSON's reader gave up.
_SLIPS = (
    (r",¦[\]}]|¦,\s*[\]}]", "the comma before the closing bracket is one too many. Remove it"),
    (r"¦'", 'names and texts stand in double quotes. Write "…"'),
    (r"¦[“”„‟«»‘’]", 'quotes must be straight ones. Write "…"'),
    (r"¦(True|TRUE)\b", "write true, in small letters"),
    (r"¦(False|FALSE)\b", "write false, in small letters"),
    (r"¦(None|NULL|Null|nil)\b", "write null, which is JSON's word for nothing"),
    (r"¦\(", "a list stands in square brackets. Write […]"),
    (r"¦(#|//|/\*)", "there are no comments in JSON. Remove it"),
    (r"\d,¦\d", "a decimal number has a point, and no comma. Write it like 0.5"),
    (r"\d¦\.|[^\d]¦\.\d", "a decimal number is written like 0.5 or 1.0, never .5 or 1."),
    (r"¦\+", "numbers have no plus sign. Remove it"),
    (r"\d¦_", "numbers hold no underscores. Remove them"),
    (r"0¦[\dxob]", "a whole number is written with decimal digits, the first of which is not 0"),
    (r":¦[,}\]]|[,\[{]¦,", "a value is missing before this. Write one"),
    (r"(?s)¦[\]}].*¦Expecting ','", "this bracket does not close the last one. Exchange it"),
    (r"^¦¦", "there is nothing in it. Get the file again, or write it anew"),
    (r"¦¦", "the end is missing. Close what was opened, or get the whole file again"),
)
# The same by what JSON's reader says, where the place tells nothing.
_RULES = {
    "Expecting ',' delimiter": "a comma is missing before this. Write one",
    "Expecting ':' delimiter": "a colon is missing before this. Write one",
    "Expecting property name enclosed in double quotes": 'names stand in double quotes. Write "…"',
    "Expecting value": 'texts stand in double quotes. Write "…"',
    "Unterminated string starting at": "the quotes that open here are not closed. Close them",
    "Invalid control character at": "a text may not go over the end of its line. Join the lines",
    "Invalid \\escape": "a backslash in a text is written twice. Write \\\\",
    "Extra data": "something stands behind the end. Remove it",
}


# What looks like a space, or like nothing, and is neither for JSON: it comes from a web page.
_UNSEEN = re.compile(r"(?:[^\S \t\r\n]|[\u00ad\u200b-\u200f\u2060\ufeff])+")
# A text or a number, as JSON's reader finds them one after the other.
_TEXT_OR_NUMBER = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*"|-?Infinity|NaN|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?', re.DOTALL
)


def syntax_error(text: str, error: json.JSONDecodeError) -> str:
    """Say where a text is no JSON, and by what slip, such as "line 3, column 14, at 'True': …"."""
    rest = text[error.pos : error.pos + 40]
    before = text[max(error.pos - 1000, 0) : error.pos].rstrip()
    around = f"{before[-2:]}¦{rest.rstrip()}¦{error.msg}"
    slips = (words for pattern, words in _SLIPS if re.search(pattern, around))
    words = next(slips, _RULES.get(error.msg, f"{error.msg}. Correct it"))
    if unseen := _UNSEEN.match(rest):
        code = f"U+{ord(rest[0]):04X}"
        words = f"a character ({code}) looks like a space, and is none. Replace it by a plain space"
        rest = rest[unseen.end() :]
    near = rest.splitlines()[0].strip()[:20] if rest else ""
    place = f"line {error.lineno}, column {error.colno}" + (f", at {shown(near)}" if near else "")
    return f"{place}: {words}"


def place_of_number(text: str, number: str) -> str:
    """Where a text of JSON first holds a number, such as "line 3, column 14"."""
    found = (part.start() for part in _TEXT_OR_NUMBER.finditer(text) if part[0] == number)
    place = next(found, 0)
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    return f"line {line}, column {column}"
