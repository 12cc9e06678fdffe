"""A plan before the wait: what a network costs, what a machine has, and whether the one fits.

:mod:`~diffusion_walkthrough.planner.counting` counts a network's parameters and operations from its
sizes alone, :mod:`~diffusion_walkthrough.planner.machines` knows machines, published and this one,
and :mod:`~diffusion_walkthrough.planner.plan` puts the two beside each other.
"""
