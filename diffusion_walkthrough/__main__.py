"""``python -m diffusion_walkthrough``: see :mod:`diffusion_walkthrough.command_line`."""

import sys

from diffusion_walkthrough.command_line import main

if __name__ == "__main__":
    sys.exit(main())
