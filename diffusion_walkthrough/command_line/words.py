"""The words of the command line: its commands, their options, and what an option may be.

Nothing heavy is imported here, so that ``--help`` and a mistyped word are answered at once. That
the names are those of the modules that mean something by them is seen to by a test.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import platform
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from diffusion_walkthrough import __version__
from diffusion_walkthrough.checks import did_you_mean
from diffusion_walkthrough.parameters import PRECISION_NAMES

PROGRAM = "python -m diffusion_walkthrough"
PRESETS = (
    *("digits", "mnist", "cifar10", "celeba_hq_256", "faces"),
    *("digits_conditional", "faces_conditional"),
)
DATA_SETS = ("digits", "mnist", "fashion_mnist", "cifar10", "faces")
DEVICES = ("this machine", "i5-5300U", "i7-10700", "RTX 2060 SUPER", "K80", "T4", "H200")
SAMPLERS, SPACINGS = ("ddpm", "ddim", "dpm++2m", "heun"), ("even", "log_snr", "karras")

#: What NumPy takes for a seed.
LARGEST_SEED = 2**32 - 1

EXIT_CODES = (
    "exit codes: 0 done; 1 something failed on the way, such as a full disk; 2 a word of the line, "
    "or a file that it names, cannot be used; 130 ended by Ctrl-C"
)


class WordError(ValueError):
    """A word of the line that cannot be."""


class Parser(argparse.ArgumentParser):
    """A parser of whole words only, whose errors can be told like all others, in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise WordError, with the place where all words stand."""
        if alone := re.fullmatch(r"argument (?:-\w/)?(--[a-z-]+): expected one argument", message):
            example = "-1,2" if alone[1] == "--labels" else "-…"
            message += f". One that begins with - is written so: {alone[1]}={example}"
        end = "" if message.endswith((".", "?")) else "."
        raise WordError(f"{message}{end} See {self.prog} --help.")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Take the words of a line apart: all options of a command, and its name as ``command``.

    Raises WordError for a word that is not known, naming the nearest known one, or that cannot be.
    """
    parser, commands = _parser()
    first = next((word for word in arguments if not word.startswith("-")), None)
    if first is None and not {"-h", "--help", "--version"} & set(arguments):
        parser.error(f"name a command: {', '.join(commands)}")
    if first is not None and first not in commands:
        guess = did_you_mean(first, commands)
        parser.error(f"{first[:80]} is none of the commands {', '.join(commands)}. {guess}".strip())
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        name, word = options.command, unknown[0].partition("=")[0]
        chosen, before = commands[name], arguments[: arguments.index(name)]
        known = re.findall(r"--[a-z-]+", chosen.format_usage())
        if word in known and unknown[0] in before:
            chosen.error(f"{word} belongs after the command. Write {name} {unknown[0][:80]}")
        guess = did_you_mean(word, known)
        chosen.error(f"{word[:80]} is no option of {name}. {guess}".strip())
    return options


def _parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole line, and that of each command."""
    parser = Parser(
        prog=PROGRAM,
        description="Train diffusion models, draw images with them, and measure them.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action=_Versions, nargs=0, help="of this and what it runs on")
    commands = parser.add_subparsers(title="commands", required=True, dest="command")
    added = {}
    for name, (about, example, add_words) in _COMMANDS.items():
        example = f"example: {PROGRAM} {name} {example}"
        added[name] = commands.add_parser(name, help=about, description=about, epilog=example)
        add_words(added[name])
        add = added[name].add_argument
        add("--json", action="store_true", help="one JSON object on standard output, for programs")
        add("--traceback", action="store_true", help="show where an error arose")
    return parser, added


class _Versions(argparse.Action):
    """Print what a report of a fault should name, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print("diffusion_walkthrough", __version__)
        print(f"Python {platform.python_version()} on {platform.platform()}")
        for name in ("keras", "tensorflow", "numpy"):
            try:
                print(name, importlib.metadata.version(name))
            except importlib.metadata.PackageNotFoundError:
                print(name, "is not installed")
        parser.exit()


# What an option may be ------------------------------------------------------------------------


def count(text: str) -> int:
    """A number of things, at least 1."""
    if not text.isdecimal() or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"{text[:80]} must be a whole number of at least 1")
    if len(text) > 12:
        raise argparse.ArgumentTypeError(f"{text[:80]} is more than anybody can wait for")
    return int(text)


def times(text: str) -> int:
    """How often something is done, which may be never."""
    if text.isdecimal() and not text.strip("0"):
        return 0
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text[:80]} must be a whole number of at least 0")
    return count(text)


def seed(text: str) -> int:
    """Where random numbers begin."""
    if not text.isdecimal() or int(text[:20]) > LARGEST_SEED:
        rule = f"{text[:80]} must be a whole number from 0 to {LARGEST_SEED}"
        raise argparse.ArgumentTypeError(rule)
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, lambda number: 0 <= number <= 1, "from 0 to 1")


def above_0(text: str) -> float:
    """A number above 0."""
    return _number(text, lambda number: 0 < number < float("inf"), "above 0")


def _number(text: str, allowed: Callable[[float], bool], rule: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not allowed(number):
        raise argparse.ArgumentTypeError(f"{text[:80]} must be a number {rule}")
    return number


def scale(text: str) -> float:
    """How far guidance goes."""
    return _number(text, lambda number: 0 <= number <= 1000, "from 0 to 1000")


def labels(text: str) -> list[int] | dict[str, int]:
    """What images are to show: ``3``; ``0,1,2``, in turn; or by names, ``hat=3,glasses=0``."""
    named: dict[str, int] = {}
    values: list[int] = []
    for part in text.split(","):
        name, sign, value = part.rpartition("=")
        if not re.fullmatch(r"-?[0-9]{1,9}", value.strip()):
            rule = f"{part[:80]} must be a whole number, or NAME=NUMBER, as hat=3"
            raise argparse.ArgumentTypeError(rule)
        if name.strip() in named:
            rule = (
                f"{name.strip()[:80]} has more than one number. Give one; of a model that is told"
            )
            raise argparse.ArgumentTypeError(f"{rule} nothing else, the numbers alone: 0,1,2")
        if sign:
            named[name.strip()] = int(value)
        else:
            values.append(int(value))
    if named and values:
        rule = f"{text[:80]} must give a name to every number, or to none"
        raise argparse.ArgumentTypeError(rule)
    return named or values


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """One of some names, or the nearest of them in an error."""

    def checked(text: str) -> str:
        if text not in names:
            guess = did_you_mean(text, names)
            message = f"{text[:80]} is none of {', '.join(names)}. {guess}"
            raise argparse.ArgumentTypeError(message.strip())
        return text

    return checked


def change(text: str) -> tuple[str, Any]:
    """The name and the value of a parameter: ``decay_steps=2160``, ``width_multipliers=1,2``."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise argparse.ArgumentTypeError(f"{text[:80]} must be NAME=VALUE, as decay_steps=2160")
    return name.strip(), _value(value.strip()[:1000])


def _value(text: str) -> Any:
    """A number, a tuple, True, False or None as Python or JSON write them; else a text."""
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        with warnings.catch_warnings(action="ignore"):  # of a text such as 1and
            return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


# The commands ---------------------------------------------------------------------------------


def _train_words(parser: Parser) -> None:
    add = parser.add_argument
    _add_parameters(parser)
    _add_data(parser)
    add("--folder", required=True, help="where all of this run is written")
    add("--epochs", type=count, help="default: the run that the parameters plan")
    add("--seed", type=seed, default=0, help="default: %(default)s")
    steps = "how long an epoch is; a checkpoint is saved after each (default: all images once)"
    add("--steps-per-epoch", type=count, metavar="N", help=steps)
    pictures = "draw a few images after so many epochs (%(default)s)"
    add("--pictures-every", type=count, default=10, metavar="EPOCHS", help=pictures)
    _add_quiet(parser)


def _sample_words(parser: Parser) -> None:
    add = parser.add_argument
    _add_model(parser)
    add("-n", "--n", type=count, default=64, help="how many images (%(default)s)")
    add("--out", required=True, help="a .png, one picture of all, or an .npz")
    _add_overwrite(parser)
    shown = "what the images are to show: 3, or 0,1,2 in turn, or hat=3,glasses=0"
    add("--labels", type=labels, metavar="NUMBERS", help=shown)
    guided = "how far to go towards what the labels say (1, which is off)"
    add("--guidance-scale", type=scale, metavar="S", help=guided)
    _add_sampler(parser)


def _evaluate_words(parser: Parser) -> None:
    add = parser.add_argument
    _add_model(parser)
    _add_data(parser)
    held_out = "images to measure with, if they are not a split of --data: a folder or an .npz"
    add("--held-out", help=held_out)
    add("-n", "--n", type=count, default=1000, help="how many at most (%(default)s)")
    add("--bits-per-dim", action="store_true", help="also the variational bound")
    _add_sampler(parser)


def _plan_words(parser: Parser) -> None:
    _add_parameters(parser)
    devices = f"one of {', '.join(DEVICES)} (%(default)s)"
    parser.add_argument("--device", type=one_of(DEVICES), default=DEVICES[0], help=devices)
    parser.add_argument("--images", type=count, default=50_000, help="an epoch's, %(default)s")


def _params_words(parser: Parser) -> None:
    _add_parameters(parser, "digits, or what fits --data")
    _add_data(parser)
    size = "of the images of --data, resized; for a folder of pictures (16)"
    parser.add_argument("--image-size", type=count, metavar="PIXELS", help=size)
    parser.add_argument("--out", help="the file to write, .json or .pkl (default: show them)")
    _add_overwrite(parser)


#: What is said of each command, an example, and its options.
_COMMANDS: dict[str, tuple[str, str, Callable[[Parser], None]]] = {
    "train": (
        "Train a model, with checkpoints, history and pictures in one folder.",
        "--parameters digits --folder run",
        _train_words,
    ),
    "sample": (
        "Draw images with a trained model into a picture or an .npz.",
        "--model digits -n 64 --out digits.png",
        _sample_words,
    ),
    "evaluate": (
        "Measure a trained model against images that it has not seen.",
        "--model digits --bits-per-dim",
        _evaluate_words,
    ),
    "plan": (
        "Say what a training run needs, before it begins.",
        "--parameters cifar10 --device 'RTX 2060 SUPER'",
        _plan_words,
    ),
    "params": (
        "Write a first file of parameters, to be read and changed, or show them.",
        "--data my-pictures --image-size 32 --set batch_size=64 --out my.json",
        _params_words,
    ),
}


def _add_parameters(parser: Parser, default: str = "") -> None:
    add = parser.add_argument
    presets = f"one of {', '.join(PRESETS)}; a file of parameters; or a run's folder"
    presets += f" (default: {default})" if default else ""
    add("--parameters", required=not default, help=presets)
    add("--batch-size", type=count, help="images a step")
    names = ", ".join(PRECISION_NAMES)
    add("--precision", type=one_of(PRECISION_NAMES), help=f"of the network: {names}")
    changes = "change one parameter, such as decay_steps=2160; may be given again"
    add("--set", type=change, action="append", default=[], metavar="NAME=VALUE", help=changes)


def _add_data(parser: Parser) -> None:
    names = ", ".join(DATA_SETS)
    parser.add_argument("--data", help=f"a folder of pictures, an .npz file, or one of {names}")


def _add_model(parser: Parser) -> None:
    model = "a saved model, a run's folder, or the name of a model that ships"
    parser.add_argument("--model", required=True, help=model)
    parser.add_argument("--batch-size", type=count, default=64, help="at a time (%(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    _add_quiet(parser)


def _add_quiet(parser: Parser) -> None:
    progress = "no progress (a bar in a terminal, a line now and then elsewhere)"
    parser.add_argument("--quiet", action="store_true", help=progress)


def _add_overwrite(parser: Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def _add_sampler(parser: Parser) -> None:
    add = parser.add_argument
    samplers, spacings = ", ".join(SAMPLERS), ", ".join(SPACINGS)
    add("--sampler", type=one_of(SAMPLERS), default="ddpm", help=f"how to step: {samplers} (ddpm)")
    add("--steps", type=count, help="how many steps back (default: all of the schedule)")
    spacing = f"where they lie: {spacings} (even)"
    add("--spacing", type=one_of(SPACINGS), default="even", help=spacing)
    sigma = "noise to begin with, such as 80 (default: all there is)"
    add("--sigma-max", type=above_0, help=sigma)
    add("--restarts", type=times, metavar="N", help="how often images are drawn over (0)")
    add("--eta", type=share, help="how much of the noise is new in each step of ddim, 0 to 1 (0)")
