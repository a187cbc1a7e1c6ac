"""Sweeps of our own fused kernels, which compute in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial

from gradref.arrays import narrowed, widen
from gradref.declare.operation import Operation
from gradref.fusion import codegen, compiler
from gradref.fusion.fused import Fused, fuse
from gradref.sweep.digest import source_digest
from gradref.sweep.run import Sweep, sweeps

SUBJECT = "gradref.fuse"

WRITES_THE_LOOP = (
    *(Fused._evaluate, widen, narrowed, compiler.OnceEach.__call__, compiler.settings),
    *(codegen.LongSums, codegen.VecKernel),
)
"""What turns an elementwise formula into machine code, besides torch."""


class NativeSweep(Sweep):
    """One quantity by its fused kernel."""

    @cached_property
    def source(self) -> str:
        """The digest of the formula, of its float32 forms, and of what writes its loop."""
        return source_digest(self.declared, *WRITES_THE_LOOP)


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
