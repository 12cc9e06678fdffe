"""Files that were made to harm, by name: made here by code, and none of them is kept.

Run as a script with the path of a folder, and with tests, tools and the project in PYTHONPATH, this
makes each of them there, has it read under watch (tools/limits.py), and prints as JSON what became
of it: "" for one that was refused as it should be. tests/files/test_corpus.py asks.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_walkthrough.parameters import DiffusionParameters


def reduced(function, *arguments, protocol=2):
    """A pickle that calls function(*arguments) when Python's own reader opens it."""

    class Call:
        def __reduce__(self):
            return function, arguments

    return pickle.dumps(Call(), protocol=protocol)


# Pickles -----------------------------------------------------------------------------------------
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


CALLS = (
    *("subprocess.call", "os.execv", "os.remove", "posix.fork", "pty.spawn", "runpy.run_path"),
    *("timeit.timeit", "cProfile.run", "pdb.run", "code.interact", "importlib.import_module"),
    *("ctypes.CDLL", "shutil.rmtree", "socket.create_connection", "webbrowser.open"),
    *("builtins.compile", "builtins.open", "marshal.loads", "pickle.loads", "types.FunctionType"),
    *("operator.attrgetter", "functools.partial", "numpy.core.multiarray._reconstruct"),
    *("torch.load", "joblib.load", "keras.models.load_model", "collections.OrderedDict"),
    *("decimal.Decimal", "datetime.date", "diffusion_walkthrough.parameters.DiffusionParameters"),
)


def called(name):
    """A pickle that calls a function, or makes an object, of a text."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n(V{MARKER}\ntR.".encode()


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
    **{f"{name} is called": called(name) for name in CALLS},
}


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


# Other files -------------------------------------------------------------------------------------
# A name, the kind (who reads it), the name of the file, and what makes it at a path.

TESTS = Path(__file__).parent.parent
OLD = TESTS / "files" / "old"
Maker = Callable[[Path], Any]
MB = 2**20


def content(data: bytes) -> Maker:
    return lambda path: path.write_bytes(data)


def zeros(size: int) -> Maker:
    """A file of zeros, which takes no room on the disk."""

    def make(path):
        with path.open("wb") as file:
            file.truncate(size)

    return make


def parameters_text(**changes: str) -> bytes:
    """Parameters as JSON, in which some words are replaced."""
    text = (OLD / "parameters_v3.json").read_text()
    for old, new in changes.items():
        assert f'"{old}"' in text
        text = text.replace(f'"{old}"', new)
    return text.encode()


JSON = {
    "a hundred million zeros": zeros(100 * MB),
    "nothing": content(b""),
    "spaces": content(b" " * MB),
    "lists in lists": content(b"[" * 300_000),
    "objects in objects": content(b'{"a":' * 150_000),
    "lists in lists, closed": content(b"[" * 50_000 + b"]" * 50_000),
    "a number of a million digits": content(b'{"format": ' + b"9" * 900_000 + b"}"),
    "a decimal number of a million digits": content(b'{"format": 0.' + b"9" * 900_000 + b"}"),
    "a number that is infinite": content(b'{"version": 1e999}'),
    "not a number": content(b'{"version": NaN}'),
    "a key of a million letters": content(b'{"' + b"a" * 900_000 + b'": 1}'),
    "a text of a million letters": content(parameters_text(cosine='"' + "a" * 900_000 + '"')),
    "a hundred thousand keys": content(json.dumps(dict.fromkeys(map(str, range(90_000)))).encode()),
    "a hundred thousand numbers": content(json.dumps([*range(100_000)]).encode()),
    "half a letter": content(b'{"format": "\\ud800"}'),
    "another encoding": content(parameters_text().decode().encode("utf-16")),
    "no encoding": content(b"\xff\x00" * 1000),
    "a key twice": content(b'{"format": 1, "format": 1}'),
    "a version of the future": content(parameters_text().replace(b": 3,", b": 999999999999,", 1)),
    "a pickle": content(HOSTILE["os.system, protocol 0"]),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
}


def npy(array: Any = None, header: bytes | None = None, version: int = 1) -> bytes:
    """An array as NumPy writes it; or any header, and nothing behind it."""
    if header is None:
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        return file.getvalue()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header


def shaped(shape: str, kind: str = "|u1") -> bytes:
    """A header that says so, and 64 bytes."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return npy(header=text.encode()) + bytes(64)


class MakesAFile:
    """An object that Python's own reader would run code for."""

    def __reduce__(self):
        return exec, (PYTHON.decode(),)


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as new:
        for name, data in members.items():
            new.writestr(f"{name}.npy", data)
    return file.getvalue()


def inflating(
    path: Path, name: str = "images.npy", start: bytes = b"", size: int = 150 * MB
) -> None:
    """An archive of a few hundred kilobytes with a member of 150 megabytes."""
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
        new.open(name, "w", force_zip64=True) as member,
    ):
        member.write(start)
        for _ in range(size // MB):
            member.write(bytes(MB))


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def long_contents(path: Path) -> None:
    """An archive of 30 MB that is nothing but a table of contents."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, *[0] * 7, 1, *[0] * 6) + b"a"
    count = 600_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entry) * count, 0, 0)
    path.write_bytes(entry * count + end)


def doubled(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as new:
        warnings.simplefilter("ignore")
        for pixels in (PIXELS * 4, PIXELS):
            new.writestr("images.npy", npy(pixels))


PIXELS = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
FIRST = npy(PIXELS * 4)
GOOD = archive(images=FIRST)
HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8, 8)"
ARRAYS = {
    "an array that inflates": lambda path: inflating(
        path, start=shaped(f"({150 * MB // 64}, 8, 8)")[:-64]
    ),
    "an array that says it is larger": content(archive(images=shaped("(1099511627776, 8, 8)"))),
    "an array without end": content(archive(images=shaped("(9" + "9" * 4000 + ", 8, 8)"))),
    "an array of less than nothing": content(archive(images=shaped("(-1, 8, 8)"))),
    "an array of many axes": content(archive(images=shaped("(" + "1," * 3000 + ")"))),
    "an array of decimal size": content(archive(images=shaped("(1.0, 8, 8)"))),
    "a header that is not closed": content(archive(images=npy(header=HEADER + b"[" * 200))),
    "a header of brackets": content(archive(images=npy(header=b"(" * 9000))),
    "a header of minus signs": content(archive(images=npy(header=b"-" * 9000 + b"1"))),
    "a header of 64 kB": content(archive(images=npy(header=HEADER + b"}" + b" " * 60_000))),
    "a header that inflates": lambda path: inflating(
        path, start=b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)
    ),
    "a header that calls": content(archive(images=npy(header=b"__import__('os').system('ls')"))),
    "objects": content(archive(images=npy(np.array([MakesAFile()], dtype=object)))),
    "an object in the place of labels": content(
        archive(images=npy(PIXELS * 4), labels=npy(np.array([MakesAFile()], dtype=object)))
    ),
    "a pickle in the place of an array": content(archive(images=HOSTILE["builtins.exec"])),
    "text in the place of an array": content(archive(images=b"just some text")),
    "records": content(archive(images=npy(np.zeros(2, [("a", "i4")])))),
    "words": content(archive(images=npy(np.array([[["a"] * 8] * 8])))),
    "very long words": content(archive(images=shaped("(1, 8, 8)", f"<U{2**28}"))),
    "dates": content(archive(images=npy(np.zeros((1, 8, 8), "M8[s]")))),
    "complex numbers": content(archive(images=npy(np.zeros((1, 8, 8), complex)))),
    "numbers that are infinite": content(archive(images=npy(np.full((1, 8, 8), np.inf)))),
    "numbers that are none": content(archive(images=npy(np.full((1, 8, 8), np.nan)))),
    "labels of 64 bits": content(archive(images=npy(PIXELS * 4), labels=npy(np.array([2**40])))),
    "labels of another number": content(archive(images=npy(PIXELS * 4), labels=npy(np.arange(5)))),
    "a long table of contents": long_contents,
    "two members of one name": doubled,
    "a password": content(
        patched(
            patched(GOOD, b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\1\0"),
            b"PK\1\2\x14\3\x14\0\0\0",
            b"PK\1\2\x14\3\x14\0\1\0",
        )
    ),
    "a compression that inflates further": content(
        archive(zipfile.ZIP_BZIP2, images=shaped(f"({MB}, 8, 8)")[:-64] + bytes(64 * MB))
    ),
    "a compression of nobody": content(patched(GOOD, b"\x14\0\0\0\0\0", b"\x14\0\0\0\x63\0")),
    "a size that is a lie": content(
        patched(archive(images=FIRST), struct.pack("<I", len(FIRST)), struct.pack("<I", 2**31))
    ),
    "a checksum that is wrong": content(patched(GOOD, bytes(PIXELS[0, 1] * 4), bytes(8))),
    "an archive cut in half": content(GOOD[: len(GOOD) // 2]),
    "no archive": content(b"<!doctype html>" * 1000),
    "nothing": content(b""),
    "a pipe": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
}


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of safetensors with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], kind: str = "F32", start: int = 0, end: int = 4) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = {
    "a header without end": content(tensors(b"{}", length=2**63)),
    "a header of 50 MB": lambda path: path.write_bytes(tensors(b'{"a' + b"a" * 50 * MB + b'":{}}')),
    "a tensor larger than the file": content(tensors({"a": tensor([2**40], end=2**42)})),
    "a tensor whose size overflows": content(tensors({"a": tensor([2**62, 2**62], end=4)})),
    "tensors that share their numbers": content(
        tensors({name: tensor([1]) for name in ("a", "b")}, bytes(4))
    ),
    "a tensor of nobody's type": content(tensors({"a": tensor([1], "X9")}, bytes(4))),
    "fifty thousand tensors": content(
        tensors({f"{i:x}": tensor([0], end=0) for i in range(50_000)})
    ),
    "a name of three million letters": content(tensors({"a" * 3 * MB: tensor([1])}, bytes(4))),
    "a header of lists": content(tensors(b"[" * 100_000)),
    "a meaning of lists": content(
        tensors({"__metadata__": {"parameters": "[" * 50_000}, "a": tensor([1])}, bytes(4))
    ),
    "a meaning of objects in objects": content(
        tensors({"__metadata__": {"parameters": '{"a":' * 900 + "1" + "}" * 900}})
    ),
    "no tensors": content(b"<!doctype html>" * 1000),
    "a hundred million zeros": zeros(100 * MB),
    "a pickle": content(b"\x80\x02cos\nsystem\n(Vls\ntR."),
}
NPZ_WEIGHTS = {
    "weights that inflate": lambda path: inflating(
        path, "00000.npy", shaped(f"({75 * MB // 2},)", "<f4")[:-64]
    ),
    "weights that say they are larger": content(
        archive(**{"00000": shaped("(1073741824,)", "<f4")})
    ),
    "weights of text": content(archive(**{"00000": b"just some text"})),
    "weights of objects": content(archive(**{"00000": npy(np.array([MakesAFile()], object))})),
    "fifty thousand arrays": content(
        archive(**{f"{i:x}": shaped("(16,)", "<f4") for i in range(50_000)})
    ),
}


def keras_file(
    change: Callable[[dict[str, Any]], Any] = lambda config: None, **members: Any
) -> Maker:
    """A model of an earlier version, with another configuration, or others of its members."""

    def make(path):
        with zipfile.ZipFile(OLD / "model.keras") as old, zipfile.ZipFile(path, "w") as new:
            parts = {name: old.read(name) for name in old.namelist()}
            config = json.loads(parts["config.json"])
            change(config)
            parts["config.json"] = json.dumps(config).encode()
            for name, data in {**parts, **members}.items():
                if data is not None:
                    new.writestr(name, data)

    return make


def keras_weights(change: Callable[[Any], Any]) -> Maker:
    """A model of an earlier version whose file of arrays was changed."""

    def make(path):
        import h5py

        with zipfile.ZipFile(OLD / "model.keras") as old:
            file = io.BytesIO(old.read("model.weights.h5"))
        with h5py.File(file, "a") as arrays:
            change(arrays)
        keras_file(**{"model.weights.h5": file.getvalue()})(path)

    return make


def first_array(group: Any) -> Any:
    """The name of the first array in an HDF5 file."""
    found: list[str] = []
    group.visititems(lambda name, part: found.append(name) if hasattr(part, "nbytes") else None)
    return found[0]


def in_its_place(make: Callable[[Any, str], Any]) -> Maker:
    """Something else in the place of the first array."""

    def change(arrays):
        name = first_array(arrays)
        del arrays[name]
        make(arrays, name)

    return keras_weights(change)


def with_optimizer(**config: Any) -> Maker:
    return keras_file(lambda whole: whole["compile_config"].update(optimizer=config))


def outside(arrays: Any, name: str) -> None:
    arrays.create_dataset(name, (2**20,), "f4", external=[("/dev/zero", 0, 2**22)])


def virtual(arrays: Any, name: str) -> None:
    import h5py

    layout = h5py.VirtualLayout((2**30,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "a", (2**30,))
    arrays.create_virtual_dataset(name, layout)


def link(arrays: Any, name: str) -> None:
    import h5py

    arrays[name] = h5py.ExternalLink("/etc/hostname", "/")


def with_lambda(path: Path) -> None:
    """A model that runs code of its own, as Keras saves it."""
    import keras

    code = keras.layers.Lambda(lambda x: x + Path("executed").write_text("x"), output_shape=(1,))
    keras.Sequential([keras.Input((1,)), code]).save(path)


def too_large(config: dict[str, Any]) -> None:
    config["config"]["parameters"]["unet"].update(base_width=512, groups=2)


KERAS = {
    "a model that runs code": with_lambda,
    "an optimizer that runs code": with_optimizer(
        module="keras.layers",
        class_name="Lambda",
        config={"function": {"class_name": "__lambda__"}},
    ),
    "an optimizer that is a function": with_optimizer(
        module="os", class_name="function", config="system", registered_name="system"
    ),
    "an optimizer that is an array": with_optimizer(
        class_name="__numpy__", config={"value": ["a"] * 100, "dtype": f"S{2**28}"}
    ),
    "an optimizer of another module": with_optimizer(
        module="subprocess", class_name="Popen", config={"args": "ls"}, registered_name="Popen"
    ),
    "a class of another module": keras_file(
        lambda config: config.update(module="os", class_name="system", registered_name=None)
    ),
    "a class under our name": keras_file(lambda config: config.update(class_name="__lambda__")),
    "a network larger than the file": keras_file(too_large),
    "no parameters": keras_file(lambda config: config["config"].pop("parameters")),
    "a seed that is none": keras_file(lambda config: config["config"].update(seed="1")),
    "a configuration of lists": keras_file(**{"config.json": b"[" * 300_000}),
    "a configuration of 20 MB": keras_file(**{"config.json": b" " * 20 * MB}),
    "a configuration of nothing": keras_file(**{"config.json": b"null"}),
    "no weights": keras_file(**{"model.weights.h5": None}),
    "weights of nobody": keras_file(**{"model.weights.h5": b"<!doctype html>" * 1000}),
    "another file inside": keras_file(**{"assets/../../executed": b"x"}),
    "weights that inflate": lambda path: [
        keras_file(**{"model.weights.h5": None})(path),
        inflating(path, "model.weights.h5"),
    ],
    "an array that is not there": in_its_place(
        lambda arrays, name: arrays.create_dataset(name, (2**30,), "f4")
    ),
    "an array that inflates": in_its_place(
        lambda arrays, name: arrays.create_dataset(
            name, data=np.zeros(10 * MB, "f4"), compression="gzip"
        )
    ),
    "an array elsewhere": in_its_place(outside),
    "an array of other files": in_its_place(virtual),
    "a link to another file": in_its_place(link),
    "an array of words": in_its_place(
        lambda arrays, name: arrays.create_dataset(name, data=["a"] * 9)
    ),
    "an array that is infinite": in_its_place(
        lambda arrays, name: arrays.create_dataset(name, data=np.full((16,), 1e39))
    ),
    "a group that holds itself": keras_weights(lambda arrays: arrays.update({"self": arrays["/"]})),
    "thirty thousand groups": keras_weights(
        lambda arrays: [arrays.create_group(f"more/{i}") for i in range(30_000)]
    ),
    "an archive cut in half": lambda path: path.write_bytes(
        (OLD / "model.keras").read_bytes()[:90_000]
    ),
    "no archive": content(b"\x89HDF\r\n\x1a\n" + bytes(1000)),
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *more: bytes, colour: int = 3, pixels: bytes | None = None
) -> bytes:
    """A PNG of one colour, with more chunks before its pixels."""
    if pixels is None:
        pixels = zlib.compress(bytes((width + 1) * height), 1)
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, colour, 0, 0, 0))
    parts = [head, chunk(b"PLTE", bytes(768)), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture(kind: str, mode: str = "L", size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def many_scans() -> bytes:
    """A JPEG that goes over its pixels ten thousand times."""
    whole = picture("JPEG", size=(2000, 2000), progressive=True)
    scans = whole.index(b"\xff\xda"), whole.rindex(b"\xff\xda")
    return whole[: scans[1]] + whole[scans[1] : -2] * 10_000 + whole[-2:]


def many_strips() -> bytes:
    """A TIFF that says of three million strips where they begin."""
    count = 3_000_000
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, count, 200), (278, 3, 1, 1), (279, 4, count, 200)]
    entries = b"".join(struct.pack("<2H2I", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + struct.pack("<I", 8) * count


PICTURES = {
    "more pixels than memory": lambda path: path.write_bytes(png(13_000, 13_000)),
    "more pixels than there are": content(png(2**31 - 1, 2**31 - 1, pixels=b"")),
    "a picture of one line": content(png(2**30, 1, pixels=b"")),
    "three million chunks": lambda path: path.write_bytes(
        png(8, 8, chunk(b"abCd", b"") * 3_000_000)
    ),
    "a text that inflates": content(
        png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * MB), 1)))
    ),
    "a profile that inflates": content(
        png(8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 * MB), 1)), pixels=b"x")
    ),
    "a description of 50 MB": lambda path: path.write_bytes(
        png(8, 8, chunk(b"eXIf", bytes(50 * MB)))
    ),
    "pixels that are missing": content(png(500, 500, pixels=b"")),
    "pixels of something else": content(png(500, 500, pixels=b"no zlib at all")),
    "ten thousand scans": lambda path: path.write_bytes(many_scans()),
    "three million strips": lambda path: path.write_bytes(many_strips()),
    "comments without end": content(
        b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe" + b"\xffaa" * 85 * 100_000
    ),
    "a GIF of four thousand million pixels": content(
        b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
    ),
    "a BMP of many pixels": content(
        b"BM" + struct.pack("<3I3I2H6I", 90, 0, 54, 40, 2**20, 2**20, 1, 8, *[0] * 6)
    ),
    "sixteen bits": content(picture("PNG", "I;16")),
    "thirty-two bits": content(picture("TIFF", "F")),
    "an icon": content(picture("ICO")),
    "a DDS": content(picture("DDS", "RGB")),
    "a PostScript program": content(picture("EPS", "L")),
    "a PDF": content(picture("PDF", "L")),
    "a TGA": content(picture("TGA", "L")),
    "a drawing": content(
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>"
    ),
    "a text": content(b"just some text"),
    "nothing": content(b""),
    "a hundred million zeros": zeros(100 * MB),
    "a pipe": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


def checkpoint(about: Any, **arrays: bytes) -> Maker:
    def make(path):
        with zipfile.ZipFile(path, "w") as new:
            new.writestr("about.json", about if isinstance(about, bytes) else json.dumps(about))
            for name, data in arrays.items():
                new.writestr(f"{name}.npy", data)

    return make


ABOUT = {"format": "diffusion_walkthrough.training", "version": 2}
CHECKPOINTS = {
    "a description that inflates": lambda path: inflating(path, "about.json"),
    "an array that inflates": lambda path: [checkpoint(ABOUT)(path), inflating(path, "a.npy")],
    "a description of lists": checkpoint(b"[" * 300_000),
    "a description of nothing": checkpoint(None),
    "a description of another program": checkpoint({"format": "other"}),
    "a description without a version": checkpoint({"format": ABOUT["format"]}),
    "a description that lacks all": checkpoint(ABOUT),
    "a history that is none": checkpoint(
        {**ABOUT, "epoch": 1, "asked": 1, "planned": 1, "stopped": False, "run": {}, "history": {}}
    ),
    "no description": content(GOOD),
    "no archive": content(b"<!doctype html>" * 1000),
}


def beside(config: bytes) -> Maker:
    """A file of published weights with this config.json beside it."""

    def make(path):
        path.with_name("config.json").write_bytes(config)
        path.write_bytes(tensors({"conv_in.weight": tensor([1])}, bytes(4)))

    return make


PUBLISHED = {
    "a configuration of lists": beside(b"[" * 300_000),
    "a configuration of 20 MB": beside(b" " * 20 * MB),
    "another class": beside(b'{"_class_name": "' + b"a" * 10_000 + b'"}'),
    "thirty thousand levels": content(
        tensors(
            {f"down_blocks.{i}.a": tensor([1, 1, 1, 1]) for i in range(30_000)}
            | {"conv_in.weight": tensor([1, 1, 1, 1])},
            bytes(4),
        )
    ),
}

#: By kind: the name that its files have, and the files.
OTHERS: dict[str, tuple[str, dict[str, Maker]]] = {
    "parameters": ("hostile.json", JSON),
    "images": ("hostile.npz", ARRAYS),
    "safetensors": ("weights.safetensors", SAFETENSORS),
    "npz weights": ("weights.npz", NPZ_WEIGHTS),
    "model": ("hostile.keras", KERAS),
    "picture": ("hostile.png", PICTURES),
    "checkpoint": ("checkpoint-000001.npz", CHECKPOINTS),
    "published": ("hostile.safetensors", PUBLISHED),
}
NAMES = [
    *(f"pickle: {name}" for name in {**HOSTILE, **BOMBS}),
    *(f"{kind}: {name}" for kind, (_, files) in OTHERS.items() for name in files),
]


# Reading them ------------------------------------------------------------------------------------


def readers() -> dict[str, Callable[[Path], Any]]:
    from tiny import SMALLEST_UNET

    from diffusion_walkthrough.checkpoints import load_model, load_published_weights
    from diffusion_walkthrough.data import load_images
    from diffusion_walkthrough.engine.resuming import newest_checkpoint
    from diffusion_walkthrough.parameters import load_parameters
    from diffusion_walkthrough.unet import build_unet

    unet = build_unet(SMALLEST_UNET)

    def in_a_folder(path):
        parameters = (OLD / "model" / "parameters.json").read_bytes()
        path.with_name("parameters.json").write_bytes(parameters)
        load_model(path.parent)

    return {
        "pickle": load_parameters,
        "parameters": load_parameters,
        "images": load_images,
        "safetensors": in_a_folder,
        "npz weights": in_a_folder,
        "model": load_model,
        "picture": lambda path: load_images(path.parent),
        "checkpoint": lambda path: newest_checkpoint(path.parent),
        "published": lambda path: load_published_weights(unet, path),
    }


def became(read: Callable[[Path], Any], path: Path) -> str:
    """What is at fault with how a file was taken; "" if it was refused as it should be."""
    import limits

    answers = []
    said = limits.fault(lambda path: answers.append(read(path)), path)
    if Path(MARKER).exists():
        return "its code ran"
    return said or ("it was read" if answers else "")


def main(folder: Path) -> None:
    import limits

    os.chdir(folder)
    read = readers()
    makers = {f"pickle: {n}": ("hostile.pkl", content(d)) for n, d in {**HOSTILE, **BOMBS}.items()}
    for kind, (file, files) in OTHERS.items():
        makers |= {f"{kind}: {name}": (file, make) for name, make in files.items()}
    limits.watch()
    found = {}
    for number, (name, (file, make)) in enumerate(makers.items()):
        place = folder / str(number)
        place.mkdir()
        make(place / file)
        Path(MARKER).unlink(missing_ok=True)  # a model that runs code runs it as it is made
        print(name, file=sys.stderr, flush=True)  # the last one, should one end the process
        found[name] = became(read[name.partition(":")[0]], place / file)
        if (place / file).is_file():
            (place / file).unlink()  # or together they would fill the disk
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
