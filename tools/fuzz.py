"""Files that were damaged at random: each is read, or refused in one sentence.

``make fuzz`` changes files of every kind that the package reads, each a little and in a way of its
own, and has them read under watch (:mod:`limits`). What a case is follows from ``--seed`` and its
number alone: ``python tools/fuzz.py --seed 7 --only 1234`` does it again, and keeps the file. Last
line: ``N tried, N at fault``.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import limits

Change = Callable[[bytes, random.Random], bytes]

#: The kinds of files by name, and how many of a hundred cases are of each.
SHARES = {
    "parameters.pkl": 30,
    "parameters.json": 24,
    "images.npz": 14,
    "picture": 14,
    "weights.safetensors": 8,
    "weights.npz": 6,
    "checkpoint-000001.npz": 3,
    "model.keras": 1,
}
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
TOKENS = (
    *("null", "true", "False", "-1", "0", "1.5", "1e39", "1e999", "NaN", "9" * 30, "9" * 5000),
    *('""', '"x"', "'x'", "[]", "{}", "[[1]]", '{"a": 1}', "(1,)", ",", "]", "}", '"\\ud800"'),
)


# What is changed ------------------------------------------------------------------------------


def seeds() -> dict[str, list[bytes]]:
    """Files in good order, by kind."""
    from diffusion_walkthrough.parameters import DiffusionParameters

    digits = DiffusionParameters.digits()
    content = {"format": "diffusion_walkthrough.parameters", "version": 3}
    content["parameters"] = digits.to_dict()
    return {
        "parameters.pkl": [pickle.dumps(content, protocol=protocol) for protocol in range(6)],
        "parameters.json": [json.dumps(content, indent=indent).encode() for indent in (None, 2)],
        "images.npz": _image_archives(),
        "picture": _pictures(),
        **_trained(),
    }


def _archive(compressed: bool, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def _image_archives() -> list[bytes]:
    pixels = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    decimal = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 8, 8)
    return [
        _archive(False, images=pixels, labels=np.arange(3)),
        _archive(True, images=decimal),
        _archive(True, x_train=pixels, y_train=np.arange(3)[:, None], x_test=pixels[:1]),
    ]


def _pictures() -> list[bytes]:
    from PIL import Image

    pixels = (np.indices((24, 20)).sum(0) * 5).astype(np.uint8)
    kinds = {"PNG": "L LA RGB RGBA P 1", "JPEG": "L RGB CMYK", "GIF": "L P", "BMP": "L RGB P"}
    kinds |= {"TIFF": "L RGB RGBA 1", "WEBP": "RGB RGBA"}
    found = []
    for kind, modes in kinds.items():
        for mode in modes.split():
            for options in ({}, {"progressive": True, "interlace": 1, "compression": "tiff_lzw"}):
                file = io.BytesIO()
                Image.fromarray(pixels).convert(mode).save(file, kind, **options)
                found.append(file.getvalue())
    return found


def _trained() -> dict[str, list[bytes]]:
    """A small model in all its files."""
    import keras

    from diffusion_walkthrough.checkpoints import save_model
    from diffusion_walkthrough.engine.resuming import ResumeTraining
    from diffusion_walkthrough.files.weights import save_weights
    from diffusion_walkthrough.training import DiffusionModel

    keras.utils.set_random_seed(0)
    model = DiffusionModel(_small_parameters(), seed=0)
    model.compile(run_eagerly=True)
    images = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 4, 4, 1)
    weights = {f"{i:05d}": array for i, array in enumerate(_network().get_weights())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.fit(images, epochs=1, verbose=0, callbacks=[ResumeTraining(folder)])
        save_weights(_network(), folder / "weights.safetensors", _meaning())
        return {
            "weights.safetensors": [(folder / "weights.safetensors").read_bytes()],
            "weights.npz": [_archive(compressed, **weights) for compressed in (False, True)],
            "checkpoint-000001.npz": [(folder / "checkpoint-000001.npz").read_bytes()],
            "model.keras": [save_model(model, folder / "model.keras").read_bytes()],
        }


def _small_parameters() -> Any:
    from diffusion_walkthrough import parameters

    sizes: dict[str, Any] = {"image_size": 4, "channels": 1, "base_width": 4, "groups": 2}
    sizes |= {
        "width_multipliers": (1,),
        "residual_blocks": 1,
        "attention_sizes": (),
        "dropout": 0.0,
    }
    training = parameters.TrainingParameters(warmup_steps=0, batch_size=4, ema_momentum=None)
    schedule = parameters.ScheduleParameters(timesteps=10)
    return parameters.DiffusionParameters(schedule, parameters.UNetParameters(**sizes), training)


def _network() -> Any:
    """A network of two layers, in which a file of weights is read quickly."""
    import keras

    inside = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="first")(inside)
    return keras.Model(inside, keras.layers.Dense(2, name="last")(hidden))


def _meaning() -> dict[str, Any]:
    return _small_parameters().to_dict()


# How it is changed ----------------------------------------------------------------------------


def bytes_changed(data: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or insert a few bytes, or cut the end off."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(7):
            case 0:
                content[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del content[place : place + length]
            case 2:
                content[place:place] = content[place : place + length] * rng.choice((1, 3, 100))
            case 3:
                content[place:place] = rng.randbytes(length)
            case 4 | 5:
                form = rng.choice("<>") + rng.choice("HIQ")
                number = rng.choice(NUMBERS) % 256 ** struct.calcsize(form)
                content[place : place + struct.calcsize(form)] = struct.pack(form, number)
            case 6:
                if rng.random() < 0.2:
                    del content[place:]
    return bytes(content)


def text_changed(data: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or exchange a few words, numbers or brackets."""
    tokens = re.findall(rb'"[^"]*"|[\w.+-]+|\s+|.', data, re.DOTALL)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(tokens))
        match rng.randrange(4):
            case 0:
                tokens[place] = rng.choice(TOKENS).encode()
            case 1:
                tokens[place] = b""
            case 2:
                tokens[place] *= rng.choice((2, 2, 50))
            case 3:
                other = rng.randrange(len(tokens))
                tokens[place], tokens[other] = tokens[other], tokens[place]
    return b"".join(tokens)


def instructions_changed(data: bytes, rng: random.Random) -> bytes:
    """Put instructions of a pickle among its own, those that call something as well."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(len(content))
        calls = (b"cos\nsystem\n", b"\x93", b"R", b"b", b"\x81", b"\x92", b"o", b"ios\nsystem\n")
        plain = (b"(", b"]", b"}", b")", b"a", b"e", b"s", b"u", b"0", b"2", b"q\x00", b"h\x00")
        content[place:place] = rng.choice(rng.choice((calls, plain)))
    return bytes(content)


def member_changed(data: bytes, rng: random.Random) -> bytes:
    """Change one member of an archive, and write the archive anew, with the right checksum."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    change = text_changed if name.endswith(".json") else rng.choice((bytes_changed, header_changed))
    members[name] = change(members[name], rng)
    if rng.random() < 0.1:
        members[name + rng.choice(("", "x", ".npy"))] = members.pop(name)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for name, content in members.items():
            new.writestr(name, content)
    return file.getvalue()


def header_changed(data: bytes, rng: random.Random) -> bytes:
    """Change the text at the beginning, as arrays and safetensors have it, and keep its length."""
    start, end = (
        data.find(b"{"),
        data.find(b"\n") if data[:1] == b"\x93" else data.find(b"}}") + 2,
    )
    if not 0 <= start < end:
        return bytes_changed(data, rng)
    text = text_changed(data[start:end], rng)
    return data[:start] + text.ljust(end - start)[: max(end - start, 1)] + data[end:]


CHANGES: dict[str, tuple[Change, ...]] = {
    "parameters.pkl": (bytes_changed, instructions_changed),
    "parameters.json": (text_changed, text_changed, bytes_changed),
    "images.npz": (member_changed, member_changed, bytes_changed),
    "picture": (bytes_changed,),
    "weights.safetensors": (header_changed, bytes_changed),
    "weights.npz": (member_changed, bytes_changed),
    "checkpoint-000001.npz": (member_changed, bytes_changed),
    "model.keras": (member_changed, bytes_changed),
}


def case(number: int, seed: int, files: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """The kind and the content of one damaged file."""
    rng = random.Random(f"{seed}-{number}")
    (kind,) = rng.choices(list(SHARES), list(SHARES.values()))
    return kind, rng.choice(CHANGES[kind])(rng.choice(files[kind]), rng)


# How it is read -------------------------------------------------------------------------------


def readers() -> dict[str, limits.Reader]:
    """Who reads each kind of file."""
    from diffusion_walkthrough.checkpoints import load_model
    from diffusion_walkthrough.data import load_images
    from diffusion_walkthrough.engine.resuming import newest_checkpoint
    from diffusion_walkthrough.files.weights import load_weights
    from diffusion_walkthrough.parameters import load_parameters

    network, meaning = _network(), _meaning()

    def weights(path: Path) -> None:
        load_weights(network, path, meaning)

    return {
        "parameters.pkl": load_parameters,
        "parameters.json": load_parameters,
        "images.npz": load_images,
        "picture": lambda path: load_images(path.parent),
        "weights.safetensors": weights,
        "weights.npz": weights,
        "checkpoint-000001.npz": lambda path: newest_checkpoint(path.parent),
        "model.keras": load_model,
    }


def try_cases(numbers: range, seed: int) -> None:
    """Print the number of each case before it is tried, and what is at fault with it."""
    with tempfile.TemporaryDirectory() as name:
        files, read = seeds(), readers()
        limits.watch()
        for number in numbers:
            print(number, flush=True)
            kind, content = case(number, seed, files)
            folder = Path(name, str(number))
            folder.mkdir()
            path = folder / (f"{number}.png" if kind == "picture" else kind)
            path.write_bytes(content)
            if said := limits.fault(read[kind], path):
                print(f"{number} {kind}: {said}".replace("\n", " "), flush=True)
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()


class Worker(threading.Thread):
    """A process that tries every so many cases, and is begun anew where one of them ends it."""

    def __init__(self, numbers: range, seed: int, end: float) -> None:
        super().__init__()
        self.numbers, self.seed, self.end = numbers, seed, end
        self.tried = 0
        self.faults: list[str] = []

    def run(self) -> None:
        """Try all cases, or as many as there is time for."""
        while self.numbers and time.monotonic() < self.end:
            latest = self._one_process()
            done = self.numbers.index(latest) + 1 if latest is not None else 0
            self.tried += done
            if latest is None:
                self.faults.append("the process did not begin to try")
                return
            self.numbers = self.numbers[done:]

    def _one_process(self) -> int | None:
        """Run until the end, or a crash; return the number of the last case that was begun."""
        numbers = self.numbers
        told = (str(n) for n in (numbers.start, numbers.stop, numbers.step))
        command = [sys.executable, __file__, "--seed", str(self.seed), "--part", *told]
        latest = None
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip().isdecimal():
                    latest = int(line)
                else:
                    self._found(line.strip())
                if time.monotonic() > self.end:
                    process.kill()
                    return latest
        if process.returncode:
            self._found(f"{latest}: the process ended with {process.returncode}")
        return latest

    def _found(self, said: str) -> None:
        self.faults.append(said)
        print(f"at fault: case {said}", flush=True)


def again(number: int, seed: int) -> int:
    """Try one case again: keep its file, and show its error whole."""
    kind, content = case(number, seed, seeds())
    path = Path(f"case-{number}", "picture.png" if kind == "picture" else kind)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    print(f"{path}: {len(content)} bytes")
    readers()[kind](path)
    return 0


def main() -> int:
    """Try damaged files; return 0 if none is at fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="how many (%(default)s)")
    parser.add_argument("--seconds", type=float, default=300, help="at most so long (%(default)s)")
    parser.add_argument("--seed", type=int, help="of all cases (default: another each time)")
    parser.add_argument("--workers", type=int, default=2, help="how many at a time (%(default)s)")
    parser.add_argument("--only", type=int, metavar="N", help="try one case again, with its file")
    parser.add_argument("--part", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    if options.part:
        try_cases(range(*options.part), seed)
        return 0
    if options.only is not None:
        return again(options.only, seed)
    print(f"seed {seed}", flush=True)
    end = time.monotonic() + options.seconds
    parts = [range(first, options.count, options.workers) for first in range(options.workers)]
    workers = [Worker(part, seed, end) for part in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    faults = sum(len(worker.faults) for worker in workers)
    print(f"{sum(worker.tried for worker in workers)} tried, {faults} at fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
