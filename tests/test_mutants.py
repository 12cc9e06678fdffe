"""What `make mutants` does with the published mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

import mutants

TESTS = Path(__file__).parent


def test_a_mutant_is_switched_on_in_a_process_of_its_own():
    code = (
        "import mutants; mutants.switch_on('posterior_weight_without_beta');"
        "from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas;"
        "print(NoiseSchedule(make_betas()).posterior_mean_coef1[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=TESTS.parent / "tools",
        capture_output=True,
        text=True,
        check=True,
    )
    # 8,339 times too large at t = 1.
    assert float(run.stdout) / 0.5452915 == pytest.approx(8339, rel=1e-3)


def test_what_has_changed_is_found_by_its_module_and_by_its_tests(monkeypatch):
    def run(command, **_):
        changed = {"origin/main": "", "HEAD~1": "README.md\ntests/test_data.py\n"}[command[-1]]
        return subprocess.CompletedProcess(command, 0, stdout=changed)

    monkeypatch.setattr(mutants.subprocess, "run", run)
    found = mutants.changed()
    assert {mistake.module for mistake in found} == {"data"}
    assert len(found) == 3


def test_a_crash_is_no_judgement_unless_it_belongs_to_the_mistake():
    saw = mutants.Verdict(False, "test_it", "assert 1 == 2", 0.0)
    crashed = saw._replace(said="TypeError: no")
    passed = mutants.Verdict(True, "", "pytest ended with 0", 0.0)
    mistake = mutants.named("noise_at_the_last_step")
    assert [mutants.is_caught(mistake, v) for v in (saw, crashed, passed)] == [True, False, False]
    assert mutants.is_caught(mutants.named("shares_that_overlap"), crashed)


def test_an_unknown_mutant_is_refused():
    with pytest.raises(KeyError, match="no such mistake"):
        mutants.switch_on("imaginary")
