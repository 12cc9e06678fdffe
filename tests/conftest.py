"""What all tests share."""

import os

from hypothesis import settings

# A shared machine is slow now and then; how long an example takes is not what is tested.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# `make mutants` has the package imported with a published mistake in it (tools/mutants.py).
if os.environ.get("MUTANT"):
    import mutants

    mutants.switch_on(os.environ["MUTANT"])
