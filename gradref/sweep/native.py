"""Sweeps of our own fused kernels, which compute in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any

from gradref.arrays import narrowed, native, widen
from gradref.declare.operation import Operation
from gradref.environment import compiler
from gradref.fusion.compiler import code_generator
from gradref.fusion.fused import Fused, fuse
from gradref.fusion.passes import CommonSubexpressionElimination
from gradref.fusion.settings import settings
from gradref.sweep.digest import source_digest
from gradref.sweep.sweep import Sweep, sweeps

SUBJECT = "gradref.fuse"


def writes_the_loop() -> tuple[Any, ...]:
    """Return all of our code, apart from the formula, that a fused kernel depends on."""
    codegen = code_generator()
    kernels = () if codegen is None else (codegen.LongSums, codegen.VecKernel)
    return (
        Fused._evaluate,
        native,
        widen,
        narrowed,
        CommonSubexpressionElimination.__call__,
        settings,
        *kernels,
    )


class NativeSweep(Sweep):
    """A sweep of one quantity as its fused kernel computes it."""

    @cached_property
    def source(self) -> str:
        """Return the digest of the formula with its float32 forms, and of what compiles it."""
        return _kernel_digest(self.declared)

    @property
    def environment(self) -> dict[str, str]:
        """Return what the result depends on: for a CPU also what compiles the kernel."""
        compiled_by = {"c++ compiler": compiler()} if self.device == "cpu" else {}
        return {**super().environment, **compiled_by}


@cache
def _kernel_digest(declared: Callable[..., Any]) -> str:
    return source_digest(declared, *writes_the_loop())


def native_sweeps(
    records: Iterable[Operation], claims: Mapping[str, float], devices: Sequence[str]
) -> list[Sweep]:
    """Return a sweep for each quantity of the elementwise operations, by its fused kernel.

    ``claims`` holds the dtypes, each with its error bound in ulp.
    """
    return [
        NativeSweep(
            sweep.record,
            sweep.case,
            sweep.quantity,
            sweep.dtype,
            sweep.device,
            SUBJECT,
            partial(fuse(sweep.record.function, sweep.quantity), **sweep.case),
            claims[sweep.dtype],
        )
        for sweep in sweeps(records, list(claims), devices)
    ]
