import json
import math
import pickle
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from diffusion_walkthrough.files import plain_data
from diffusion_walkthrough.files.plain_data import (
    UnsafePickleError,
    decode_json,
    encode,
    load_plain_pickle,
)
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def reduced(function, *arguments, protocol=2):
    """A pickle that calls function(*arguments) when Python's own reader opens it."""

    class Call:
        def __reduce__(self):
            return function, arguments

    return pickle.dumps(Call(), protocol=protocol)


def assert_refused(data, match="pickle"):
    """It is refused, and at once."""
    start = time.perf_counter()
    with pytest.raises(UnsafePickleError, match=match):
        load_plain_pickle(data)
    assert time.perf_counter() - start < 1


# --- plain data comes back -------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=100)
)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10), inner, max_size=4)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner)
        | st.lists(inner, max_size=6).map(tuple)
    ),
    max_leaves=12,
)


@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back_equal(value, protocol):
    result = load_plain_pickle(pickle.dumps(value, protocol=protocol))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whole_parameters_come_back_equal_with_much_room_to_spare(protocol):
    values = DiffusionParameters.cifar10().to_dict()
    data = pickle.dumps(values, protocol=protocol)
    assert load_plain_pickle(data) == values
    assert len(data) < plain_data.MAX_BYTES / 1000
    assert len(list(plain_data.pickletools.genops(data))) < plain_data.MAX_STEPS / 20


@given(value=plain)
def test_what_is_written_is_read_again(value):
    data = encode(value, Path("a.pkl"))
    assert load_plain_pickle(data) == value
    assert pickle.loads(data) == value


# --- hostile pickles -------------------------------------------------------------------------
# Each would create the file named MARKER if anything that it names were called.

MARKER = "executed"
COMMAND = f"touch {MARKER}".encode()
PYTHON = f"open('{MARKER}', 'w').close()".encode()


def text(value):
    """SHORT_BINUNICODE"""
    return b"\x8c" + bytes([len(value)]) + value


def touched(marker=MARKER):
    Path(marker).touch()


class StateMaker:
    """An object that Python's own reader gives its state by calling __setstate__."""

    def __reduce__(self):
        return StateMaker, (), {"marker": MARKER}

    def __setstate__(self, state):
        touched(state["marker"])


class OwnArray(np.ndarray):
    """A kind of array that is not NumPy's."""


HOSTILE = {
    "os.system, protocol 0": b"cos\nsystem\n(V" + COMMAND + b"\ntR.",
    "posix.system, protocol 2": b"\x80\x02cposix\nsystem\nX"
    + struct.pack("<I", len(COMMAND))
    + COMMAND
    + b"\x85R.",
    "os.system by STACK_GLOBAL": b"\x80\x04"
    + text(b"os")
    + text(b"system")
    + b"\x93"
    + text(COMMAND)
    + b"\x85R.",
    "builtins.eval": b"\x80\x04"
    + text(b"builtins")
    + text(b"eval")
    + b"\x93"
    + text(PYTHON)
    + b"\x85R.",
    "builtins.exec": b"\x80\x04"
    + text(b"builtins")
    + text(b"exec")
    + b"\x93"
    + text(PYTHON)
    + b"\x85R.",
    "__builtin__.eval, the old name": b"c__builtin__\neval\n(V" + PYTHON + b"\ntR.",
    "__import__ and then getattr": b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(Vos\ntRV"
    b"system\ntR(V" + COMMAND + b"\ntR.",
    "getattr of an admitted function": b"\x80\x04"
    + text(b"builtins")
    + text(b"getattr")
    + b"\x93"
    + text(b"_codecs")
    + text(b"encode")
    + b"\x93"
    + text(b"__globals__")
    + b"\x86R.",
    "subprocess.Popen": b"\x80\x04"
    + text(b"subprocess")
    + text(b"Popen")
    + b"\x93]"
    + text(b"touch")
    + b"a"
    + text(MARKER.encode())
    + b"a\x85R.",
    "a dotted name through an admitted module": b"\x80\x04"
    + text(b"numpy.core.multiarray")
    + text(b"os.system")
    + b"\x93"
    + text(COMMAND)
    + b"\x85R.",
    "a dotted module": b"\x80\x04" + text(b"builtins") + text(b"set.__class__.mro") + b"\x93)R.",
    "a name that is no text": b"\x80\x04" + text(b"os") + b"K\x01\x93.",
    "numpy.load": b"\x80\x04"
    + text(b"numpy")
    + text(b"load")
    + b"\x93"
    + text(b"a.npy")
    + b"\x85R.",
    "numpy.fromfile": b"cnumpy\nfromfile\n(V/dev/zero\ntR.",
    "numpy.f2py's shell": b"cnumpy.f2py.diagnose\nrun_command\n(V" + COMMAND + b"\ntR.",
    "numpy.testing.runstring": b"cnumpy.testing._private.utils\nrunstring\n(V" + PYTHON + b"\n}tR.",
    "an admitted name where a function belongs": b"cnumpy\nndarray\n)R.",
    "copyreg._reconstructor": b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\n"
    b"object\nNtR.",
    "copyreg.__newobj__": b"ccopyreg\n__newobj__\n(csubprocess\nPopen\nV" + COMMAND + b"\ntR.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\nX\x05\x00\x00\x00touch\x85\x81.",
    "NEWOBJ of an admitted class": b"\x80\x02cnumpy\nndarray\nK\x05\x85\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04" + text(b"numpy") + text(b"ndarray") + b"\x93)}\x92.",
    "INST, protocol 0": b"(V" + COMMAND + b"\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nV" + COMMAND + b"\no.",
    "BUILD with __setstate__": pickle.dumps(StateMaker(), protocol=2),
    "BUILD on a function": b"c_codecs\nencode\n}V__defaults__\nNsb.",
    "BUILD on a dictionary": b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "a persistent id": b"Pmodel\n.",
    "a binary persistent id": b"\x80\x02X\x05\x00\x00\x00modelQ.",
    "a buffer from outside": b"\x80\x05\x97.",
    "an array of objects": pickle.dumps(np.array([touched, "x"], dtype=object), protocol=2),
    "an array of records": pickle.dumps(np.zeros(2, [("a", "i4")]), protocol=2),
    "an array of texts": pickle.dumps(np.array(["a"]), protocol=2),
    "an array of dates": pickle.dumps(np.array(["2020"], "M8[Y]"), protocol=2),
    "a bare number type": pickle.dumps(np.dtype("f4"), protocol=2),
    "a bare function": pickle.dumps(print, protocol=2),
    "a class": pickle.dumps(Path, protocol=4),
    "an array of a subclass": pickle.dumps(np.zeros(2).view(OwnArray), protocol=2),
    "type": reduced(type, "A", (), {}),
    "bytes of a huge size": reduced(bytes, 10**9),
    "a path": pickle.dumps(Path("/etc/passwd"), protocol=2),
    "an array": pickle.dumps(np.arange(6.0), protocol=2),
    "a number of NumPy's": pickle.dumps(np.float32(0.1), protocol=4),
    "a set": pickle.dumps({1, 2}, protocol=4),
    "a set, protocol 2": pickle.dumps({1, 2}, protocol=2),
    "a frozenset": pickle.dumps(frozenset({1}), protocol=4),
    "a complex number": pickle.dumps(1j, protocol=2),
    "bytes": pickle.dumps(b"abc", protocol=4),
    "bytes, protocol 0": pickle.dumps(b"abc", protocol=0),
    "a bytearray": pickle.dumps(bytearray(b"abc"), protocol=5),
    "parameters as an object": pickle.dumps(DiffusionParameters.digits(), protocol=4),
}


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_runs_nothing(name, in_empty_folder):
    assert_refused(HOSTILE[name], "only plain data")
    Path("hostile.pkl").write_bytes(HOSTILE[name])
    with pytest.raises(UnsafePickleError, match=r"hostile\.pkl"):
        load_parameters("hostile.pkl")
    assert not Path(MARKER).exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system, protocol 0",
        "posix.system, protocol 2",
        "os.system by STACK_GLOBAL",
        "builtins.eval",
        "builtins.exec",
        "__builtin__.eval, the old name",
        "__import__ and then getattr",
        "INST, protocol 0",
        "OBJ",
        "BUILD with __setstate__",
    ],
)
@pytest.mark.skipif(not Path("/bin/touch").exists(), reason="needs the command touch")
def test_these_payloads_do_run_where_nobody_stops_them(name, in_empty_folder):
    """The control: the same bytes do their harm in Python's own reader."""
    pickle.loads(HOSTILE[name])
    assert Path(MARKER).exists()


# --- bombs ---------------------------------------------------------------------------------------


def nested(value, depth):
    for _ in range(depth):
        value = [value, value]
    return value


def circle():
    whole = []
    whole.append(whole)
    return whole


def long_text(length):
    return b"X" + struct.pack("<I", length) + b"a" * length


SAME_HASH = range(0, 20_000 * sys.hash_info.modulus, sys.hash_info.modulus)
BOMBS = {
    "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b")" + b"\x85" * 100_000 + b".",
    "a deep tuple as a key": b"})" + b"\x85" * 500_000 + b"Ns.",
    "a tuple as a key": pickle.dumps({(1, 2): None}),
    "a number as a key": pickle.dumps({1: None}),
    "a list that holds itself": pickle.dumps(circle()),
    "two at each of thirty levels": pickle.dumps(nested("ha", 30)),
    "two at each of eleven levels": pickle.dumps(nested("ha", 11)),
    "numbers of one hash": pickle.dumps(dict.fromkeys(SAME_HASH)),
    "few numbers of one hash": pickle.dumps(dict.fromkeys(SAME_HASH[:1000])),
    "one long text 3,000 times": b"\x80\x02]("
    + long_text(10**6)
    + b"q\x00"
    + b"h\x00" * 3000
    + b"e.",
    "a long text": b"\x80\x02" + long_text(2000) + b".",
    "a long key": b"\x80\x02}" + long_text(10**6) + b"Ns.",
    "one huge number 3,000 times": b"\x80\x02](\x8b"
    + struct.pack("<I", 10**5)
    + b"\x7f" * 10**5
    + b"q\x00"
    + b"h\x00" * 3000
    + b"e.",
    "a number of 65 bits": pickle.dumps(2**64),
    "a number of many digits": b"L" + b"9" * 4000 + b"L\n.",
    "a file that is too large": b"\x80\x02]" + b"Na" * 10**6 + b".",
    "very many instructions": b"\x80\x02]" + b"Na" * 5000 + b".",
    "a huge place in the memo": b"]r\xff\xff\xff\x7f.",
    "a huge place in the memo, protocol 0": b"(lp2147483647\n.",
    "a negative place in the memo": b"(lp-1\n.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_take_long_or_much_memory_is_refused_at_once(name):
    assert_refused(BOMBS[name])
    assert len(str(refusal(BOMBS[name]))) < 400


def refusal(data):
    try:
        return load_plain_pickle(data)
    except UnsafePickleError as error:
        return error


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a" * 1001, "a text of more than 1000 letters"),
        (-(2**64), "a whole number of more than 64 bits"),
        (nested("ha", 20), "more than 4000 parts"),
        ([1] * 5000, "more than 4000 instructions"),
        ({1: 2}, "a key that is no text"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_refusal_says_what_there_is_too_much_of(value, said):
    assert_refused(pickle.dumps(value), said)


def test_the_size_of_the_file_comes_first(monkeypatch):
    monkeypatch.setattr(plain_data, "MAX_BYTES", 100)
    assert load_plain_pickle(pickle.dumps("a" * 50)) == "a" * 50
    assert_refused(pickle.dumps("a" * 100), "more than 100 bytes")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", -1) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        b"T" + struct.pack("<i", -5) + b"abc.",
    ],
)
def test_a_wrong_length_inside_is_refused(data):
    assert_refused(data)


# --- damage --------------------------------------------------------------------------------------


def test_every_truncation_is_refused():
    data = pickle.dumps({"a": [1, 2.5, "text", (None, True)], "b": {"c": -3}})
    for end in range(len(data)):
        assert_refused(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"just some text\n",
        b'{"format": 1}',
        b"\x80\x04K\x01K\x02.",
        b"(K\x01.",
        b"K\x01.K\x02.",
        b"K\x01.\n",
        b"h\x05.",
        b"}K\x01\x85s.",
        b"}(K\x01u.",
        b"a.",
        b"(a.",
        b"u.",
        b"\x93.",
        b"R.",
        b"]K\x01K\x02s.",
        b"}K\x01a.",
        b"I" + b"1" * 5000 + b"\n.",
        b"\xff\xfe\x00",
    ],
)
def test_damaged_files_and_other_files_are_refused(data):
    assert_refused(data)


def read_or_refused(data):
    """What is read, or None if it is refused; any other error is a mistake."""
    try:
        return load_plain_pickle(data)
    except UnsafePickleError:
        return None


@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    assert not callable(read_or_refused(data + b"."))


@given(
    place=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_any_changed_byte_is_read_or_refused(place, byte, protocol):
    value = {"a": [1, 2.5, "text", (None, True)], "b": {"c": -3, "d": 10**15}, "e": ()}
    data = bytearray(pickle.dumps(value, protocol=protocol))
    data[place % len(data)] = byte
    assert not callable(read_or_refused(bytes(data)))


@pytest.mark.parametrize("data", ["digits.pkl", None, [1], Path("digits.pkl")])
def test_only_bytes_are_read(data):
    with pytest.raises(TypeError, match="read_bytes"):
        load_plain_pickle(data)


# --- JSON ----------------------------------------------------------------------------------------


@given(value=st.dictionaries(st.text(max_size=10), plain, max_size=3))
def test_json_comes_back_equal_but_for_tuples(value):
    if all(math.isfinite(number) for number in numbers_in(value)):
        assert decode_json(encode(value, Path("a.json"))) == json.loads(json.dumps(value))
    else:
        with pytest.raises(ValueError, match="not JSON compliant"):
            encode(value, Path("a.json"))


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in numbers_in(part)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands in it twice"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' stands in it twice"),
        (b'{"a": NaN}', "holds NaN"),
        (b"[1, 2", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON in UTF-8"),
        (b"[" * 200_000, "not valid JSON .*recursion"),
        (b" " * 1024 * 1024 + b"1", "larger than 1048576 bytes"),
        (b'{"' + b"a" * 10**6 + b'": NaN}', "holds NaN"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_json_that_is_none_is_refused(data, said):
    with pytest.raises(ValueError, match=said) as caught:
        decode_json(data)
    assert len(str(caught.value)) < 300
