"""What all tests share."""

from hypothesis import settings

# A shared machine is slow now and then; how long an example takes is not what is tested.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
