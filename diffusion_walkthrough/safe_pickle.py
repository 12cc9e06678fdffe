"""Pickles, read without trust.

A pickle is a little program for a stack machine. Python's own reader lets that program call any
function by name, and so whoever wrote the file decides what runs. The reader below executes the
same program with the few instructions that plain data needs. A name in the file is only looked up
in the table ``_MAKERS``; it is never imported, and nothing that it may stand for is ever called.
Standard library only; NumPy is imported when a file holds an array.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

MAX_PICKLE_BYTES = 64 * 1024 * 1024
MAX_PICKLE_STEPS = 1_000_000
MAX_PICKLE_DEPTH = 50


class UnsafePickleError(ValueError):
    """A pickle that is damaged, too large, or holds anything but plain data and arrays."""


def safe_pickle_load(file: BinaryIO) -> Any:
    """Read the plain data in a pickle file without calling anything that the file names.

    ``file`` is open for reading bytes and holds one pickle of any protocol. Admitted are dict,
    list, tuple, set, frozenset, str, bytes, bytearray, numbers, bool, None, and NumPy arrays and
    scalars of numbers. Bounds: 64 MiB of file and as much of copied data, a million instructions,
    a million items, 50 levels of nesting, some 8,000 keys and set items that are not text or bytes.

    Raises ``UnsafePickleError`` for everything else, TypeError if ``file`` does not give bytes.
    """
    if not hasattr(file, "read"):
        raise TypeError(f"file={file!r}: must be an open file. Use open(path, 'rb').")
    data = file.read(MAX_PICKLE_BYTES + 1)
    if not isinstance(data, bytes):
        raise TypeError(f"file={file!r}: must give bytes. Open it with mode 'rb'.")
    if len(data) > MAX_PICKLE_BYTES:
        _refuse(f"more than {MAX_PICKLE_BYTES} bytes")
    try:
        value = _PickleReader().run(data)
        _check_plain(value, [0], depth=0)
    except UnsafePickleError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise UnsafePickleError(
            f"the pickle is damaged or no pickle at all ({type(error).__name__}: {error}). "
            "Get the file again from where it was made."
        ) from error
    return value


def _refuse(what: str) -> NoReturn:
    raise UnsafePickleError(
        f"the pickle holds {what}; only plain data and NumPy arrays of numbers are admitted. "
        "Do not open it with pickle.load unless you trust where it came from."
    )


# ---------------------------------------------------------------------------------------------
# What is admitted
# ---------------------------------------------------------------------------------------------

_SCALARS = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, set, frozenset)


def _check_plain(value: Any, counter: list[int], depth: int) -> None:
    """Refuse what is not plain, nested too deeply (or in a circle), or repeated without end."""
    counter[0] += 1
    if depth > MAX_PICKLE_DEPTH or counter[0] > MAX_PICKLE_STEPS:
        _refuse(f"more than {MAX_PICKLE_DEPTH} levels or {MAX_PICKLE_STEPS} items")
    kind = type(value)
    if kind in _CONTAINERS or kind is dict:
        for item in value.values() if kind is dict else value:
            _check_plain(item, counter, depth + 1)
    elif kind not in _SCALARS and kind is not bytearray and kind.__module__ != "numpy":
        _refuse(f"a bare {kind.__name__.lstrip('_')}")


def _checked_key(key: Any) -> Any:
    """A dictionary key or set item: only what is hashed quickly and without recursion."""
    parts = key if type(key) is tuple else (key,)
    if len(parts) > 8 or not all(type(part) in _SCALARS for part in parts):
        _refuse("a key or set item that is not text, a number, or a few of them")
    return key


@dataclasses.dataclass(frozen=True)
class _Name:
    """A function or class that the file names: a text, nothing more."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class _NumberType:
    """A NumPy dtype of plain numbers, as a text such as "<f4"."""

    text: str

    def with_state(self, state: Any) -> _NumberType:
        _, order, *described = state[:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in described):
            _refuse("an array that is not of plain numbers")
        return _NumberType(order + self.text)

    def array(self, data: Any, shape: Any, order: Any) -> Any:
        import numpy as np

        if type(data) not in (bytes, bytearray) or type(shape) is not tuple:
            _refuse("an array without bytes or without a shape")
        if not all(type(side) is int and side >= 0 for side in shape):
            _refuse("an array with a shape that is not of whole numbers")
        dtype = np.dtype(self.text)
        if math.prod(shape) * dtype.itemsize != len(data):
            _refuse("an array whose bytes do not fill its shape")
        return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order=order)


@dataclasses.dataclass(frozen=True, eq=False)
class _EmptyArray:
    """An array that is named but not filled yet."""

    def with_state(self, state: Any) -> Any:
        _, shape, number_type, column_order, data = state
        return _number_type(number_type).array(data, shape, "F" if column_order is True else "C")


def _number_type(value: Any) -> _NumberType:
    if type(value) is not _NumberType:
        _refuse("an array without a number type")
    return value


def _make_number_type(text: Any, *_: Any) -> _NumberType:
    if type(text) is not str or not re.fullmatch(r"[biufc][0-9]{1,2}", text):
        _refuse("an array that is not of plain numbers")
    return _NumberType(text)


def _make_empty_array(kind: Any, *_: Any) -> _EmptyArray:
    if kind != _Name("numpy", "ndarray"):
        _refuse("an array that is not a numpy.ndarray")
    return _EmptyArray()


def _make_array(data: Any, number_type: Any, shape: Any, order: Any) -> Any:
    return _number_type(number_type).array(data, shape, "F" if order == "F" else "C")


def _make_scalar(number_type: Any, data: Any) -> Any:
    return _number_type(number_type).array(data, (), "C")[()]


def _make_set(items: Any) -> set[Any]:
    if type(items) is not list:
        _refuse("a set that is not made of a list")
    return {_checked_key(item) for item in items}


def _make_complex(real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        _refuse("a complex number that is not made of two floats")
    return complex(real, imaginary)


def _make_bytes_of_text(text: Any, encoding: Any) -> bytes:
    """Bytes as the oldest protocols write them: a text, one character for each byte."""
    if type(text) is not str or encoding != "latin1":
        _refuse("bytes written in an unusual way")
    return text.encode("latin-1")


def _make_empty_bytes(*arguments: Any) -> bytes:
    if arguments:
        _refuse("bytes that are not written out")
    return b""


def _make_bytearray(*arguments: Any) -> bytearray:
    if len(arguments) > 1 or any(type(data) is not bytes for data in arguments):
        _refuse("a bytearray that is not made of bytes")
    return bytearray(*arguments)


_BUILTIN_MAKERS: dict[str, Callable[..., Any]] = {
    "set": _make_set,
    "frozenset": lambda items: frozenset(_make_set(items)),
    "complex": _make_complex,
    "bytes": _make_empty_bytes,
    "bytearray": _make_bytearray,
}
_NUMPY_MAKERS: dict[str, Callable[..., Any]] = {
    "multiarray _reconstruct": _make_empty_array,
    "multiarray scalar": _make_scalar,
    "numeric _frombuffer": _make_array,
}
_MAKERS: dict[_Name, Callable[..., Any]] = {
    _Name("_codecs", "encode"): _make_bytes_of_text,
    _Name("numpy", "dtype"): _make_number_type,
    **{_Name(m, n): f for m in ("builtins", "__builtin__") for n, f in _BUILTIN_MAKERS.items()},
    **{
        _Name(*f"{package}.{path}".split()): maker
        for package in ("numpy.core", "numpy._core")  # before and since NumPy 2
        for path, maker in _NUMPY_MAKERS.items()
    },
}
_KNOWN_NAMES = {*_MAKERS, _Name("numpy", "ndarray")}

# ---------------------------------------------------------------------------------------------
# The stack machine
# ---------------------------------------------------------------------------------------------


class _PickleReader:
    """Executes the admitted instructions of one pickle; the names are those of pickletools."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.spent = 0

    def run(self, data: bytes) -> Any:
        end = 0
        for step, (instruction, argument, position) in enumerate(pickletools.genops(data)):
            if step > MAX_PICKLE_STEPS:
                _refuse(f"more than {MAX_PICKLE_STEPS} instructions")
            end = (position or 0) + 1
            if instruction.name in _PUSHED_ARGUMENTS:
                self.stack.append(argument)
            elif instruction.name in _PUSHED_VALUES:
                self.stack.append(_PUSHED_VALUES[instruction.name]())
            elif instruction.name in _INSTRUCTIONS:
                _INSTRUCTIONS[instruction.name](self, argument)
            elif instruction.name not in ("PROTO", "FRAME", "STOP"):
                _refuse(f"the instruction {instruction.name}")
        if len(self.stack) != 1 or self.marks or end != len(data):
            raise ValueError("its end is not where it should be")
        return self.stack.pop()

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("it takes a value that is not there")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            _refuse(f"items that are put into something other than a {kind.__name__}")
        return self.stack[-1]

    def push_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        self.charge_keys(items[::2], len(target))
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def push_name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            _refuse("a name that is not text")
        if _Name(module, name) not in _KNOWN_NAMES:
            _refuse(f"the name {f'{module}.{name}'[:80]!r}")
        self.stack.append(_Name(module, name))

    def make(self) -> None:
        name, arguments = self.pop_many(2)
        if type(name) is not _Name or name not in _MAKERS or type(arguments) is not tuple:
            _refuse("a call of something that is not data")
        self.charge(arguments)
        for items in arguments:
            if type(items) is list:  # the one maker that takes a list makes a set
                self.charge_keys(items, 0)
        self.stack.append(_MAKERS[name](*arguments))

    def fill(self) -> None:
        target, state = self.pop_many(2)
        if type(target) not in (_NumberType, _EmptyArray) or type(state) is not tuple:
            _refuse("an object with a state of its own")
        self.charge(state)
        filled = target.with_state(state)
        for index, known in self.memo.items():
            if known is target:
                self.memo[index] = filled
        self.stack.append(filled)

    def charge(self, arguments: tuple[Any, ...]) -> None:
        """Bound what copying the same data again and again, and searching the memo, can cost."""
        sizes = (len(part) for part in arguments if type(part) in (str, bytes, bytearray, list))
        self.pay(len(self.memo) + sum(sizes), "bytes of copies")

    def charge_keys(self, keys: list[Any], size: int) -> None:
        """Bound what keys that all have one hash can cost: each is compared with all before it.

        Whoever writes the file can choose numbers of equal hash; that of text and bytes is another
        in each process.
        """
        numbers = sum(type(key) not in (str, bytes) for key in keys)
        self.pay(numbers * (size + len(keys)), "comparisons of keys")

    def pay(self, cost: int, what: str) -> None:
        self.spent += cost
        if self.spent > MAX_PICKLE_BYTES:
            _refuse(f"more than {MAX_PICKLE_BYTES} {what}")


def _memoize(reader: _PickleReader, index: Any) -> None:
    reader.memo[len(reader.memo) if index is None else index] = reader.stack[-1]


def _recall(reader: _PickleReader, index: Any) -> None:
    reader.stack.append(reader.memo[index])


def _append(reader: _PickleReader, items: list[Any]) -> None:
    reader.top(list).extend(items)


def _add(reader: _PickleReader, items: list[Any]) -> None:
    target = reader.top(set)
    reader.charge_keys(items, len(target))
    target.update(_make_set(items))


def _freeze(reader: _PickleReader, items: list[Any]) -> None:
    reader.charge_keys(items, 0)
    reader.stack.append(frozenset(_make_set(items)))


_PUSHED_ARGUMENTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_PUSHED_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_INSTRUCTIONS: dict[str, Callable[[_PickleReader, Any], None]] = {
    "MARK": lambda reader, _: reader.marks.append(len(reader.stack)),
    "LIST": lambda reader, _: reader.stack.append(reader.pop_to_mark()),
    "APPEND": lambda reader, _: _append(reader, reader.pop_many(1)),
    "APPENDS": lambda reader, _: _append(reader, reader.pop_to_mark()),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.pop_to_mark())),
    "TUPLE1": lambda reader, _: reader.stack.append(tuple(reader.pop_many(1))),
    "TUPLE2": lambda reader, _: reader.stack.append(tuple(reader.pop_many(2))),
    "TUPLE3": lambda reader, _: reader.stack.append(tuple(reader.pop_many(3))),
    "DICT": lambda reader, _: reader.push_dict(reader.pop_to_mark()),
    "SETITEM": lambda reader, _: reader.set_items(reader.pop_many(2)),
    "SETITEMS": lambda reader, _: reader.set_items(reader.pop_to_mark()),
    "ADDITEMS": lambda reader, _: _add(reader, reader.pop_to_mark()),
    "FROZENSET": lambda reader, _: _freeze(reader, reader.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _recall),
    "GLOBAL": lambda reader, text: reader.push_name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda reader, _: reader.push_name(*reader.pop_many(2)),
    "REDUCE": lambda reader, _: reader.make(),
    "BUILD": lambda reader, _: reader.fill(),
}
