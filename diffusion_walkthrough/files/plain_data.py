"""Plain data in files, as JSON or as a pickle, read without trust.

Whatever is read is bounded before anything is done with it, and a pickle may hold text, numbers,
lists, tuples and dictionaries only: what could call anything is refused before Python reads it.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

from diffusion_walkthrough.checks import message, shown

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


class UnsafePickleError(ValueError):
    """A pickle that is damaged, too large, or holds anything but plain data."""


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
    decode = decode_json if _is_json(path) else load_plain_pickle
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}. Check the name and the current folder ({Path.cwd()}), "
            "or write it with save_parameters."
        )
    with path.open("rb") as file:
        return decode(file.read(MAX_BYTES + 1))  # one more byte tells that it is too large


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
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_doubles)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"it is not valid JSON in UTF-8 ({error}). Correct it or save it again."
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, and every number must be finite. Replace it.")


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
        dictionaries of them, the keys being text.

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
        _check_parts(value)
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
            raise UnsafePickleError(
                f"the pickle holds the instruction {instruction.name} {named}; only plain data is "
                "admitted, such as save_parameters writes. Do not open it with pickle.load unless "
                "you trust where it came from."
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


def _check_parts(value: Any) -> None:
    """Refuse keys that are no text, and what unfolds to too much, such as a list in itself."""
    parts = [value]
    for part in parts:  # which grows as their own parts are met
        if isinstance(part, dict):
            if not all(isinstance(key, str) for key in part):
                _refuse("a key that is no text")
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        if len(parts) > MAX_STEPS:
            _refuse(f"more than {MAX_STEPS} parts")


def _refuse(what: str) -> NoReturn:
    raise UnsafePickleError(f"the pickle holds {what}. Is it the right file?")
