"""What makes it fast and safe. Nothing here is needed to understand diffusion.

The engine stands below every chapter and imports none: what is taught is handed to it.
"""
