import io
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from diffusion_walkthrough import safe_pickle
from diffusion_walkthrough.parameters import load_parameters
from diffusion_walkthrough.safe_pickle import UnsafePickleError, safe_pickle_load

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(data):
    return safe_pickle_load(io.BytesIO(data))


def reduced(function, *arguments, protocol=2):
    """A pickle that calls function(*arguments) when Python's own reader opens it."""

    class Call:
        def __reduce__(self):
            return function, arguments

    return pickle.dumps(Call(), protocol=protocol)


# --- plain data comes back -------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
keys = scalars | st.tuples(st.integers(), st.text())
plain = st.recursive(
    scalars | st.sets(keys, max_size=4) | st.frozensets(keys, max_size=4) | st.builds(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner)
        | st.lists(inner, max_size=6).map(tuple)
    ),
    max_leaves=12,
)


@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back_equal(value, protocol):
    result = load(pickle.dumps(value, protocol=protocol))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array([True, False]),
        np.arange(3, dtype=">i2"),
        np.array(2.5),
        np.zeros((0, 4), np.uint8),
        np.array([1 + 2j]),
        np.float32(0.1),
        np.int64(-3),
        np.bool_(True),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_and_numpy_numbers_come_back_equal(array, protocol):
    result = load(pickle.dumps({"weights": [array]}, protocol=protocol))["weights"][0]
    assert type(result) is type(array)
    assert result.dtype == array.dtype
    assert result.flags.f_contiguous == np.asarray(array).flags.f_contiguous
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_array_met_twice_stays_one(protocol):
    array = np.arange(3.0)
    first, second = load(pickle.dumps([array, array], protocol=protocol))
    assert first is second
    first[0] = 9.0  # and it can be written to
    assert second[0] == 9.0


def test_names_from_before_numpy_2_are_known():
    data = pickle.dumps(np.arange(3), protocol=2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(load(data), np.arange(3))


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
}


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_runs_nothing(name, in_empty_folder):
    with pytest.raises(UnsafePickleError, match="only plain data"):
        load(HOSTILE[name])
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


def array_pickle(shape=(2,), code="f4", order="<", data=b"\0" * 8, described=(None, None, None)):
    """A hand-made pickle of an array, any part of which may be a lie."""
    dtype = pickle.dumps((3, order, *described, -1, -1, 0), protocol=2)[2:-1]
    return (
        b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        + b"(K\x01"
        + pickle.dumps(shape, protocol=2)[2:-1].replace(b"q\x00", b"")
        + b"cnumpy\ndtype\nX"
        + struct.pack("<I", len(code))
        + code.encode()
        + b"\x89\x88\x87R"
        + dtype.replace(b"q\x00", b"").replace(b"q\x01", b"")
        + b"b\x89C"
        + bytes([len(data)])
        + data
        + b"tb."
    )


def test_the_hand_made_array_is_right_when_it_does_not_lie():
    np.testing.assert_array_equal(load(array_pickle()), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "lie",
    [
        {"shape": (3,)},
        {"shape": (10**18,)},
        {"shape": (-1,)},
        {"shape": (-1, -2)},
        {"shape": (2.0,)},
        {"shape": 2},
        {"code": "O8"},
        {"code": "O"},
        {"code": "V4"},
        {"code": "S4"},
        {"code": "f3"},
        {"code": "i4,O"},
        {"code": "f4\n"},
        {"code": "f٤"},
        {"order": "O"},
        {"described": (("f4", (2,)), None, None)},
        {"described": (None, ("a",), {})},
        {"data": b"\0" * 7},
    ],
    ids=str,
)
def test_an_array_that_lies_about_itself_is_refused(lie):
    with pytest.raises(UnsafePickleError):
        load(array_pickle(**lie))


# --- bombs ---------------------------------------------------------------------------------------


def test_deep_nesting_is_refused():
    for data in (b"]" * 100_000 + b"a" * 99_999 + b".", b")" + b"\x85" * 100_000 + b"."):
        with pytest.raises(UnsafePickleError, match="levels"):
            load(data)


def test_a_deep_tuple_as_a_key_is_refused_before_it_is_hashed():
    with pytest.raises(UnsafePickleError, match="key"):
        load(b"})" + b"\x85" * 500_000 + b"Ns.")


def test_a_long_tuple_as_a_key_is_refused_as_hashing_it_takes_long():
    assert load(pickle.dumps({(1,) * 8: None})) == {(1,) * 8: None}
    with pytest.raises(UnsafePickleError, match="key"):
        load(pickle.dumps({(1,) * 9: None}))


def test_a_list_that_holds_itself_is_refused():
    circle = []
    circle.append(circle)
    with pytest.raises(UnsafePickleError, match="levels"):
        load(pickle.dumps(circle))


def test_a_small_file_that_unfolds_to_billions_is_refused():
    value = ["ha"]
    for _ in range(30):
        value = [value, value]
    with pytest.raises(UnsafePickleError, match="items"):
        load(pickle.dumps(value))


def test_copying_the_same_data_again_and_again_is_refused():
    big = b"B" + struct.pack("<I", 10**6) + b"\0" * 10**6 + b"q\x01"
    copy = b"c__builtin__\nbytearray\nh\x01\x85R"
    assert len(load(b"\x80\x03]" + big + b"a" + (copy + b"a") * 10 + b".")) == 11
    with pytest.raises(UnsafePickleError, match="bytes of copies"):
        load(b"\x80\x03]" + big + b"a" + (copy + b"a") * 100 + b".")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [dict.fromkeys, set, frozenset])
def test_so_many_numbers_as_keys_are_refused_that_equal_hashes_would_take_minutes(kind, protocol):
    """Each key is compared with all before it that have its hash, and numbers can share one."""
    equal_hashes = kind(k * sys.hash_info.modulus for k in range(1, 1000))
    assert load(pickle.dumps(equal_hashes, protocol=protocol)) == equal_hashes
    with pytest.raises(UnsafePickleError, match="comparisons of keys"):
        load(pickle.dumps(kind(range(20_000)), protocol=protocol))


def test_many_keys_of_text_are_admitted():
    many = {str(k): k for k in range(100_000)}
    assert load(pickle.dumps(many)) == many


def test_a_huge_place_in_the_memo_costs_nothing():
    assert load(b"]r\xff\xff\xff\x7f.") == []


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
    with pytest.raises(UnsafePickleError):
        load(data)


def test_a_file_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_PICKLE_BYTES", 100)
    assert load(pickle.dumps("a" * 50)) == "a" * 50
    with pytest.raises(UnsafePickleError, match="more than 100 bytes"):
        load(pickle.dumps("a" * 100))


def test_too_many_instructions_are_refused(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_PICKLE_STEPS", 100)
    assert load(pickle.dumps([1] * 90)) == [1] * 90
    with pytest.raises(UnsafePickleError, match="100 instructions"):
        load(pickle.dumps([1] * 100))


# --- damage --------------------------------------------------------------------------------------


def test_every_truncation_is_refused():
    data = pickle.dumps({"a": [1, 2.5, "text", (None, True)], "b": np.arange(3)})
    for end in range(len(data)):
        with pytest.raises(UnsafePickleError):
            load(data[:end])


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
    with pytest.raises(UnsafePickleError, match="pickle"):
        load(data)


def read_or_refused(data):
    """What is read, or None if it is refused; any other error is a mistake."""
    try:
        return load(data)
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
    value = {"a": [1, 2.5, "text", (None, True)], "b": np.arange(3), "c": {4}, "d": b"x"}
    data = bytearray(pickle.dumps(value, protocol=protocol))
    data[place % len(data)] = byte
    assert not callable(read_or_refused(bytes(data)))


@pytest.mark.parametrize("file", ["digits.pkl", None, io.StringIO("text")])
def test_only_files_open_for_bytes_are_read(file):
    with pytest.raises(TypeError, match="rb"):
        safe_pickle_load(file)
