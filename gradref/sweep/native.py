"""Sweeps of our own fused kernels, which compute in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any

from gradref.arrays import narrowed, native, widen
from gradref.declare.operation import Operation
from gradref.fusion import codegen, compiler
from gradref.fusion.fused import Fused, fuse
from gradref.sweep.digest import source_digest
from gradref.sweep.sweep import Sweep, sweeps

SUBJECT = "gradref.fuse"

WRITES_THE_LOOP = (
    *(Fused._evaluate, native, widen, narrowed, compiler.OnceEach.__call__, compiler.settings),
    *(codegen.LongSums, codegen.VecKernel),
)
"""Our part, beside torch's, in compiling an elementwise formula."""


class NativeSweep(Sweep):
    """A sweep of one quantity as its fused kernel computes it."""

    @cached_property
    def source(self) -> str:
        """Return the digest of the formula with its float32 forms, and of what compiles it."""
        return _kernel_digest(self.declared)


@cache
def _kernel_digest(declared: Callable[..., Any]) -> str:
    return source_digest(declared, *WRITES_THE_LOOP)


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
