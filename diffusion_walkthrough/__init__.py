"""A course on denoising diffusion, and the small, tested package it is made of.

Each chapter is one notebook, one module and one test file of the same name. Importing this
package loads nothing heavy; import the module of the chapter you are reading, for example
``from diffusion_walkthrough.parameters import DiffusionParameters``.
"""

__version__ = "0.2.0"
