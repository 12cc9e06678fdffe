"""What the notebooks show and ask, never what they teach."""

from diffusion_walkthrough.classroom.lesson import start

__all__ = ["start"]
