"""Published weights: every tensor in its place, and nothing changed when one is wrong.

The tensors of a tiny network are listed here under diffusers' names, with values that anybody can
compute; what a network makes of them was computed by diffusers. tests/parity repeats that with
diffusers itself, and compares networks of the published sizes.
"""

from __future__ import annotations

import json
import re
import shutil
import struct

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusion_walkthrough.checkpoints import load_published_weights
from diffusion_walkthrough.files import published_weights
from diffusion_walkthrough.files.published_weights import FILE_NAME, PUBLISHED
from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.unet import build_unet

# Most files here stand alone, and that is warned of; two tests look at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:There is no config.json of a UNet2DModel")

SIZES = {
    "image_size": 8,
    "channels": 1,
    "base_width": 8,
    "width_multipliers": (1, 2),
    "residual_blocks": 1,
    "attention_sizes": (4,),
    "dropout": 0.1,
    "groups": 4,
}
# The same network in the words of diffusers.
CONFIG = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [8, 16],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 1,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 4,
    "out_channels": 1,
    "sample_size": 8,
    "time_embedding_type": "positional",
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
# What diffusers 0.42.1 computes with published_tensors() at t = 0 and t = 999.
GOLDEN_PLACES = [(0, 0, 0), (0, 3, 4), (0, 7, 7), (1, 0, 7), (1, 4, 4), (1, 6, 1)]  # image, y, x
GOLDEN = [-2.179349, -1.515648, -1.545382, -1.376978, -1.867505, -1.536544]


def conv(old, new, size=3):
    return [("weight", (new, old, size, size)), ("bias", (new,))]


def linear(old, new):
    return [("weight", (new, old)), ("bias", (new,))]


def norm(width):
    return [("weight", (width,)), ("bias", (width,))]


def residual(name, old, new):
    shortcut = {f"{name}.conv_shortcut": conv(old, new, 1)} if old != new else {}
    return {
        f"{name}.norm1": norm(old),
        f"{name}.conv1": conv(old, new),
        f"{name}.time_emb_proj": linear(32, new),
        f"{name}.norm2": norm(new),
        f"{name}.conv2": conv(new, new),
        **shortcut,
    }


def attention(name, width):
    parts = ("to_q", "to_k", "to_v", "to_out.0")
    projections = {f"{name}.{part}": linear(width, width) for part in parts}
    return {f"{name}.group_norm": norm(width), **projections}


def published_shapes():
    """Name and shape of each tensor of the tiny network, as diffusers has them."""
    layers = {
        "conv_in": conv(1, 8),
        "time_embedding.linear_1": linear(8, 32),
        "time_embedding.linear_2": linear(32, 32),
        **residual("down_blocks.0.resnets.0", 8, 8),
        "down_blocks.0.downsamplers.0.conv": conv(8, 8),
        **residual("down_blocks.1.resnets.0", 8, 16),
        **attention("down_blocks.1.attentions.0", 16),
        **residual("mid_block.resnets.0", 16, 16),
        **attention("mid_block.attentions.0", 16),
        **residual("mid_block.resnets.1", 16, 16),
        **residual("up_blocks.0.resnets.0", 32, 16),
        **attention("up_blocks.0.attentions.0", 16),
        **residual("up_blocks.0.resnets.1", 24, 16),
        **attention("up_blocks.0.attentions.1", 16),
        "up_blocks.0.upsamplers.0.conv": conv(16, 16),
        **residual("up_blocks.1.resnets.0", 24, 8),
        **residual("up_blocks.1.resnets.1", 16, 8),
        "conv_norm_out": norm(8),
        "conv_out": conv(8, 1),
    }
    return tensor_shapes(layers)


def tensor_shapes(layers):
    return {f"{name}.{part}": shape for name, parts in layers.items() for part, shape in parts}


def wave(shape, phase):
    """Numbers of ordinary size without any pattern that a mistake could keep."""
    return np.sin(np.arange(1, 1 + np.prod(shape)) ** 2 * 0.37 + phase).reshape(shape)


def published_tensors(dtype="float32", shapes=None):
    tensors = {}
    for number, (name, shape) in enumerate((shapes or published_shapes()).items()):
        values = wave(shape, number)
        if len(shape) > 1:
            values *= np.sqrt(2 / np.prod(shape[1:]))
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.3 * values
        tensors[name] = values.astype(dtype)
    return tensors


def with_old_names(tensors):
    """Name the parts of attention as the first versions of diffusers did."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in tensors.items():
        for new_part, old_part in old.items():
            name = name.replace(f".{new_part}.", f".{old_part}.")
        renamed[name] = tensor
    return renamed


def tiny(**changes):
    return build_unet(UNetParameters(**{**SIZES, **changes}))


@pytest.fixture(scope="module")
def unet():
    return tiny()


@pytest.fixture
def folder(tmp_path):
    """A folder as diffusers writes it."""
    save_file(published_tensors(), tmp_path / FILE_NAME)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def inputs():
    """Two images, and the first and the last step."""
    return wave((2, 8, 8, 1), 0.5).astype("float32"), np.array([0, 999], "int32")


def output(network):
    return keras.ops.convert_to_numpy(network(list(inputs()), training=False))


def assert_golden(network, tolerance=2e-6):
    got = [output(network)[i, y, x, 0] for i, y, x in GOLDEN_PLACES]
    np.testing.assert_allclose(got, GOLDEN, atol=tolerance)


# ---------------------------------------------------------------------------------------------
# What fits
# ---------------------------------------------------------------------------------------------


def test_the_loaded_network_computes_what_diffusers_computes(unet, folder):
    unet.set_weights([np.full(w.shape, np.nan, "float32") for w in unet.weights])
    load_published_weights(unet, folder / FILE_NAME)
    assert_golden(unet)


def test_the_file_is_found_by_its_folder_whatever_layers_there_were_before(folder):
    keras.layers.Dense(1)  # Keras counts the layers that have no names of their own
    unet = tiny()
    load_published_weights(unet, str(folder))
    assert_golden(unet)


def test_the_network_in_the_folder_of_a_pipeline_is_found(unet, folder, tmp_path):
    pipeline = tmp_path / "pipeline"
    (pipeline / "scheduler").mkdir(parents=True)
    (pipeline / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    shutil.copytree(folder, pipeline / "unet", ignore=shutil.ignore_patterns("pipeline"))
    load_published_weights(unet, pipeline)
    assert_golden(unet)


def test_the_old_names_of_the_files_on_the_hub_are_read(unet, tmp_path):
    tensors = with_old_names(published_tensors())
    assert sum("proj_attn" in name for name in tensors) == 2 * 4
    save_file(tensors, tmp_path / "old.safetensors")
    load_published_weights(unet, tmp_path / "old.safetensors")
    assert_golden(unet)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 2e-6), ("float16", 0.02)])
def test_other_precisions_are_converted(unet, tmp_path, dtype, tolerance):
    save_file(published_tensors(dtype), tmp_path / "a.safetensors")
    load_published_weights(unet, tmp_path / "a.safetensors")
    assert_golden(unet, tolerance)
    assert {variable.dtype for variable in unet.weights} == {"float32"}


def test_the_list_of_names_says_the_size_of_the_files():
    """Four bytes for each of the parameters that tests/test_unet.py counts."""
    for name, said in PUBLISHED.items():
        parameters = 35_746_307 if "cifar10" in name else 113_673_219
        assert said.endswith(f", {round(4 * parameters / 1e6)} MB")


# ---------------------------------------------------------------------------------------------
# What does not fit
# ---------------------------------------------------------------------------------------------


def without(name):
    return lambda tensors: tensors.pop(name)


def put(name, make):
    def change(tensors):
        tensors[name] = make(tensors.get(name))

    return change


def with_value(value, dtype="float32"):
    def make(tensor):
        tensor = tensor.astype(dtype)
        tensor.flat[7] = value
        return tensor

    return make


Q = "mid_block.attentions.0.to_q.weight"
SHORTCUT = "down_blocks.1.resnets.0.conv_shortcut"
DAMAGES = {
    "missing bias": (without("conv_in.bias"), r"lacks conv_in.bias \(first.bias\)"),
    "missing norm": (
        without("up_blocks.1.resnets.1.norm1.weight"),
        r"lacks up_blocks\.1\.resnets\.1\.norm1\.weight \(up.0.residual.1.norm_1.gamma\)",
    ),
    "missing norm of a block without a shortcut": (
        without("mid_block.resnets.0.norm1.weight"),
        r"lacks mid_block\.resnets\.0\.norm1\.weight \(middle.residual.0.norm_1.gamma\)",
    ),
    "missing q": (
        without(Q),
        r"lacks mid_block.attentions.0.to_q.weight \(middle.attention.0.query.kernel\)",
    ),
    "missing shortcut": (
        lambda t: [t.pop(f"{SHORTCUT}.{part}") for part in ("weight", "bias")],
        rf"lacks {SHORTCUT}.weight \(down.1.residual.0.shortcut.kernel\), and 1 more",
    ),
    "missing downsampler": (
        lambda t: [t.pop(f"down_blocks.0.downsamplers.0.conv.{p}") for p in ("weight", "bias")],
        r"lacks down_blocks.0.downsamplers.0.conv.weight \(down.0.downsample.kernel\), and 1 more",
    ),
    "extra": (
        put("class_embedding.weight", lambda _: np.zeros((10, 32), "float32")),
        "no place for class_embedding.weight",
    ),
    "extra level": (
        put("down_blocks.0.downsamplers.1.conv.bias", lambda _: np.zeros(8, "float32")),
        "no place for down_blocks.0.downsamplers.1.conv.bias",
    ),
    "both names": (
        put(Q.replace("to_q", "query"), lambda _: np.zeros((16, 16), "float32")),
        "no place for mid_block.attentions.0.query.weight",
    ),
    "transposed": (
        put("time_embedding.linear_1.weight", np.transpose),
        r"linear_1.weight \(time.dense_1.kernel\) has shape \(8, 32\), .* needs \(32, 8\)",
    ),
    "kernel axes": (
        put("conv_out.weight", lambda t: t.transpose(2, 3, 1, 0)),
        r"conv_out.weight \(last.conv.kernel\) has shape \(3, 3, 8, 1\), .* needs \(1, 8, 3, 3\)",
    ),
    "vector": (
        put("conv_norm_out.bias", lambda t: t[None]),
        r"conv_norm_out.bias \(last.norm.beta\) has shape \(1, 8\), .* needs \(8,\)",
    ),
    "nan": (
        put(Q, with_value(np.nan)),
        f"1 of 256 numbers of {Q} are not finite",
    ),
    "infinity": (put("conv_out.weight", with_value(np.inf)), "1 of 72 numbers of conv_out.weight"),
    "too large": (put(Q, with_value(1e39, "float64")), f"1 of 256 numbers of {Q} .* in float32"),
    "integers": (put(Q, lambda t: t.astype("int32")), f"{Q} is of type I32; it must be"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_tensor_is_named_and_changes_nothing(unet, tmp_path, damage):
    change, message = DAMAGES[damage]
    tensors = published_tensors()
    change(tensors)
    save_file(
        {name: np.ascontiguousarray(t) for name, t in tensors.items()}, tmp_path / "a.safetensors"
    )
    before = [np.copy(w) for w in unet.get_weights()]
    with pytest.raises(ValueError, match=message) as caught:
        load_published_weights(unet, tmp_path / "a.safetensors")
    assert "a.safetensors" in str(caught.value)
    for old, new in zip(before, unet.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_types_that_numpy_lacks_are_named(unet, tmp_path):
    header = {
        name: {"dtype": "BF16", "shape": [1], "data_offsets": [2 * i, 2 * i + 2]}
        for i, name in enumerate(published_shapes())
    }
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(2 * len(header)))
    with pytest.raises(
        ValueError, match=r"conv_\w+.\w+ is of type BF16; it must be float16, float32"
    ):
        load_published_weights(unet, path)


@pytest.mark.parametrize(
    "changes",
    [
        {"width_multipliers": (1, 2, 2)},
        {"residual_blocks": 2},
        {"attention_sizes": ()},
        {"attention_sizes": (8,)},  # as many layers, elsewhere
        {"base_width": 16},
        {"channels": 3},
        {"width_multipliers": (1, 3)},
    ],
    ids=str,
)
def test_a_network_of_other_sizes_is_refused_and_the_right_sizes_are_said(folder, changes):
    unet = tiny(**changes)
    before = unet.get_weights()
    with pytest.raises(ValueError, match=r"UNetParameters\(.*\)") as caught:
        load_published_weights(unet, folder)
    for old, new in zip(before, unet.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    said = str(caught.value).rpartition("UNetParameters(")[2].removesuffix(").")
    remedy = eval(f"dict({said})")  # as a reader would, who copies it
    repaired = build_unet(UNetParameters(**remedy, dropout=0.0, groups=4))
    load_published_weights(repaired, folder)
    assert_golden(repaired)


def test_attention_at_another_level_of_the_same_widths_is_refused(tmp_path):
    """As in the 256x256 network, whose last levels are as wide as the time: 32 here.

    There are equally many layers of each kind, and most of them have the same shape.
    """
    layers = {
        "conv_in": conv(1, 8),
        "time_embedding.linear_1": linear(8, 32),
        "time_embedding.linear_2": linear(32, 32),
        **residual("down_blocks.0.resnets.0", 8, 8),
        "down_blocks.0.downsamplers.0.conv": conv(8, 8),
        **residual("down_blocks.1.resnets.0", 8, 32),
        **attention("down_blocks.1.attentions.0", 32),
        "down_blocks.1.downsamplers.0.conv": conv(32, 32),
        **residual("down_blocks.2.resnets.0", 32, 32),
        **residual("mid_block.resnets.0", 32, 32),
        **attention("mid_block.attentions.0", 32),
        **residual("mid_block.resnets.1", 32, 32),
        **residual("up_blocks.0.resnets.0", 64, 32),
        **residual("up_blocks.0.resnets.1", 64, 32),
        "up_blocks.0.upsamplers.0.conv": conv(32, 32),
        **residual("up_blocks.1.resnets.0", 64, 32),
        **attention("up_blocks.1.attentions.0", 32),
        **residual("up_blocks.1.resnets.1", 40, 32),
        **attention("up_blocks.1.attentions.1", 32),
        "up_blocks.1.upsamplers.0.conv": conv(32, 32),
        **residual("up_blocks.2.resnets.0", 40, 8),
        **residual("up_blocks.2.resnets.1", 16, 8),
        "conv_norm_out": norm(8),
        "conv_out": conv(8, 1),
    }
    save_file(published_tensors(shapes=tensor_shapes(layers)), tmp_path / "a.safetensors")
    sizes = {"image_size": 16, "width_multipliers": (1, 4, 4)}
    load_published_weights(tiny(**sizes, attention_sizes=(8,)), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"lacks .*attention_sizes=\(8,\)"):
        load_published_weights(tiny(**sizes, attention_sizes=(4,)), tmp_path / "a.safetensors")


def test_what_is_not_a_network_of_build_unet_is_refused(folder):
    inside = keras.Input((8, 8, 1))
    foreign = keras.Model(inside, keras.layers.LayerNormalization()(inside))
    with pytest.raises(
        ValueError, match=r"weights \[\'layer_normalization.* is none that build_unet"
    ):
        load_published_weights(foreign, folder)
    empty = keras.Model(inside, keras.layers.UpSampling2D()(inside))
    with pytest.raises(ValueError, match=r"the weights \[\] is none that build_unet"):
        load_published_weights(empty, folder)
    with pytest.raises(TypeError, match="unet is a str; it must be a network"):
        load_published_weights("unet", folder)


def test_a_whole_model_is_refused_with_the_way_to_its_network(folder):
    class Whole(keras.Model):
        network = None

    with pytest.raises(TypeError, match=r"pass its network, model.network"):
        load_published_weights(Whole(), folder)


# ---------------------------------------------------------------------------------------------
# What is no such file
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"", "is damaged .*fetch the file again"),
        ("a.safetensors", b"<!doctype html>" * 100, "is damaged"),
        ("a.h5", b"1234", "ends in '.h5'; it must be"),
        ("weights", b"1234", "ends in ''; it must be"),
        ("a.bin", b"1234", r"ends in '.bin'; it must be .*may hold code.*save_pretrained"),
    ],
)
def test_other_files_are_refused(unet, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_published_weights(unet, tmp_path / name)


def test_a_file_cut_short_is_refused(unet, folder):
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"damaged .*[Ii]ncomplete.*fetch the file again"):
        load_published_weights(unet, path)


@pytest.mark.parametrize(
    "tensors",
    [{"encoder.conv_in.weight": np.zeros((2, 2))}, {"position_ids": np.zeros(3, "int64")}, {}],
    ids=str,
)
def test_the_file_of_another_model_is_refused(unet, tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    wanted = r"it lacks time_embedding.linear_1.weight .*, and \d+ more. Take a whole UNet2DModel"
    with pytest.raises(ValueError, match=wanted):
        load_published_weights(unet, tmp_path / "a.safetensors")


def test_an_absent_file_is_said_with_the_names_that_there_are(unet, tmp_path):
    for wrong in (tmp_path / "absent.safetensors", "google/absent.bin", "ddpm-cifar10-32"):
        with pytest.raises(FileNotFoundError, match=r"There is no file .*google/ddpm-cifar10-32"):
            load_published_weights(unet, wrong)
    with pytest.raises(FileNotFoundError, match="holds no diffusion_pytorch_model"):
        load_published_weights(unet, tmp_path)


def test_a_name_on_the_hub_is_answered_with_how_to_fetch_it(unet):
    said = r"hf_hub_download\('google/ddpm-cat-256', 'diffusion_pytorch_model.safetensors'\)"
    with pytest.raises(FileNotFoundError, match=said):
        load_published_weights(unet, "google/ddpm-cat-256")


# ---------------------------------------------------------------------------------------------
# The configuration beside the file
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("attention_head_dim", 8),
        ("attention_head_dim", [16]),
        ("attn_norm_num_groups", 2),
        ("center_input_sample", True),
        ("downsample_padding", 1),
        ("flip_sin_to_cos", True),
        ("freq_shift", 0),
        ("norm_eps", 1e-5),
        ("act_fn", "relu"),
        ("norm_num_groups", 8),
        ("resnet_time_scale_shift", "scale_shift"),
    ],
)
def test_a_configuration_that_computes_something_else_is_refused(unet, folder, setting, value):
    before = [np.copy(w) for w in unet.get_weights()]
    (folder / "config.json").write_text(json.dumps({**CONFIG, setting: value}))
    said = re.escape(f"config.json says {setting} = {value!r}, but")
    with pytest.raises(ValueError, match=said):
        load_published_weights(unet, folder)
    for old, new in zip(before, unet.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("attn_norm_num_groups", None),
        ("attn_norm_num_groups", 4),
        ("attention_head_dim", 16),  # the width of all attention here: a single head
    ],
)
def test_a_configuration_that_says_the_same_in_other_words_is_taken(unet, folder, setting, value):
    (folder / "config.json").write_text(json.dumps({**CONFIG, setting: value}))
    load_published_weights(unet, folder)
    assert_golden(unet)


def test_a_head_as_wide_as_some_levels_only_is_refused(tmp_path):
    """diffusers would then have several heads at the others."""
    unet = tiny(width_multipliers=(1, 2, 3), attention_sizes=(4,))
    path = config_in(tmp_path, attention_head_dim=16)
    config = published_weights._config(path)
    with pytest.raises(ValueError, match="says attention_head_dim = 16"):
        published_weights._check_config(config, path, unet, published_weights._variables(unet))


def config_in(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder / "config.json"


def test_the_configuration_of_another_network_is_refused(unet, folder):
    config_in(folder, _class_name="MyUNet2DModel", time_embedding_type="fourier")
    with pytest.raises(ValueError, match=r"config.json is of a 'MyUNet2DModel'"):
        load_published_weights(unet, folder)


@pytest.mark.parametrize("setting", ["freq_shift", "attention_head_dim", "downsample_padding"])
def test_what_a_configuration_leaves_out_is_what_diffusers_would_take(unet, folder, setting):
    rest = {name: value for name, value in CONFIG.items() if name != setting}
    (folder / "config.json").write_text(json.dumps(rest))
    with pytest.raises(ValueError, match=f"config.json leaves to diffusers {setting} = "):
        load_published_weights(unet, folder)


def test_the_groups_that_the_configuration_asks_for_load(folder):
    """The tensors say nothing about the groups: without a configuration nobody could know."""
    unet = tiny(groups=2)
    with pytest.raises(ValueError, match=r"norm_num_groups = 4, but .* groups=4"):
        load_published_weights(unet, folder)
    (folder / "config.json").unlink()
    with pytest.warns(UserWarning, match=r"There is no config.json.*in so many groups"):
        load_published_weights(unet, folder)
    with pytest.raises(AssertionError):
        assert_golden(unet)


def test_the_configuration_of_something_else_is_passed_over_and_a_broken_one_is_not(unet, folder):
    (folder / "config.json").write_text('{"colour": "blue"}')
    with pytest.warns(UserWarning, match=r"There is no config.json of a UNet2DModel"):
        load_published_weights(unet, folder)
    (folder / "config.json").write_text('{"colour": ')
    with pytest.raises(ValueError, match=r"config.json, .*cannot be read"):
        load_published_weights(unet, folder)


@pytest.mark.parametrize("text", ["[" * 10**5, " " * 2 * 10**6, '{"a": NaN}'])
def test_a_configuration_is_read_without_trust(unet, folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json, which says how .*cannot be read"):
        load_published_weights(unet, folder)


def test_sizes_are_not_described_of_what_no_network_can_have(unet, tmp_path):
    names = [f"down_blocks.{i}.resnets.0.conv1.weight" for i in range(20)]
    tensors = dict.fromkeys([*names, "conv_in.weight"], np.zeros((1, 1, 1, 1), "f4"))
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="Take a whole UNet2DModel") as caught:
        load_published_weights(unet, tmp_path / "a.safetensors")
    assert "UNetParameters" not in str(caught.value)
