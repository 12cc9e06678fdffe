import dataclasses
import json
import math
import os
import pickle
import pickletools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from diffusion_walkthrough import faces
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.files import writing
from diffusion_walkthrough.parameters import (
    ENDING_IN_NOTHING,
    LOSS_NAMES,
    MOST_STRAIGHT_TIMESTEPS,
    MOST_TIMESTEPS,
    PRECISION_NAMES,
    PREDICTION_NAMES,
    SCHEDULE_NAMES,
    VARIANCE_NAMES,
    DiffusionParameters,
    ScheduleParameters,
    TrainingParameters,
    UNetParameters,
    UnsafePickleError,
    load_parameters,
    save_parameters,
)

PRESETS = [
    DiffusionParameters.digits,
    DiffusionParameters.mnist,
    DiffusionParameters.cifar10,
    DiffusionParameters.celeba_hq_256,
    DiffusionParameters.faces,
    DiffusionParameters.digits_conditional,
    DiffusionParameters.faces_conditional,
]
OLD = Path(__file__).parent / "files" / "old"
SUFFIXES = [".json", ".pkl", ".pickle"]


@st.composite
def unets(draw):
    groups = draw(st.sampled_from([1, 2, 4]))
    multipliers = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    side = draw(st.integers(1, 5)) * 2 ** (len(multipliers) - 1)
    sizes = [side // 2**i for i in range(len(multipliers))]
    return UNetParameters(
        image_size=side,
        channels=draw(st.integers(1, 4)),
        base_width=groups * 2 * draw(st.integers(2, 9)),
        width_multipliers=multipliers,
        residual_blocks=draw(st.integers(1, 5)),
        attention_sizes=draw(st.lists(st.sampled_from(sizes), max_size=3)),
        dropout=draw(st.floats(0, 0.99)),
        groups=groups,
    )


def schedule_of(name, timesteps, **others):
    most = MOST_STRAIGHT_TIMESTEPS if name == "straight" else MOST_TIMESTEPS
    return ScheduleParameters(name, min(timesteps, most), **others)


betas = st.floats(2e-5, 1, exclude_max=True)
schedules = st.tuples(betas, betas).flatmap(
    lambda ends: st.builds(
        schedule_of,
        name=st.sampled_from(SCHEDULE_NAMES),
        timesteps=st.integers(1, 10**6),
        beta_start=st.just(min(ends)),
        beta_end=st.just(max(ends)),
        scaled=st.booleans(),
    )
)
trainings = st.builds(
    TrainingParameters,
    learning_rate=st.floats(1e-9, 10),
    warmup_steps=st.integers(0, 10**6),
    batch_size=st.integers(1, 10**6),
    gradient_clip=st.none() | st.floats(1e-9, 1e9),
    ema_momentum=st.none() | st.floats(0, 0.9999999, exclude_min=True),
    horizontal_flip=st.booleans(),
    precision=st.sampled_from(PRECISION_NAMES),
)
what_goes_together = st.tuples(
    st.sampled_from(PREDICTION_NAMES), st.sampled_from(VARIANCE_NAMES), st.sampled_from(LOSS_NAMES)
).filter(lambda names: names[1:] != ("learned", "mse"))
everything = st.tuples(schedules, unets(), trainings, what_goes_together).filter(
    lambda parts: not (parts[0].name in ENDING_IN_NOTHING and parts[3][0] == "noise")
).map(lambda parts: DiffusionParameters(*parts[:3], *parts[3]))  # fmt: skip


@pytest.fixture
def digits():
    return DiffusionParameters.digits()


# --- the published numbers ----------------------------------------------------------------------


def test_cifar10_is_the_papers():
    p = DiffusionParameters.cifar10()
    assert p.to_dict() == {
        "schedule": {
            "name": "linear",
            "timesteps": 1000,
            "beta_start": 1e-4,
            "beta_end": 0.02,
            "scaled": True,
        },
        "unet": {
            "image_size": 32,
            "channels": 3,
            "base_width": 128,
            "width_multipliers": [1, 2, 2, 2],
            "residual_blocks": 2,
            "attention_sizes": [16],
            "dropout": 0.1,
            "groups": 32,
        },
        "training": {
            "learning_rate": 2e-4,
            "warmup_steps": 5000,
            "decay_steps": None,
            "batch_size": 128,
            "gradient_clip": 1.0,
            "ema_momentum": 0.9999,
            "horizontal_flip": True,
            "precision": "float32",
            "gradient_accumulation_steps": 1,
        },
        "prediction": "noise",
        "variance": "fixed_large",
        "loss": "mse",
        "pixel_levels": 256,
    }


def test_celeba_hq_256_differs_from_cifar10_where_the_paper_says():
    faces, cifar = DiffusionParameters.celeba_hq_256(), DiffusionParameters.cifar10()
    assert faces.unet == dataclasses.replace(
        cifar.unet, image_size=256, width_multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0
    )
    assert faces.training == dataclasses.replace(cifar.training, learning_rate=2e-5, batch_size=64)
    assert faces.schedule == cifar.schedule
    assert faces.variance == "fixed_small"


def test_the_preset_for_faces_fits_them():
    """A crown sits straight, but a fringe falls to one side: mirrored faces are others."""
    faces = DiffusionParameters.faces()
    assert faces.unet.image_shape == (16, 16, 3)
    assert faces.unet.level_sizes == (16, 8, 4)
    assert faces.training.horizontal_flip is False
    assert faces.pixel_levels == 256


@pytest.mark.parametrize(("preset", "size"), [(DiffusionParameters.digits, 8), (PRESETS[1], 28)])
def test_presets_for_handwritten_digits_are_grey_and_never_mirrored(preset, size):
    assert preset().unet.image_shape == (size, size, 1)
    assert preset().training.horizontal_flip is False


def test_levels_of_a_unet():
    unet = UNetParameters()
    assert unet.level_sizes == (32, 16, 8, 4)
    assert unet.level_widths == (128, 256, 256, 256)
    assert unet.image_shape == (32, 32, 3)
    assert DiffusionParameters.mnist().unet.level_sizes == (28, 14, 7)


# --- values are checked --------------------------------------------------------------------------

WRONG = [
    # class, parameter, value, error, a piece of the rule or remedy
    (UNetParameters, "groups", 128, ValueError, "at least two"),
    (ScheduleParameters, "name", "lineal", ValueError, "Did you mean 'linear'?"),
    (ScheduleParameters, "name", "zzz", ValueError, "'cosine'"),
    (ScheduleParameters, "name", None, TypeError, "'cosine'"),
    (ScheduleParameters, "timesteps", 0, ValueError, "at least 1"),
    (ScheduleParameters, "timesteps", 1000.0, TypeError, "Write timesteps=1000"),
    (ScheduleParameters, "timesteps", True, TypeError, "whole number"),
    (ScheduleParameters, "timesteps", "1000", TypeError, "Write timesteps=1000"),
    (ScheduleParameters, "timesteps", math.nan, TypeError, "whole number"),
    (ScheduleParameters, "beta_start", 0, ValueError, "above 0"),
    (ScheduleParameters, "beta_start", math.nan, ValueError, "finite"),
    (ScheduleParameters, "beta_start", 0.03, ValueError, "beta_end"),
    (ScheduleParameters, "beta_end", 1.0, ValueError, "below 1"),
    (ScheduleParameters, "beta_end", math.inf, ValueError, "finite"),
    (ScheduleParameters, "beta_end", 10**400, ValueError, "finite"),
    (ScheduleParameters, "beta_end", "0.02", TypeError, "without quotes"),
    (ScheduleParameters, "beta_end", True, TypeError, "finite number"),
    (ScheduleParameters, "scaled", 1, TypeError, "True or False"),
    (UNetParameters, "image_size", 28, ValueError, "28/8 is not whole"),
    (UNetParameters, "image_size", 28, ValueError, "(3 at most), or pad the images to 32"),
    (UNetParameters, "image_size", -8, ValueError, "at least 1"),
    (UNetParameters, "image_size", (64, 128), TypeError, "images must be square"),
    (UNetParameters, "image_size", [64, 64], TypeError, "Write image_size=64"),
    (UNetParameters, "channels", 0, ValueError, "at least 1"),
    (UNetParameters, "base_width", 2, ValueError, "at least 4"),
    (UNetParameters, "width_multipliers", (), ValueError, "at least one level"),
    (UNetParameters, "width_multipliers", (1, 0, 2, 2), ValueError, "width_multipliers[1]=0"),
    (UNetParameters, "width_multipliers", "1222", TypeError, "tuple or a list"),
    (UNetParameters, "width_multipliers", (1, 2.0, 2, 2), TypeError, "width_multipliers[1]"),
    (UNetParameters, "residual_blocks", 0, ValueError, "at least 1"),
    (UNetParameters, "attention_sizes", (15,), ValueError, "the levels have 32, 16, 8, 4"),
    (UNetParameters, "attention_sizes", 16, TypeError, "(16,)"),
    (UNetParameters, "dropout", 1.0, ValueError, "below 1"),
    (UNetParameters, "dropout", -0.1, ValueError, "from 0"),
    (UNetParameters, "groups", 48, ValueError, "Use for example 16"),
    (TrainingParameters, "learning_rate", 0.0, ValueError, "above 0"),
    (TrainingParameters, "learning_rate", 1e39, ValueError, "finite"),
    (TrainingParameters, "gradient_clip", 1e39, ValueError, "finite"),
    (TrainingParameters, "warmup_steps", -1, ValueError, "at least 0"),
    (TrainingParameters, "batch_size", 0, ValueError, "at least 1"),
    (TrainingParameters, "gradient_clip", 0, ValueError, "None"),
    (TrainingParameters, "ema_momentum", 1.0, ValueError, "None"),
    (TrainingParameters, "ema_momentum", 0, ValueError, "None"),
    (TrainingParameters, "horizontal_flip", "yes", TypeError, "True or False"),
    (TrainingParameters, "precision", "float16", ValueError, "Did you mean 'mixed_float16'"),
    (TrainingParameters, "gradient_accumulation_steps", 3, ValueError, "divide batch_size, 128"),
    (TrainingParameters, "gradient_accumulation_steps", 0, ValueError, "at least 1"),
    # numbers with which nothing could be built, or nothing would be changed
    (ScheduleParameters, "timesteps", 10**9, ValueError, "at most 1000000. Use 1000000 or less"),
    (ScheduleParameters, "beta_start", 1e-9, ValueError, "lost in rounding. Use at least 1.1e-08"),
    (UNetParameters, "image_size", 2**20, ValueError, "at most 4096"),
    (UNetParameters, "channels", 10**12, ValueError, "at most 1024"),
    (UNetParameters, "base_width", 10**5, ValueError, "at most 8192"),
    (UNetParameters, "base_width", 8192, ValueError, "some 1.1e+11 weights, and at most 1e+10"),
    (UNetParameters, "width_multipliers", (1, 10**9, 2, 2), ValueError, "at most 64"),
    (UNetParameters, "width_multipliers", (1,) * 14, ValueError, "at most 13 numbers"),
    (UNetParameters, "residual_blocks", 10**18, ValueError, "at most 32"),
    (UNetParameters, "attention_sizes", (16, 2**20), ValueError, "at most 4096"),
    (UNetParameters, "attention_sizes", [16] * 10**5, ValueError, "there are 100000. Leave some"),
    (UNetParameters, "groups", 10**10, ValueError, "at most 8192"),
    (UNetParameters, "dropout", 0.999, ValueError, "at most 0.99"),
    (TrainingParameters, "learning_rate", 1e-300, ValueError, "from 1e-9 to 10"),
    (TrainingParameters, "learning_rate", 11, ValueError, "from 1e-9 to 10"),
    (TrainingParameters, "gradient_clip", 1e-300, ValueError, "from 1e-9 to 1e9, or None"),
    (TrainingParameters, "ema_momentum", 1 - 1e-9, ValueError, "at most 0.9999999"),
    (TrainingParameters, "warmup_steps", 10**10, ValueError, "at most 1000000000"),
    (TrainingParameters, "decay_steps", 10**10, ValueError, "at most 1000000001"),
    (TrainingParameters, "batch_size", 10**7, ValueError, "at most 1000000"),
    (TrainingParameters, "gradient_accumulation_steps", 10**7, ValueError, "at most 1000000"),
]


@pytest.mark.parametrize(("kind", "name", "value", "error", "piece"), WRONG)
def test_a_wrong_value_is_refused_with_its_name_value_and_remedy(kind, name, value, error, piece):
    with pytest.raises(error) as caught:
        kind(**{name: value})
    message = str(caught.value)
    assert name in message
    assert piece in message
    assert repr(value)[:20] in message or "beta_end=" in message or "[1]" in message


def test_a_first_step_is_never_lost_in_rounding(digits):
    """Where a schedule is scaled to many steps, each adds less."""
    many = {"timesteps": 10**6, "beta_start": 1e-6}
    with pytest.raises(ValueError, match=r"beta_start=1e-06: .* 1e-09, .* Use at least 1\.1e-05"):
        ScheduleParameters(**many)
    ScheduleParameters("const", **many)  # which does not use it
    with pytest.raises(ValueError, match="beta_end=1e-09: the first step"):
        ScheduleParameters("const", beta_start=1e-9, beta_end=1e-9)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"image_size": 512, "width_multipliers": (1,), "attention_sizes": ()},
            r"width_multipliers=\(1,\): .*side of 512 are 6\.9e\+10 pairs, in the middle too; "
            r"the largest side for it is 128\. Use more levels",
        ),
        (
            {"image_size": 1024, "attention_sizes": (512,)},
            r"attention_sizes=\(512,\): .*at a side of 512 .*128\. Leave it out\.",
        ),
    ],
)
def test_attention_to_very_many_pixels_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        UNetParameters(**sizes)


@pytest.mark.parametrize(
    ("groups", "widths", "base"), [(32, (1, 1), 8), (48, (1, 2), 128), (14, (1,), 14), (8, (1,), 8)]
)
def test_the_groups_that_are_proposed_fit(groups, widths, base):
    sizes = {"image_size": 8, "base_width": base, "width_multipliers": widths}
    sizes["attention_sizes"] = ()
    with pytest.raises(ValueError, match=f"groups={groups}: .* Use for example") as caught:
        UNetParameters(**sizes, groups=groups)
    proposed = int(str(caught.value).removesuffix(".").rpartition(" ")[2])
    assert 1 < UNetParameters(**sizes, groups=proposed).groups <= groups


def test_levels_of_gray_have_at_most_16_bits(digits):
    with pytest.raises(ValueError, match=r"pixel_levels=100000: .* at most 65536"):
        dataclasses.replace(digits, pixel_levels=100_000)


@pytest.mark.parametrize("name", ["prediction", "variance"])
def test_an_unknown_choice_of_the_whole_model_is_refused(digits, name):
    with pytest.raises(ValueError, match=f"{name}='noisy'.*must be one of"):
        dataclasses.replace(digits, **{name: "noisy"})


def test_base_width_must_be_even():
    with pytest.raises(ValueError, match=r"base_width=5.*even.*Use 6"):
        UNetParameters(image_size=8, base_width=5, width_multipliers=(1,), attention_sizes=())


def test_parts_must_be_of_their_class(digits):
    with pytest.raises(TypeError, match=r"unet=.*must be a UNetParameters.*from_dict"):
        DiffusionParameters(digits.schedule, digits.unet.to_dict(), digits.training)


def test_replace_checks_again(digits):
    assert dataclasses.replace(digits.unet, dropout=0.5).dropout == 0.5
    with pytest.raises(ValueError, match="attention_sizes"):
        dataclasses.replace(digits.unet, attention_sizes=(5,))


def test_parameters_are_frozen(digits):
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.variance = "fixed_large"


def test_values_have_one_normal_form():
    a = UNetParameters(width_multipliers=[1, 2, 2, 2], attention_sizes=[8, 16, 8], dropout=0)
    b = UNetParameters(width_multipliers=(1, 2, 2, 2), attention_sizes=(16, 8), dropout=0.0)
    assert a == b
    assert hash(a) == hash(b)
    assert type(a.dropout) is float


def test_numpy_numbers_become_plain_ones():
    schedule = ScheduleParameters(timesteps=np.int64(50), beta_end=np.float32(0.5))
    assert type(schedule.timesteps) is int
    assert type(schedule.beta_end) is float
    json.dumps(schedule.to_dict())


def test_none_turns_clipping_and_averaging_off():
    training = TrainingParameters(gradient_clip=None, ema_momentum=None)
    assert TrainingParameters.from_dict(training.to_dict()) == training


def test_str_shows_every_value_on_its_line(digits):
    lines = str(digits).splitlines()
    assert "  variance = fixed_large" in lines
    assert f"    timesteps = {digits.schedule.timesteps}" in lines


# --- dictionaries --------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_the_nearest(digits):
    values = digits.to_dict()
    values["unet"]["with_multipliers"] = values["unet"].pop("width_multipliers")
    with pytest.raises(ValueError, match=r"'with_multipliers'. Did you mean 'width_multipliers'"):
        DiffusionParameters.from_dict(values)


def test_a_missing_key_is_named(digits):
    values = digits.to_dict()
    del values["training"]["batch_size"]
    with pytest.raises(ValueError, match="TrainingParameters lacks 'batch_size'"):
        DiffusionParameters.from_dict(values)


@pytest.mark.parametrize("values", [None, [], "unet", 3])
def test_from_dict_wants_a_dictionary(values):
    with pytest.raises(TypeError, match="needs a dictionary"):
        DiffusionParameters.from_dict(values)


def test_to_dict_is_a_copy(digits):
    digits.to_dict()["unet"]["width_multipliers"].append(7)
    assert digits == DiffusionParameters.digits()


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_come_back_equal(tmp_path, preset, suffix):
    path = save_parameters(preset(), tmp_path / f"parameters{suffix}")
    assert load_parameters(path) == preset()
    assert os.listdir(tmp_path) == [path.name]


@given(parameters=everything)
def test_any_parameters_come_back_equal(tmp_path_factory, parameters):
    folder = tmp_path_factory.mktemp("any")
    for suffix in SUFFIXES:
        path = save_parameters(parameters, folder / f"p{suffix}")
        assert load_parameters(str(path)) == parameters


def test_json_is_readable_and_says_what_it_is(tmp_path, digits):
    path = save_parameters(digits, tmp_path / "digits.json")
    content = json.loads(path.read_text())
    assert content["format"] == "diffusion_walkthrough.parameters"
    assert content["version"] == 3
    assert '\n      "image_size": 8,\n' in path.read_text()


def test_pickle_holds_only_plain_data(tmp_path, digits):
    path = save_parameters(digits, tmp_path / "digits.pkl")
    content = pickle.loads(path.read_bytes())
    assert content["parameters"] == digits.to_dict()
    names = {instruction.name for instruction, _, _ in pickletools.genops(path.read_bytes())}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_again_is_fine_but_other_content_is_not_overwritten(tmp_path, digits, suffix):
    path = save_parameters(digits, tmp_path / f"digits{suffix}")
    before = path.read_bytes()
    save_parameters(digits, path)
    other = dataclasses.replace(digits, variance="fixed_small")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_parameters(other, path)
    assert path.read_bytes() == before
    save_parameters(other, path, overwrite=True)
    assert load_parameters(path) == other


@pytest.mark.parametrize("name", ["thesis.json", "thesis.pkl"])
def test_what_is_no_file_of_parameters_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"title": "On noise"}')
    with pytest.raises(FileExistsError, match="is no file of parameters, and stays as it is"):
        save_parameters(DiffusionParameters.digits(), tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_text() == '{"title": "On noise"}'
    save_parameters(DiffusionParameters.digits(), tmp_path / "ours.json")
    damaged = (tmp_path / "ours.json").read_text()[:-20]
    for content in (damaged, ""):
        (tmp_path / "ours.json").write_text(content)
        save_parameters(DiffusionParameters.digits(), tmp_path / "ours.json", overwrite=True)
        assert load_parameters(tmp_path / "ours.json") == DiffusionParameters.digits()


OURS = {"format": "diffusion_walkthrough.parameters", "version": 3, "parameters": {}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.pkl", pickle.dumps({"params": DiffusionParameters.digits(), "losses": [1.0]})),
        ("results.pkl", pickle.dumps({**OURS, "parameters": DiffusionParameters.digits()})),
        ("results.pkl", pickle.dumps(OURS) + pickle.dumps([1.0, 2.0])),
        ("results.pkl", pickle.dumps({"losses": [1.0], **OURS})[:-30]),
        ("results.pkl", pickle.dumps({**OURS, "losses": list(range(2**20))})),
        ("notes.json", b'{"note": "read with diffusion_walkthrough.parameters", "losses": [1]}'),
        (
            "notes.json",
            b'{"format": "mine", "of": "diffusion_walkthrough.parameters", "loss": NaN}',
        ),
        ("notes.json", json.dumps([OURS, {"loss": 1}]).encode()),
        ("notes.json", json.dumps(OURS).encode() + b'\n{"loss": 1}\n'),
        ("notes.json", b"import diffusion_walkthrough.parameters"),
        ("notes.json", json.dumps({**OURS, "losses": list(range(2**20))}).encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_only_names_us_or_holds_more_is_never_replaced(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileExistsError, match="is no file of parameters, and stays as it is"):
        save_parameters(DiffusionParameters.digits(), tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:90],
        lambda data: data.replace(b"0.006", b"NaN"),
        lambda data: data.replace(b"true", b"True"),
        lambda data: data.replace(b'"', b"'"),
        lambda data: data + b"}",
        lambda data: b"// slower\n" + data,
        lambda data: data.lstrip(b"{"),
        lambda data: data.replace(b'"version"', b'"version" 3,\n "version"'),
        lambda data: b"\xef\xbb\xbf" + data[:-9],
        lambda data: data.replace(b'"parameters": {', b'"note": "mine", "parameters": {'),
    ],
)
@pytest.mark.parametrize("protocol", [None, 0, 2, 4])
def test_a_file_of_ours_that_was_edited_or_cut_short_may_be_replaced(tmp_path, spoil, protocol):
    path = save_parameters(DiffusionParameters.digits(), tmp_path / "ours.json")
    if protocol is not None:
        content = pickle.dumps(json.loads(path.read_text()), protocol=protocol)
        path = tmp_path / "ours.pkl"
        path.write_bytes(content[: min(len(spoil(content)), len(content) - 1)])
    else:
        path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises((ValueError, TypeError)):
        load_parameters(path)
    save_parameters(DiffusionParameters.mnist(), path, overwrite=True)
    assert load_parameters(path) == DiffusionParameters.mnist()


def test_a_file_that_is_not_ours_is_not_overwritten(tmp_path, digits):
    path = tmp_path / "notes.json"
    path.write_text("my notes")
    with pytest.raises(FileExistsError):
        save_parameters(digits, path)
    assert path.read_text() == "my notes"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_while_saving_leaves_the_old_file_and_nothing_else(
    tmp_path, digits, monkeypatch, failing
):
    path = save_parameters(digits, tmp_path / "digits.json")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(writing.os, failing, fail)
    with pytest.raises(OSError, match="the disk is full"):
        save_parameters(DiffusionParameters.mnist(), path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["digits.json"]


@pytest.mark.parametrize("name", ["digits", "digits.yaml", "digits.npz"])
def test_another_suffix_is_refused(tmp_path, digits, name):
    with pytest.raises(ValueError, match=r"\.json, \.pkl or \.pickle"):
        save_parameters(digits, tmp_path / name)
    with pytest.raises(ValueError, match=r"\.json, \.pkl or \.pickle"):
        load_parameters(tmp_path / name)


def test_missing_places_are_named(tmp_path, digits):
    with pytest.raises(FileNotFoundError, match=r"absent does not exist\. Create it first"):
        save_parameters(digits, tmp_path / "absent" / "digits.json")
    with pytest.raises(FileNotFoundError, match="no file"):
        load_parameters(tmp_path / "absent.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save_parameters(digits, tmp_path / "folder.json")


def test_only_parameters_are_saved(tmp_path, digits):
    with pytest.raises(TypeError, match="DiffusionParameters"):
        save_parameters(digits.unet, tmp_path / "unet.json")


def json_text(digits):
    return json.dumps(
        {"format": "diffusion_walkthrough.parameters", "version": 1, "parameters": digits.to_dict()}
    )


BROKEN_JSON = [
    (lambda text: "", "not valid JSON"),
    (lambda text: text[:-5], "not valid JSON"),
    (lambda text: text.replace("0.0001", "NaN"), "NaN"),
    (lambda text: text.replace("0.0001", "-Infinity"), "-Infinity"),
    (lambda text: text.replace("0.0001", "1e999"), "1e999, and every number must be finite"),
    (lambda text: text.replace("0.0001", "1" * 5000), "more than 64 bits"),
    (lambda text: text.replace('"beta_end"', '"beta_start"'), '"beta_start" stands in it twice'),
    (lambda text: text.replace('"version": 1', '"version": 0'), '"version": 0'),
    (lambda text: text.replace('"version": 1', '"version": 5'), '"version": 5'),
    (lambda text: text.replace('"version": 1', '"version": true'), '"version": true'),
    (
        lambda text: text.replace('"version": 1', '"version": "1"'),
        r'"version": "1": .*Write "version": 1, without quotes\.$',
    ),
    (lambda text: text.replace('"version": 1,', ""), r'its "version" is missing; .*Add it, or'),
    (lambda text: text.replace("diffusion_walkthrough.", "other."), "format"),
    (lambda text: text.replace('"channels"', '"chanels"'), 'Did you mean "channels"'),
    (lambda text: text.replace('"parameters"', '"parametres"'), 'Did you mean "parameters"'),
    (lambda text: text.replace('"cosine"', "3"), '"name": 3'),
    (lambda text: "[1, 2]", "format"),
    (lambda text: "[" * 200_000, "nested|JSON"),
    (lambda text: " " * 1024 * 1024 + text, "larger than"),
]


@pytest.mark.parametrize(("spoil", "piece"), BROKEN_JSON)
def test_a_broken_json_file_is_refused_with_its_name_and_problem(tmp_path, digits, spoil, piece):
    path = tmp_path / "broken.json"
    path.write_text(spoil(json_text(digits)))
    with pytest.raises((ValueError, TypeError), match=piece) as caught:
        load_parameters(path)
    assert "broken.json" in str(caught.value)


IN_JSON = [  # what is changed in the file of the digits, and what is said of it
    (("[4]", "4"), r'"attention_sizes": 4: .*must be a list of .*Write "attention_sizes": \[4\]\.'),
    (("[4]", "[5]"), r"the levels have 8, 4\. Choose among these, or \[\] for attention in the"),
    (("null", '"None"'), r'"ema_momentum": "None": .*or null for no averaging.*without quotes\.'),
    (("false", '"False"'), r'"horizontal_flip": "False": .*true or false\. Write true or false'),
    (('"mse"', '"mae"'), r'"loss": "mae": loss must be one of "mse", "kl"\. Did you mean "mse"\?'),
    (('"fixed_large"', '"learned"'), r'"variance": "learned" would .*Use "loss": "kl", or one'),
    (("[1, 3]", "[]"), r'"width_multipliers": \[\]: .*Use for example \[1, 2\]\.'),
    (('"groups": 8', '"groups": 7'), r"the width of every level, \[16, 48\]\. Use for example 1"),
    (('"timesteps": 100', '"timesteps": "100"'), r'Write "timesteps": 100, without quotes\.'),
    (('"cosine"', '"jsd"'), r'the schedule "jsd" nothing .*Use "prediction": "x_start", or'),
    (('"cosine"', '"straight"'), r'the schedule "straight" nothing .*Use "prediction": "x_start"'),
]


@pytest.mark.parametrize(("change", "said"), IN_JSON, ids=lambda value: value[1][:20])
def test_what_is_said_of_a_json_file_can_be_written_into_it(tmp_path, digits, change, said):
    path = save_parameters(digits, tmp_path / "digits.json")
    text = re.sub(r"\[\s+([^\]]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", path.read_text())
    assert text.count(change[0]) >= 1
    path.write_text(text.replace(*change, 1))
    with pytest.raises((TypeError, ValueError), match=said):
        load_parameters(path)
    with pytest.raises(ValueError, match=r"groups=3: .*\(8, 16\)"):  # Python is spoken again
        UNetParameters(8, base_width=8, width_multipliers=(1, 2), attention_sizes=(), groups=3)


ADDED_LATER = {  # by field, the version of the files that has it first, and what it was before
    "decay_steps": (2, None),
    "precision": (3, "float32"),
    "gradient_accumulation_steps": (3, 1),
    "loss": (2, "mse"),
    "pixel_levels": (3, 256),
}


@pytest.mark.parametrize("suffix", [".json", ".pkl"])
@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("name", ADDED_LATER)
def test_what_a_version_did_not_have_is_what_it_meant_and_all_else_must_be_there(
    tmp_path, digits, name, version, suffix
):
    values = digits.to_dict()
    owner = values["training"] if name in values["training"] else values
    del owner[name]
    content = {"format": "diffusion_walkthrough.parameters", "version": version}
    text = json.dumps({**content, "parameters": values}).encode()
    path = tmp_path / f"old{suffix}"
    path.write_bytes(text if suffix == ".json" else pickle.dumps(json.loads(text)))
    first, meant = ADDED_LATER[name]
    if version < first:
        read = load_parameters(path)
        assert getattr(read.training if name in digits.training.to_dict() else read, name) == meant
    else:
        with pytest.raises(ValueError, match=f"lacks ['\"]{name}['\"]"):
            load_parameters(path)


@pytest.mark.parametrize("prediction", PREDICTION_NAMES)
def test_a_learned_variance_needs_the_bound(digits, prediction):
    with pytest.raises(ValueError, match=r"loss='mse'.*does not depend on the variance.*'kl'"):
        dataclasses.replace(digits, variance="learned", prediction=prediction)
    learned = dataclasses.replace(digits, variance="learned", prediction=prediction, loss="kl")
    assert (learned.variance, learned.loss) == ("learned", "kl")


def test_noise_cannot_be_predicted_where_nothing_but_noise_is_left(digits):
    jsd = ScheduleParameters("jsd", 100)
    with pytest.raises(ValueError, match=r"prediction='noise'.*ᾱ = 0.*prediction='x_start'"):
        dataclasses.replace(digits, schedule=jsd)
    assert dataclasses.replace(digits, schedule=jsd, prediction="x_start").schedule == jsd


def test_json_from_an_editor_that_marks_utf8_is_read(tmp_path, digits):
    path = tmp_path / "digits.json"
    path.write_bytes(b"\xef\xbb\xbf" + json_text(digits).encode())
    assert load_parameters(path) == digits


def test_json_in_another_encoding_is_refused(tmp_path, digits):
    path = tmp_path / "digits.json"
    path.write_bytes(json_text(digits).encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-8"):
        load_parameters(path)


@pytest.mark.parametrize("value", [3, "text", [1], {"format": "other"}, {}])
def test_a_pickle_of_something_else_is_refused(tmp_path, value):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=r"other\.pkl.*format"):
        load_parameters(path)


def test_a_pickle_of_the_parameters_object_itself_is_refused(tmp_path, digits):
    path = tmp_path / "object.pkl"
    path.write_bytes(pickle.dumps(digits))
    with pytest.raises(UnsafePickleError, match=r"object\.pkl"):
        load_parameters(path)


@pytest.mark.parametrize("suffix", [".json", ".pkl"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_files_that_earlier_versions_wrote_are_read(version, suffix):
    read = load_parameters(OLD / f"parameters_v{version}{suffix}")
    assert read.schedule == ScheduleParameters("cosine", timesteps=10, beta_end=0.03)
    assert (read.unet.level_widths, read.unet.attention_sizes) == ((4, 8), (2,))
    assert (read.training.decay_steps, read.training.ema_momentum) == (8, 0.9)
    assert read.variance == "fixed_small"
    assert read.loss == ("mse" if version == 1 else "kl")
    assert read.pixel_levels == (256 if version == 1 else 17)
    assert read.training.gradient_accumulation_steps == (2 if version == 3 else 1)


def test_a_refused_pickle_of_the_object_says_how_parameters_are_written(tmp_path, digits):
    (tmp_path / "object.pkl").write_bytes(pickle.dumps(digits))
    with pytest.raises(
        UnsafePickleError, match=r"save_parameters writes.*Write the file with save_parameters\("
    ):
        load_parameters(tmp_path / "object.pkl")


def test_importing_parameters_loads_only_the_standard_library():
    code = (
        "import sys, diffusion_walkthrough.parameters\n"
        "heavy = ('numpy', 'keras', 'tensorflow', 'scipy', 'psutil')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- by the name of a data set --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "preset"),
    [
        ("digits", (8, 8, 1), DiffusionParameters.digits),
        ("faces", (16, 16, 3), DiffusionParameters.faces),
        ("mnist", (28, 28, 1), DiffusionParameters.mnist),
        ("fashion_mnist", (28, 28, 1), DiffusionParameters.mnist),
    ],
)
def test_a_data_set_has_the_settings_of_its_name_and_a_planned_end(name, shape, preset):
    found = DiffusionParameters.for_data(name, shape)
    assert found.training.decay_steps is not None
    assert found == preset()


@pytest.mark.parametrize("side", [6, 8, 16, 18, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_without_settings_of_their_own_get_those_of_the_faces_in_their_shape(side, channels):
    shape = (side, side, channels)
    for name in ("cifar10", "some/folder", "digits" if side != 8 else "x", Path("some/folder")):
        found = DiffusionParameters.for_data(name, shape)
        assert found.unet.image_shape == shape
        assert found.training == DiffusionParameters.faces().training
        assert all(size <= 8 for size in found.unet.attention_sizes)


@pytest.mark.parametrize("shape", [(8, 16, 3), (15, 15, 1), (16, 16)])
def test_a_shape_that_no_network_fits_is_refused_with_a_remedy(shape):
    with pytest.raises(ValueError, match=r"image_shape=.*even side.*image_size=16"):
        DiffusionParameters.for_data("pictures", shape)


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_as",
    [
        {"hat": 13, "glasses": 5},
        [["hat", 13], ["glasses", 5]],
        (("hat", np.int64(13)), ("glasses", 5)),
    ],
)
def test_labels_are_names_with_counts_in_one_form(given_as):
    parameters = UNetParameters(labels=given_as)
    assert parameters.labels == (("hat", 13), ("glasses", 5))
    assert hash(parameters) == hash(UNetParameters(labels=(("hat", 13), ("glasses", 5))))
    assert parameters.to_dict()["labels"] == [["hat", 13], ["glasses", 5]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            10,
            r"labels=10: labels must say of each label its name .* Write .* labels=\{'digit': 10\}",
        ),
        ([10], r"labels=\[10\]: labels must say"),
        ({1: 10}, "labels must say"),
        ({"digit": 2.5}, r"labels\[0\]=2\.5: .* must be a whole number of at least 1"),
        ({"digit": 0}, r"labels\[0\]=0: .* at least 1"),
        ({"digit": 10**9}, r"labels\[0\]=1000000000: .* at most 100000"),
        ({"a label": 3}, r"labels\[0\]='a label': a label needs a name of its own, of at most 40"),
        ([("a", 2), ("a", 2)], r"labels\[1\]='a': a label needs a name of its own"),
        ({f"n{i}": 2 for i in range(65)}, "at most 64, and there are 65"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        UNetParameters(labels=labels)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_that_is_told_nothing_is_written_as_before_there_were_labels(tmp_path, suffix):
    """To the byte, so that earlier versions read it; one that is told something is version 4."""
    for name, version in (("digits", 3), ("digits_conditional", 4)):
        parameters = getattr(DiffusionParameters, name)()
        path = save_parameters(parameters, tmp_path / f"{name}{suffix}")
        data = path.read_bytes()
        content = json.loads(data) if suffix == ".json" else pickle.loads(data)
        assert content["version"] == version
        assert ("labels" in content["parameters"]["unet"]) == (version == 4)
        assert "label_dropping" not in content["parameters"]["training"]
        assert load_parameters(path) == parameters
    shipped = Path(__file__).parent.parent / "diffusion_walkthrough" / "pretrained" / "digits"
    if suffix == ".json":
        assert (tmp_path / "digits.json").read_bytes() == (shipped / "parameters.json").read_bytes()


def test_a_share_of_labels_left_out_is_kept_where_it_is_another_than_usual(tmp_path):
    parameters = DiffusionParameters.digits_conditional()
    training = dataclasses.replace(parameters.training, label_dropping=0.2)
    parameters = dataclasses.replace(parameters, training=training)
    path = save_parameters(parameters, tmp_path / "some.json")
    assert load_parameters(path).training.label_dropping == 0.2
    with pytest.raises(ValueError, match=r"label_dropping=0\.2: the network is told no labels"):
        dataclasses.replace(DiffusionParameters.digits(), training=training)
    for wrong in (-0.1, 1, 2):
        with pytest.raises(ValueError, match="label_dropping must be a finite number from 0 to"):
            TrainingParameters(label_dropping=wrong)


def test_the_conditional_presets_are_told_what_the_data_sets_know():
    digits, faces_ = (
        DiffusionParameters.digits_conditional(),
        DiffusionParameters.faces_conditional(),
    )
    assert digits.unet.labels == (("digit", len(set(load_images("digits")[1].tolist()))),)
    counts = {name: len(words) for name, words in faces.STANDARD.names.items()}
    assert {name: counts[name] for name, _ in faces_.unet.labels} == dict(faces_.unet.labels)
    asked = {name for pair in faces.KEPT_OUT for name in pair}
    assert {name for name, _ in faces_.unet.labels} == asked
