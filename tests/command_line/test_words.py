"""Words that are not known, or cannot be, are told with the nearest that can."""

import dataclasses
import warnings

import pytest

from command_line.lines import in_a_process, one_by_one
from diffusion_walkthrough import data, faster_sampling, parameters
from diffusion_walkthrough.command_line import checking, words
from diffusion_walkthrough.command_line.words import WordError, parse
from diffusion_walkthrough.planner import machines

SAMPLE = ["sample", "--model", "digits", "--out", "x.png"]
COMMANDS = ["train", "sample", "evaluate", "plan", "params"]


def test_the_names_are_those_there_are():
    assert words.DATA_SETS == data.DATA_SET_NAMES
    assert set(checking.SIZES) == set(data.DATA_SET_NAMES)
    assert tuple(faster_sampling.SAMPLERS) == words.SAMPLERS
    assert faster_sampling.SPACING_NAMES == words.SPACINGS
    assert faster_sampling.RESTART_SIGMA == checking.RESTART_SIGMA
    assert faster_sampling.MOST_STEPS == checking.MOST_STEPS
    assert (machines.THIS_MACHINE, *machines.MACHINES) == words.DEVICES
    for preset in words.PRESETS:
        assert getattr(parameters.DiffusionParameters, preset)().unet


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "name a command: train, sample, evaluate, plan, params."),
        (["--quiet"], "name a command"),
        (["traim"], "traim is none of the commands train, sample"),
        (["traim"], "Did you mean 'train'? See python -m diffusion_walkthrough --help."),
        (["train"], "the following arguments are required: --parameters, --folder. See"),
        ([*SAMPLE, "--restarts", "-1"], "--restarts: -1 must be a whole number of at least 0"),
        ([*SAMPLE, "--restarts", "few"], "--restarts: few must be a whole number of at least 0"),
        ([*SAMPLE, "--batchsize", "3"], "--batchsize is no option of sample. Did you mean '--b"),
        (["--json", "params"], "--json belongs after the command. Write params --json. See"),
        (["--seed=3", *SAMPLE], "--seed belongs after the command. Write sample --seed=3. See"),
        (["--jsn", "params"], "--jsn is no option of params. Did you mean '--json'?"),
        ([*SAMPLE, "--batchsize=3"], "--batchsize is no option of sample. Did you mean '--b"),
        (["train", "--batch-size", "0"], "--batch-size: 0 must be a whole number of at least 1."),
        (["train", "--epochs", "0"], "--epochs: 0 must be"),
        (["train", "--epochs", "1" * 30], "more than anybody can wait for"),
        (["train", "--steps-per-epoch", "2.5"], "--steps-per-epoch: 2.5 must be"),
        (["train", "--pictures-every", "0"], "--pictures-every: 0 must be"),
        (["train", "--seed", "-1"], "--seed: -1 must be a whole number from 0 to 4294967295."),
        (["train", "--seed", str(2**32)], "--seed: 4294967296 must be"),
        (["train", "--set", "decay_steps"], "decay_steps must be NAME=VALUE, as decay_steps=2160"),
        (["plan", "--precision", "float16"], "Did you mean 'mixed_float16'?"),
        (["plan", "--device", "T5"], "T5 is none of this machine"),
        (
            ["plan", "--parameters", "digits", "--js"],
            "--js is no option of plan. Did you mean '--j",
        ),
        (["plan", "--parameters", "digits", "--im=3"], "--im is no option of plan. Did you mean"),
        (["plan", "--parameters", "-x"], "--parameters: expected one argument. One that begins wi"),
        ([*SAMPLE, "--labels", "-1,2"], "with - is written so: --labels=-1,2. See"),
        (["plan", "--images", "many"], "--images: many must be"),
        (["evaluate", "-n", "-39"], "-n/--n: -39 must be"),
        ([*SAMPLE, "-n", "0"], "-n/--n: 0 must be"),
        ([*SAMPLE, "--steps", "0"], "--steps: 0 must be a whole number of at least 1"),
        ([*SAMPLE, "--sampler", "dimm"], "Did you mean 'ddim'?"),
        ([*SAMPLE, "--spacing", "kerras"], "Did you mean 'karras'?"),
        ([*SAMPLE, "--eta", "2"], "--eta: 2 must be a number from 0 to 1"),
        ([*SAMPLE, "--sigma-max", "nan"], "--sigma-max: nan must be a number above 0"),
        ([*SAMPLE, "--sigma-max", "inf"], "--sigma-max: inf must be a number above 0"),
        ([*SAMPLE, "--sigma-max", "much"], "--sigma-max: much must be a number above 0"),
    ],
)
def test_a_word_that_cannot_be_names_the_remedy(line, message):
    with pytest.raises(WordError) as error:
        parse(line)
    assert message in str(error.value)
    assert str(error.value).endswith("--help.")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("decay_steps=2160", 2160),
        ("decay_steps=None", None),
        ("decay_steps=null", None),
        ("horizontal_flip=true", True),
        ("horizontal_flip=False", False),
        ("learning_rate=1e-3", 1e-3),
        ("name=cosine", "cosine"),
        ("width_multipliers=1,2", (1, 2)),
        ("attention_sizes=[4]", [4]),
        ("name=a=b", "a=b"),
        ("name=" + "(" * 999, "(" * 999),
        ("labels={[]:1}", "{[]:1}"),
        ("name=1and", "1and"),
        ("name=__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_a_change_is_written_as_python_or_json_writes_it(text, value):
    with warnings.catch_warnings(action="always", record=True) as told:
        found = parse(["params", "--set", text]).set
    assert told == []
    assert found == [(text.partition("=")[0], value)]
    assert type(found[0][1]) is type(value)


def test_each_parameter_has_a_name_of_its_own():
    """So that --set needs no more than its name."""
    kinds = [parameters.ScheduleParameters, parameters.UNetParameters]
    kinds += [parameters.TrainingParameters, parameters.DiffusionParameters]
    names = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_and_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        parse([command, "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert f"python -m diffusion_walkthrough {command} --" in printed
    actions = words._parser()[1][command]._actions
    assert all(action.help for action in actions)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_a_command_is_a_line_that_can_be_said(command):
    example = words._parser()[1][command].epilog.partition("diffusion_walkthrough ")[2]
    line = example.replace("'RTX 2060 SUPER'", "RTX_2060").split()
    assert parse([word.replace("_2060", " 2060 SUPER") for word in line]).command == command


def test_the_exit_codes_stand_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("0 done", "1 something failed", "2 a word of the line", "130 ended by Ctrl-C"):
        assert text in printed


def test_versions_are_what_a_report_should_name(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--version"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    for name in ("diffusion_walkthrough 0", "Python 3", "keras 3", "tensorflow 2", "numpy "):
        assert f"\n{name}" in f"\n{printed}"


def test_help_and_mistyped_words_need_not_even_numpy():
    code = (
        "import sys\nfrom diffusion_walkthrough.command_line import main\n"
        "assert main(['traim']) == 2\n"
        "try:\n    main(['train', '--help'])\n"
        "finally:\n    assert not {'numpy', 'keras'} & set(sys.modules)"
    )
    done = in_a_process(code=code)
    assert (done.returncode, b"--epochs" in done.stdout) == (0, True)


def test_every_fault_of_a_line_is_told_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "file.txt").write_text("a file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    lines = [
        ["train", "--parameters", "digit", "--folder", "x"],
        ["train", "--parameters", "digits", "--folder", str(tmp_path / "file.txt" / "x")],
        ["train", "--parameters", "digits", "--folder", str(tmp_path / "link")],
        ["train", "--parameters", "digits", "--folder", "x", "--data", "digit"],
        ["train", "--parameters", "digits", "--folder", "x", "--data", str(tmp_path / "empty")],
        ["train", "--parameters", "digits", "--folder", "x", "--data", "faces"],
        ["sample", "--model", "digit", "--out", "x.png"],
        ["sample", "--model", "digits", "--out", str(tmp_path / "file.txt")],
        [*SAMPLE, "--steps", "101"],
        [*SAMPLE, "--steps", "999999999", "--spacing", "karras"],
        [*SAMPLE, "--sampler", "heun", "--eta", "1"],
        [*SAMPLE, "-n", "100000"],
        ["evaluate", "--model", "digits", "--data", str(tmp_path / "empty")],
        ["evaluate", "--model", str(tmp_path / "empty")],
        ["evaluate", "--model", "digits", "-n", "5"],
        ["train", "--parameters", "digits", "--folder", "x", "--epochs", "91"],
        ["plan", "--parameters", "zzz"],
        ["plan", "--parameters", "digits", "--set", "timesteps=0"],
        ["params", "--data", "digits", "--parameters", "digits"],
    ]
    for line, (code, error, heavy, seconds) in zip(lines, one_by_one(lines), strict=True):
        assert (code, heavy) == (2, []), line
        assert error.startswith("error: "), line
        assert error.count("\n") == 1, line
        assert seconds < 5, line  # in fact some milliseconds: machines may be busy


def test_the_package_can_be_run():
    done = in_a_process("sample", "--help")
    assert (done.returncode, b"Draw images" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", [3]),
        ("0,1,2", [0, 1, 2]),
        ("-1", [-1]),
        ("hat=3", {"hat": 3}),
        ("hat=3, glasses=-1", {"hat": 3, "glasses": -1}),
    ],
)
def test_labels_are_numbers_in_turn_or_by_name(text, value):
    line = ["sample", "--model", "m", "--out", "o.png", f"--labels={text}"]
    assert parse(line).labels == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "crown"], "crown must be a whole number, or NAME=NUMBER, as hat=3"),
        (["--labels", "hat=1.5"], "hat=1.5 must be a whole number"),
        (["--labels", "1,"], "must be a whole number"),
        (["--labels", "hat=0,hat=1"], "hat has more than one number. Give one; of a model"),
        (["--labels", "3,hat=2"], "must give a name to every number, or to none"),
        (["--guidance-scale", "-1"], "-1 must be a number from 0 to 1000"),
        (["--guidance-scale", "nan"], "nan must be a number from 0 to 1000"),
    ],
)
def test_labels_and_guidance_that_cannot_be_are_refused(words, message):
    with pytest.raises(WordError) as error:
        parse(["sample", "--model", "m", "--out", "o.png", *words])
    assert message in str(error.value)
