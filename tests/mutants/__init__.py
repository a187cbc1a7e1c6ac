"""Planted wrong kernels, as users would write them, each beside the kernel without the mistake.

A row of the list that names several mistakes has a mutant for each of them.
"""

from . import (
    activations,
    backward,
    batches,
    behaviour,
    contents,
    elementwise,
    graphs,
    losses,
    losses_multilabel,
    profiles,
    rowwise,
    sizes,
)
from ._mutant import CONDITIONS, Kernel, Mutant

__all__ = ["CONDITIONS", "MUTANTS", "Kernel", "Mutant"]

MUTANTS: list[Mutant] = sorted(
    [
        *elementwise.MUTANTS,
        *activations.MUTANTS,
        *rowwise.MUTANTS,
        *losses.MUTANTS,
        *losses_multilabel.MUTANTS,
        *profiles.MUTANTS,
        *batches.MUTANTS,
        *behaviour.MUTANTS,
        *backward.MUTANTS,
        *sizes.MUTANTS,
        *graphs.MUTANTS,
        *contents.MUTANTS,
    ],
    key=lambda mutant: mutant.number,
)
