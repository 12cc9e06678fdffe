"""What a line names is looked up before anything begins, and a fault has a remedy in the line."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from command_line.lines import IMAGES, refused, train_words
from diffusion_walkthrough import faces
from diffusion_walkthrough.command_line import checking
from diffusion_walkthrough.command_line.words import parse
from diffusion_walkthrough.data import load_images, to_uint8
from diffusion_walkthrough.faster_sampling import spaced
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters

DIGITS, FACES = DiffusionParameters.digits(), DiffusionParameters.faces()


@pytest.fixture
def pictures(tmp_path):
    """A folder of six grey pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(IMAGES[:6]):
        Image.fromarray(to_uint8(image[..., 0])).save(folder / f"{i}.png")
    return folder


# Parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("digit", "Did you mean 'digits'?"),
        ("digits.json", "Did you mean 'digits'?"),
        ("zzz", "none of digits, mnist, cifar10, celeba_hq_256, faces"),
        ("zzz", "`python -m diffusion_walkthrough params --out my.json` writes a first one."),
        ("nowhere.json", "nor a file (.json or .pkl) that is there"),
        ("", "--parameters is empty. Name a file or a folder."),
        ("~no_such_person/x.json", "Write the whole path, without the ~."),
    ],
)
def test_parameters_are_a_preset_a_file_or_a_guess(capsys, given, message):
    assert message in refused(capsys, "plan", "--parameters", given)


def test_a_file_of_parameters_is_read_with_its_own_errors(tmp_path, capsys):
    file = tmp_path / "my.json"
    file.write_text('{"format": "mine"}')
    assert f"{file} cannot be read as parameters" in refused(capsys, "plan", "--parameters", file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("decay_step=5", "there is no parameter 'decay_step'. Did you mean 'decay_steps'?"),
        ("unet.timesteps=5", "there is no parameter 'unet.timesteps'. Did you mean 'timesteps'?"),
        ("colour=5", "They are prediction, variance, loss, pixel_levels, name, timesteps"),
        ("decay_steps=5", "decay_steps=5: decay_steps must be a whole number of at least 101"),
        ("decay_steps=many", "decay_steps='many'"),
        ("batch_size=0", "batch_size=0"),
    ],
)
def test_a_change_is_checked_as_parameters_are(capsys, change, message):
    assert message in refused(capsys, "plan", "--parameters", "digits", "--set", change)


def test_changes_come_on_top_of_presets():
    line = ["plan", "--parameters", "digits", "--precision", "mixed_bfloat16", "--batch-size", "32"]
    line += ["--set", "training.decay_steps=None", "--set", "name=linear"]
    found = checking.parameters_of(parse(line))
    assert (found.training.precision, found.training.batch_size) == ("mixed_bfloat16", 32)
    assert (found.training.decay_steps, found.schedule.name) == (None, "linear")
    assert found.unet == DIGITS.unet


@pytest.mark.parametrize("data", ["digits", "faces", "mnist", "fashion_mnist", "cifar10"])
def test_first_parameters_fit_the_data(data):
    found = checking.first_parameters(parse(["params", "--data", data]))
    assert found == DiffusionParameters.for_data(data, checking.SIZES[data][1:])
    assert found.unet.image_shape == checking.SIZES[data][1:]


@pytest.mark.parametrize("data", ["digits", "faces"])
def test_the_sizes_are_those_of_the_data(data):
    assert load_images(data)[0].shape == checking.SIZES[data]


def test_what_contradicts_itself_is_refused(capsys, pictures, tmp_path):
    both = refused(capsys, "params", "--data", "digits", "--parameters", "digits")
    assert "Leave one of them out" in both
    assert "--image-size is the size" in refused(capsys, "params", "--image-size", 8)
    assert "squares of an even side" in refused(
        capsys, "params", "--data", pictures, "--image-size", 9
    )
    np.savez(tmp_path / "wide.npz", images=np.zeros((2, 8, 10), "uint8"))
    wide = refused(capsys, "params", "--data", tmp_path / "wide.npz")
    assert "8 pixels high and 10 wide" in wide


# Data ------------------------------------------------------------------------------------------


def test_a_fault_of_the_data_is_told_by_its_option(capsys, pictures, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    begin = ["train", "--parameters", "digits", "--folder", tmp_path / "run"]
    assert "Did you mean 'digits'?" in refused(capsys, *begin, "--data", "digit")
    nowhere = refused(capsys, *begin, "--data", "nowhere.npz")
    assert "--data nowhere.npz is neither a data set" in nowhere
    text = refused(capsys, *begin, "--data", tmp_path / "a.txt")
    assert "is neither a folder of pictures nor an .npz file" in text
    other = refused(capsys, *begin, "--data", "faces")
    assert "have shape (16, 16, 3)" in other
    assert "params --data faces --out fitting.json` writes some that fit." in other
    grey = refused(capsys, "train", "--parameters", "faces", *begin[3:], "--data", pictures)
    assert "have shape (16, 16, 1) (height, width, channels), and the parameters are for" in grey
    alone = refused(capsys, "train", "--parameters", "celeba_hq_256", "--folder", tmp_path / "run")
    assert "--data with a folder" in alone
    assert not (tmp_path / "run").exists()


def test_data_without_held_out_images_asks_for_a_folder_of_them(capsys, pictures, tmp_path):
    np.savez(tmp_path / "train.npz", images=to_uint8(IMAGES))
    for data in (pictures, tmp_path / "train.npz"):
        error = refused(capsys, "evaluate", "--model", "digits", "--data", data)
        assert f"--data {data} has no held-out images of its own" in error
        assert "--held-out FOLDER." in error
    same = refused(
        capsys, "evaluate", "--model", "digits", "--data", pictures, "--held-out", pictures
    )
    assert "a model that copies it would look perfect" in same


def test_held_out_images_are_the_test_split_where_there_is_one(workshop, pictures):
    some = str(workshop / "some.npz")
    for words, expected in [
        (["--data", "digits"], ("digits", "test")),
        (["--data", some], (some, "test")),
        (["--data", str(pictures), "--held-out", some], (some, "test")),
        (["--data", some, "--held-out", "digits"], ("digits", "test")),
        (["--data", some, "--held-out", str(pictures)], (str(pictures), "train")),
    ]:
        options = parse(["evaluate", "--model", "digits", *words])
        assert checking.held_out_of(options, options.data) == expected


def test_the_preset_finds_its_images():
    assert checking.data_of(None, FACES) == "faces"
    assert checking.data_of(None, DiffusionParameters.mnist()) == "mnist"
    images, labels = checking.labelled("faces", FACES, "test")
    assert labels is None
    np.testing.assert_array_equal(images[:20], faces.draw(20, split="test")[0])


def test_too_few_images_are_told_before_they_are_drawn(capsys, pictures):
    few = refused(capsys, "evaluate", "--model", "digits", "-n", "3")
    assert "3 images are too few to compare" in few
    assert "Ask for more: -n." in few
    (pictures / "0.png").unlink()
    few = refused(capsys, "evaluate", "--model", "digits", "--held-out", pictures)
    assert "5 images are too few" in few
    assert "Add images to --data or --held-out." in few


# The way back ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampler", "heun", "--eta", "1"], "--eta belongs to --sampler ddim; heun has no such"),
        (["--sigma-max", "5000"], "--sigma-max 5000.0 must be between this model's first and last"),
        (["--steps", "101"], "--steps 101 is more than there are: with --spacing even, at most"),
        (["--steps", "99", "--sigma-max", "5"], "--steps 99 is more than there are"),
        (["--steps", "10001", "--spacing", "karras"], "--steps 10001 must be at most 10000; more"),
        (["-n", "100000"], "Draw at most 26843 into a .png, or name an --out that ends in .npz."),
    ],
)
def test_a_way_back_that_cannot_be_is_told_before(capsys, tmp_path, words, message):
    begin = ["sample", "--model", "digits", "--out", tmp_path / "x.png"]
    assert message in refused(capsys, *begin, *words)


def test_more_images_than_the_disk_has_room_for_are_told_before(capsys, tmp_path):
    begin = ["sample", "--model", "digits", "--out", tmp_path / "new" / "x.npz"]
    assert "would need 6.4e+04 GB, and" in refused(capsys, *begin, "-n", 10**12 - 1)
    assert not (tmp_path / "new").exists()


def test_a_spacing_from_infinite_noise_asks_for_a_beginning(capsys, tmp_path):
    begin = ["sample", "--model", "faces", "--out", tmp_path / "x.png", "--spacing", "karras"]
    assert "Begin at less: --sigma-max 80." in refused(capsys, *begin)


@pytest.mark.parametrize(
    "words", [["--restarts", "3"], ["--steps", "9"], ["--spacing", "karras"], ["--sigma-max", "20"]]
)
def test_a_learned_variance_walks_all_steps_or_with_another_sampler(words):
    parameters = dataclasses.replace(DIGITS, variance="learned", loss="kl")
    line = ["sample", "--model", "m", "--out", "x.png", *words]
    with pytest.raises(ValueError, match=f"{words[0]}.*or walk with --sampler ddim"):
        checking.way_back(parse(line), parameters)
    checking.way_back(parse([*line, "--sampler", "ddim"]), parameters)
    checking.way_back(parse([*line[:5], "--steps", "100", "--restarts", "0"]), parameters)


def test_a_schedule_without_the_noise_of_a_restart_says_so():
    schedule = dataclasses.replace(DIGITS.schedule, name="const", timesteps=3, beta_end=1e-4)
    little = dataclasses.replace(DIGITS, schedule=dataclasses.replace(schedule, scaled=False))
    line = parse(["sample", "--model", "m", "--out", "x.png", "--restarts", "3"])
    with pytest.raises(ValueError, match=r"noise of σ = 0.4, and this model's first and last σ"):
        checking.way_back(line, little)


@pytest.mark.parametrize("parameters", [DIGITS, FACES], ids=["cosine", "jsd"])
@pytest.mark.parametrize("spacing", ["even", "log_snr", "karras"])
@pytest.mark.parametrize("sigma", [None, 1e-6, 0.02, 1.0, 20.0, 80.0, 1e6])
@pytest.mark.parametrize("steps", [None, 1, 20, 90, 100, 101, 260, 10_001])
def test_the_line_refuses_what_the_samplers_refuse(parameters, spacing, sigma, steps):
    schedule = NoiseSchedule.from_parameters(parameters.schedule)
    words = ["sample", "--model", "m", "--out", "x.png", "--spacing", spacing]
    words += [] if sigma is None else ["--sigma-max", str(sigma)]
    words += [] if steps is None else ["--steps", str(steps)]
    if steps is None and sigma is not None and spacing == "even":
        return  # as many as fit, by the sampler's own choice
    try:
        spaced(schedule, steps, spacing, sigma)
    except ValueError:
        with pytest.raises(ValueError, match="--"):
            checking.way_back(parse(words), parameters)
    else:
        expected = {"step": "ddpm", "steps": steps, "sigma_max": sigma}
        expected["spacing"] = None if spacing == "even" else spacing
        found = checking.way_back(parse(words), parameters)
        assert found == {name: value for name, value in expected.items() if value is not None}


# Runs that have begun --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "5"], "was begun with seed 0, and this line has 5. Go on with what it was: --"),
        (["--set", "timesteps=11"], "begun with timesteps 10, and this line has 11. Go on with"),
        (
            ["--batch-size", "8"],
            "batch_size 16, and this line has 8. Go on with what it was: --b",
        ),
        (["--steps-per-epoch", "3"], "steps per epoch 4, and this line has 3"),
        (["--data", "digits"], "images [64, 8, 8, 1], and this line has [1500, 8, 8, 1]"),
        (["--set", "width_multipliers=1,1"], "it was: --set 'width_multipliers=(1,)'; or choose"),
    ],
)
def test_a_folder_begun_in_another_way_is_told_before(run, workshop, capsys, words, message):
    assert message in refused(capsys, *train_words(workshop, run, 2, *words))


def test_epochs_beyond_the_end_of_the_learning_rate_are_refused(workshop, tmp_path, capsys):
    words = train_words(workshop, tmp_path / "run", 3, "--set", "decay_steps=8")
    error = refused(capsys, *words)
    assert "--epochs 3: the run is over after 2, when the learning rate has fallen to 0" in error
    assert "--set decay_steps=12, in a new --folder." in error


@pytest.mark.parametrize(
    ("decay", "parts", "steps", "epochs"),
    [(None, 1, 4, 1), (8, 1, 4, 2), (9, 1, 4, 3), (8, 2, 4, 4), (1080, 1, 12, 90)],
)
def test_a_run_is_planned_by_its_steps(decay, parts, steps, epochs):
    changes = [("decay_steps", decay), ("gradient_accumulation_steps", parts), ("warmup_steps", 0)]
    assert checking.planned_epochs(checking.changed(DIGITS, changes), steps) == epochs


# Labels ----------------------------------------------------------------------------------------

TOLD = DiffusionParameters.digits_conditional()
TOLD_FACES = DiffusionParameters.faces_conditional()


def sample_line(*words):
    return parse(["sample", "--model", "m", "--out", "o.png", "-n", "5", *words])


def test_what_images_are_to_show_is_told_of_each():
    assert checking.told(sample_line(), TOLD) == {}
    found = checking.told(sample_line("--labels", "4,0", "--guidance-scale", "2"), TOLD)
    assert found["labels"]["digit"].tolist() == [4, 0, 4, 0, 4]
    assert found["guidance_scale"] == 2.0
    found = checking.told(sample_line("--labels", "hat=3,beard=0"), TOLD_FACES)
    assert {name: values.tolist() for name, values in found["labels"].items()} == {
        "hat": [3] * 5,
        "beard": [0] * 5,
    }


@pytest.mark.parametrize(
    ("words", "parameters", "message"),
    [
        (["--labels", "3"], DIGITS, "--labels: this model's network is told no labels"),
        (["--guidance-scale", "2"], DIGITS, "--guidance-scale: this model's network is told no"),
        (["--guidance-scale", "2"], TOLD, "goes on towards what labels say. Say what: --labels"),
        (["--labels", "10"], TOLD, "--labels: digit=10 must be from 0 to 9, or -1"),
        (["--labels", "0,1,2,3,4,5"], TOLD, "--labels 0,1,2,3,4,5 has 6 numbers, for 5 images"),
        (["--labels", "2,-2"], TOLD, "--labels: digit=-2 must be from 0 to 9"),
        (["--labels", "digits=1"], TOLD, "the model knows no digits. Did you mean 'digit'?"),
        (["--labels", "3"], TOLD_FACES, "Give the numbers their names: --labels hat=0,glasses=0"),
    ],
)
def test_labels_that_the_model_does_not_know_are_refused(words, parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checking.told(sample_line(*words), parameters)


def test_data_come_with_the_labels_that_the_network_is_told(tmp_path):
    labels = checking.labelled("digits", TOLD, "test")[1]
    np.testing.assert_array_equal(labels, load_images("digits", split="test")[1])
    assert checking.labelled("digits", DIGITS, "test")[1] is None
    assert checking.labelled("faces", TOLD_FACES, "test")[1].shape == (10_000, 5)
    np.savez(tmp_path / "own.npz", images=to_uint8(IMAGES))
    with pytest.raises(ValueError, match=r"is told digit of each image, and .* has no labels"):
        checking.labelled(str(tmp_path / "own.npz"), TOLD, "train")
    with pytest.raises(ValueError, match=r"own\.npz has one label for each"):
        checking.labelled(str(tmp_path / "own.npz"), TOLD_FACES, "train")


def classes(folder, **pictures):
    """A folder of so many pictures of each class."""
    for name, count in pictures.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (8, 8), 40 * i).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ({"bee": 6, "cat": 6}, "lacks ape, so that the same numbers would stand for other classes"),
        ({"cat": 6}, "lacks ape, bee, so that"),
        ({"ape": 1, "bee": 3, "cat": 3, "dog": 3}, "has dog more, so that"),
        ({"ape": 0, "bee": 3, "cat": 3}, None),
    ],
)
def test_the_classes_of_two_folders_are_the_same(tmp_path, held_out, message):
    train = classes(tmp_path / "train", ape=3, bee=3, cat=3, __MACOSX=0)
    line = ["--data", str(train), "--held-out", str(classes(tmp_path / "test", **held_out))]
    line = parse(["evaluate", "--model", "digits-conditional", *line])
    if message is None:
        assert checking.comparison(line).labels.tolist() == [1, 1, 1, 2, 2, 2]
        return
    with pytest.raises(ValueError, match=message):
        checking.comparison(line)
    line.model = "digits"  # which is told no labels
    assert checking.comparison(line).labels is None


@pytest.mark.parametrize(
    ("label", "remedy"),
    [
        (10, "Train a network that is told of it: --set \"labels={'digit': 11}\"."),
        (-2, "Number the classes from 0 on."),
    ],
)
def test_labels_of_which_the_network_is_not_told_are_refused(tmp_path, capsys, label, remedy):
    labels = np.arange(64) % 10
    labels[5] = label
    np.savez(tmp_path / "own.npz", images=to_uint8(IMAGES), labels=labels)
    words = ["--parameters", "digits_conditional", "--folder", tmp_path / "run"]
    told = refused(capsys, "train", "--data", tmp_path / "own.npz", *words)
    assert f"has images with the label {label}, and the network is told digit from 0 to 9" in told
    assert remedy in told
    assert not (tmp_path / "run").exists()


def test_of_several_labels_each_is_looked_at():
    labels = dict(TOLD_FACES.unet.labels) | {"glasses": 1}
    unet = dataclasses.replace(TOLD_FACES.unet, labels=tuple(labels.items()))
    with pytest.raises(ValueError, match=r"is told glasses from 0 to 0.*'glasses': 5, 'beard"):
        checking.labelled("faces", dataclasses.replace(TOLD_FACES, unet=unet), "train")


def test_the_labels_that_are_missing_are_named(tmp_path, pictures):
    pixels = to_uint8(IMAGES)
    np.savez(tmp_path / "half.npz", x_train=pixels, y_train=np.arange(64) % 10, x_test=pixels)
    np.savez(tmp_path / "none.npz", images=pixels)
    for name, split, remedy in [
        ("half.npz", "test", "Put y_test into the .npz"),
        ("none.npz", "train", "Put labels into the .npz"),
        ("pictures", "train", "Put the pictures into a folder for each class"),
    ]:
        with pytest.raises(ValueError, match=remedy):
            checking.labelled(str(tmp_path / name), TOLD, split)
