"""Sweeps of our own fused kernels, which compute in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from gradref.arrays import narrowed, widen
from gradref.declare.operation import Operation
from gradref.fusion.compiler import code_generator
from gradref.fusion.fused import Fused, fuse
from gradref.fusion.passes import CommonSubexpressionElimination
from gradref.fusion.settings import settings
from gradref.sweep.digest import source_digest
from gradref.sweep.run import Sweep, sweeps

SUBJECT = "gradref.fuse"


def writes_the_loop() -> tuple[Any, ...]:
    """Return what turns an elementwise formula into machine code, besides torch."""
    codegen = code_generator()
    kernels = () if codegen is None else (codegen.LongSums, codegen.VecKernel)
    return (
        Fused._evaluate,
        widen,
        narrowed,
        CommonSubexpressionElimination.__call__,
        settings,
        *kernels,
    )


class NativeSweep(Sweep):
    """One quantity by its fused kernel."""

    @cached_property
    def source(self) -> str:
        """The digest of the formula, of its float32 forms, and of what writes its loop."""
        return source_digest(self.declared, *writes_the_loop())


def native_sweeps(
    records: Iterable[Operation], claims: Mapping[str, float], devices: Sequence[str]
) -> list[Sweep]:
    """Every quantity of the elementwise operations, as its fused kernel gives it.

    ``claims`` says for each dtype what it may be off by.
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
