"""What a run has saved is found in its folder, and what it has not is said."""

import pytest

from diffusion_walkthrough.files.folders import has_begun, model_of_run, resume_folder


def test_the_checkpoints_of_an_earlier_version_are_where_they_were(tmp_path):
    assert resume_folder(tmp_path) == tmp_path / "resume"
    (tmp_path / "checkpoints").mkdir()
    assert resume_folder(tmp_path) == tmp_path / "checkpoints"


@pytest.mark.parametrize("begun", [".lock", "checkpoint-000001.npz"])
@pytest.mark.parametrize("name", ["resume", "checkpoints"])
def test_a_run_without_a_model_says_so(tmp_path, name, begun):
    assert model_of_run(tmp_path, "here") is None
    (tmp_path / name).mkdir()
    assert not has_begun(tmp_path)  # a folder of that name may be anybody's
    assert model_of_run(tmp_path, "here") is None
    (tmp_path / name / begun).touch()
    assert has_begun(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^--model x: this run has saved no model yet"):
        model_of_run(tmp_path, "--model x")
    (tmp_path / "model").mkdir()
    assert model_of_run(tmp_path, "--model x") == tmp_path / "model"
