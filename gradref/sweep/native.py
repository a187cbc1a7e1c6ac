"""Sweeps of our own fused kernels, which compute in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial

from gradref import cpp, errorfree, inductor, special
from gradref.fused import fuse
from gradref.operation import Operation
from gradref.sweep.digest import source_digest
from gradref.sweep.run import Sweep, sweeps

SUBJECT = "gradref.fuse"


class NativeSweep(Sweep):
    """One quantity by its fused kernel."""

    @cached_property
    def source(self) -> str:
        """The digest of the formula, of its float32 forms, and of how they are compiled."""
        return source_digest(self.declared, errorfree, special, inductor, cpp)


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
