import gzip
import json
import math
import pickle
import struct
import time
from pathlib import Path

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
from files.corpus import BOMBS, HOSTILE, MARKER, nested

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


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


TWICE = [
    b"}(Va\nI1\nVa\nI2\nu.",  # SETITEMS
    b"(Va\nI1\nVa\nI2\nd.",  # DICT
    b"}Va\nI1\nsVa\nI2\ns.",  # SETITEM
    b"](}Va\nI1\nsVa\nI2\nsI3\ne.",  # further in
    b"}Va\n}Vb\nI1\nssVa\nI2\ns.",  # a dictionary that is replaced
]


@pytest.mark.parametrize("data", TWICE)
def test_a_key_that_stands_there_twice_is_refused(data):
    assert_refused(data, "a key twice")


def test_a_dictionary_that_is_held_twice_is_no_key_that_is_set_twice():
    inner = {"a": 1, "b": {"c": 2}}
    value = {"x": inner, "y": [inner, inner], "z": {}}
    for protocol in PROTOCOLS:
        assert load_plain_pickle(pickle.dumps(value, protocol=protocol)) == value
    many = {str(i): i for i in range(1200)}  # more than one batch of a pickle
    assert load_plain_pickle(pickle.dumps(many)) == many


def test_a_pickle_of_our_own_objects_is_answered_with_how_to_write_the_file():
    for protocol in PROTOCOLS:
        data = pickle.dumps(DiffusionParameters.digits(), protocol=protocol)
        assert_refused(data, r"only plain data is admitted.*save_parameters\(parameters, path\)")


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
        (b'{"a": NaN}', "line 1, column 7: it holds NaN"),
        (b'{"NaN": "\\"NaN",\n"a": [1,\n NaN]}', "line 3, column 2: it holds NaN"),
        (b'{"a": 1,\n"b": -Infinity}', "line 2, column 6: it holds -Infinity"),
        (b'{"a": -1e999}', "column 7: it holds -1e999, and every number must be finite"),
        (b'{"a": 1.5,\n"b": [9223372036854775809]}', "line 2, column 7: .*more than 64 bits"),
        (pickle.dumps({"a": 1}), r"it is a pickle, .*end in \.pkl\.$"),
        (gzip.compress(b"{}", mtime=0), r"packed by gzip \(\.gz\), and no JSON\. Unpack it"),
        (b"PK\x03\x04", "it is an archive .*the right file"),
        (b'{"a": ' + b"9" * 10**5 + b"}", "holds 99999999999999999999…, a whole number"),
        (b"[1, 2", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON in UTF-8"),
        (b"[" * 200_000, "not valid JSON: too many brackets"),
        (b" " * 1024 * 1024 + b"1", "larger than 1048576 bytes"),
        (b'{"' + b"a" * 10**6 + b'": NaN}', "holds NaN"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_json_that_is_none_is_refused(data, said):
    with pytest.raises(ValueError, match=said) as caught:
        decode_json(data)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1] * 5000}, "more than 4000 parts"),
        ({"a" * 1001: 1}, "a text of more than 1000 letters"),
        (["a" * 1001], "a text of more than 1000 letters"),
    ],
    ids=["parts", "key", "text"],
)
def test_a_file_of_json_is_bounded_like_a_pickle(tmp_path, value, said):
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=said):
        plain_data.read(tmp_path / "a.json")
