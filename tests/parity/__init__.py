"""Comparisons with libraries that nobody here wrote: PyTorch and diffusers.

A package, so that a file here may bear the name of one in tests/. Run with ``make parity``.
"""
