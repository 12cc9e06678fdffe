"""Plain data in files, as JSON or as a pickle, read without trust.

Whatever is read is bounded before anything is done with it, and a pickle may hold text, numbers,
lists, tuples and dictionaries only: what could call anything is refused before Python reads it.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, NoReturn

from diffusion_walkthrough.checks import message, shown
from diffusion_walkthrough.files.json_words import place_of_number, syntax_error

MAX_BYTES = 1024 * 1024  # a file of parameters has less than 4,000
MAX_STEPS = 4_000  # and less than 400 instructions and parts
MAX_TEXT = 1_000  # the longest text in it has some 40 letters
MAX_INTEGER = 2**63

#: The instructions that make text, numbers, lists, tuples and dictionaries, and no others.
_ADMITTED = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
}
#: What comes before the first key of a dictionary in a pickle, or between it and its value.
_BEFORE_A_KEY = {
    *("PROTO", "FRAME", "MARK", "EMPTY_DICT", "DICT"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
}
#: The first key of JSON and its value, after comments and with quotes of any kind.
_JSON_BEGINS = (
    r"""(\s|(//|#).*\n|/\*[^*]*\*/)*\{{?\s*["'“”]?{key}["'“”]?\s*[:=]\s*["'“”]?{value}\b"""
)
#: How files begin that are no JSON, whatever their name says, and what to do with them.
_NO_JSON = {
    b"\x80": "it is a pickle, and no JSON. Let its name end in .pkl.",
    b"\x1f\x8b": "it is packed by gzip (.gz), and no JSON. Unpack it, and give what comes out.",
    b"PK\x03\x04": "it is an archive (.zip, .npz or .keras), and no JSON. Is it the right file?",
}
# What a pickle of the object itself, and not of its values, names.
_OURS = b"diffusion_walkthrough.parameters"


class UnsafePickleError(ValueError):
    """A pickle that is damaged, too large, or holds anything but plain data."""


class _WrongNumberError(ValueError):
    """A number in JSON that is not admitted, as it stands there, and why."""


def encode(value: object, path: Path) -> bytes:
    """Plain data as a path's suffix wants it: indented JSON, or a pickle; raises like ``read``."""
    if _is_json(path):
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("utf-8")
    return pickle.dumps(value, protocol=4)  # which every Python since 3.4 reads


def read(path: Path) -> Any:
    """Read a file of plain data; its suffix decides between JSON and pickle.

    Raises FileNotFoundError if there is no such file, or something else in its place, and
    ValueError for other suffixes, and as ``decode_json`` and ``load_plain_pickle`` do.
    """
    json_file = _is_json(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}. Check the name and the current folder ({Path.cwd()}), "
            "or write it with save_parameters."
        )
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)  # one more byte tells that it is too large
    if not json_file:
        return load_plain_pickle(data)
    value = decode_json(data)
    if too_much := _too_much(value):
        raise ValueError(f"it holds {too_much}. Is it the right file?")
    return value


def begins_with(path: Path, key: str, value: str) -> bool:
    """Whether a damaged file of plain data begins as a dictionary does that says this first.

    JSON is damaged by whoever edits it, too, at its very beginning perhaps; a pickle only by being
    cut short. What is whole and holds more than plain data is not damaged.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        return False
    if _is_json(path):
        text = data.decode("utf-8-sig", "replace").lstrip()
        with contextlib.suppress(ValueError, RecursionError):
            if text[json.JSONDecoder().raw_decode(text)[1] :].lstrip().startswith(("{", "[")):
                return False  # a log of many, a line each
        pattern = _JSON_BEGINS.format(key=re.escape(key), value=re.escape(value))
        return re.match(pattern, text) is not None
    texts: list[Any] = []
    try:
        for instruction, argument, _ in pickletools.genops(data):
            if instruction.name not in _BEFORE_A_KEY:
                texts.append(argument)
    except Exception:  # as in load_plain_pickle
        return texts[:2] == [key, value]
    return False


def _is_json(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".pkl", ".pickle"):
        rule = "the suffix decides the format and must be .json, .pkl or .pickle"
        raise ValueError(message("path", str(path), rule, f"Use {path.stem or 'parameters'}.json"))
    return suffix == ".json"


def decode_json(data: bytes) -> Any:
    """Read JSON in UTF-8; raise ValueError for NaN, infinity, a key twice, and all that is not."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes. Is it the right file?")
    if begin := next(filter(data.startswith, _NO_JSON), None):
        raise ValueError(_NO_JSON[begin])
    text = ""
    try:
        text = data.decode("utf-8-sig")
        return json.loads(
            text,
            parse_constant=_refuse_number,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_without_doubles,
        )
    except _WrongNumberError as error:
        number, rule = error.args
        place = place_of_number(text, number)
        raise ValueError(f"{place}: it holds {number[:20]}{rule}. Replace it.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON: {syntax_error(text, error)}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is not valid JSON in UTF-8 ({error}). Save it again, with the encoding UTF-8."
        ) from error
    except RecursionError as error:
        raise ValueError(
            f"it is not valid JSON: too many brackets stand in each other ({error}). Remove some."
        ) from error


def _refuse_number(text: str) -> NoReturn:
    raise _WrongNumberError(text, ", and every number must be finite")


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) < float("inf") else _refuse_number(text)


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise _WrongNumberError(text, "…, a whole number of more than 64 bits")
    return int(text)


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {shown(key)} stands in it twice. Remove one of the two.")
        result[key] = value
    return result


def load_plain_pickle(data: bytes) -> Any:
    """Read the plain data in a pickle without calling anything that it names.

    Args:
        data: a pickle of any protocol, such as ``path.read_bytes()``.

    Returns:
        What it holds: text, whole and decimal numbers, True, False, None, and lists, tuples and
        dictionaries of them, the keys being text, each once.

    Raises:
        UnsafePickleError: for anything else, and for more of it than parameters could be.
        TypeError: if ``data`` is not bytes.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"data={shown(data)}: must be bytes. Use Path(…).read_bytes().")
    if len(data) > MAX_BYTES:
        _refuse(f"more than {MAX_BYTES} bytes")
    try:
        _check_instructions(data)
        pickletools.dis(data, io.StringIO())  # are stack, marks and memo used as they should be?
        value = pickle.loads(data)
        _check_keys(value, _keys_set(data))
    except UnsafePickleError:
        raise
    except Exception as error:  # of a damaged pickle, Python's reader raises all kinds
        raise UnsafePickleError(
            f"the pickle is damaged or no pickle at all ({type(error).__name__}: "
            f"{str(error)[:80]}). Get the file again from where it was made."
        ) from error
    return value


def _check_instructions(data: bytes) -> None:
    """Refuse instructions that are not admitted, and more or larger ones than are needed."""
    end, latest = 0, ""
    for step, (instruction, argument, place) in enumerate(pickletools.genops(data)):
        end = (place or 0) + 1
        if instruction.name not in _ADMITTED:
            named = latest.strip() if argument is None else shown(argument)
            remedy = "Do not open it with pickle.load unless you trust where it came from"
            if _OURS in data:
                remedy = "Write the file with save_parameters(parameters, path), and not pickle"
            raise UnsafePickleError(
                f"the pickle holds the instruction {instruction.name} {named}; only plain data is "
                f"admitted, such as save_parameters writes. {remedy}."
            )
        if step > MAX_STEPS or ("PUT" in instruction.name and (argument or 0) > step):
            _refuse(f"more than {MAX_STEPS} instructions, or leaves places of its memo empty")
        if isinstance(argument, str):
            latest = f"{latest[-40:]} {shown(argument)}"  # what STACK_GLOBAL takes for a name
            if len(argument) > MAX_TEXT:
                _refuse(f"a text of more than {MAX_TEXT} letters")
        elif isinstance(argument, int) and abs(argument) > MAX_INTEGER:
            _refuse("a whole number of more than 64 bits")
    if end != len(data):
        raise ValueError("its end is not where it should be")


def _keys_set(data: bytes) -> int:
    """How often the instructions of a pickle in good order set the key of a dictionary."""
    marks: list[int] = []  # how large the stack was at each
    size, keys = 0, 0
    for instruction, _, _ in pickletools.genops(data):
        taken, given = instruction.stack_before, instruction.stack_after
        if instruction.name == "MARK":
            marks.append(size)
        elif pickletools.markobject in taken:  # all that stands above the mark, and some below
            start = marks.pop()
            keys += (size - start) // 2 if instruction.name in ("DICT", "SETITEMS") else 0
            size = start - taken.index(pickletools.markobject) + len(given)
        else:
            keys += instruction.name == "SETITEM"
            size += len(given) - len(taken)
    return keys


def _check_keys(value: Any, keys: int) -> None:
    """Refuse what is too much, keys that are no text, and keys that were set more than once."""
    if too_much := _too_much(value):
        _refuse(too_much)
    found = {id(part): part for part in _parts(value) if isinstance(part, dict)}
    if sum(map(len, found.values())) != keys:
        raise UnsafePickleError("the pickle holds a key twice. Write the file again.")


def _too_much(value: Any) -> str:
    """What there is too much of, such as a list in itself; "" if all is well."""
    for part in _parts(value):
        if isinstance(part, dict) and not all(isinstance(key, str) for key in part):
            return "a key that is no text"
        texts = [*part] if isinstance(part, dict) else [part]
        if any(isinstance(text, str) and len(text) > MAX_TEXT for text in texts):
            return f"a text of more than {MAX_TEXT} letters"
    return f"more than {MAX_STEPS} parts" if len(_parts(value)) > MAX_STEPS else ""


def _parts(value: Any) -> list[Any]:
    """All that a value holds, and what that holds; one more than may be if that is too much."""
    parts = [value]
    for part in parts:  # which grows as their own parts are met
        if isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        if len(parts) > MAX_STEPS:
            return parts
    return parts


def _refuse(what: str) -> NoReturn:
    raise UnsafePickleError(f"the pickle holds {what}. Is it the right file?")
