"""Sweeps of many quantities, one after the other; under torchrun by all processes together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from gradref.sweep.certificate import Certificate
from gradref.sweep.sweep import Sweep, rank_and_world

OnChunk = Callable[[Sweep, int, int], None]
"""Called with a sweep, the number of its chunks that are done, and of all."""


@dataclass(frozen=True)
class Certified:
    """A quantity, its certificate, and the inputs per second; no speed if it was certified."""

    sweep: Sweep
    certificate: Certificate
    inputs_per_second: float | None


def certify_all(sweeps: Sequence[Sweep], folder: Path, on_chunk: OnChunk) -> Iterator[Certified]:
    """Yield each quantity as it is certified; sweep those without a certificate in a folder."""
    for sweep in sweeps:
        known, start = sweep.certified(folder), time.perf_counter()
        if known is not None:
            yield Certified(sweep, known, None)
            continue
        on_chunk(sweep, 0, sweep.chunk_count)
        made = sweep.run(folder, partial(on_chunk, sweep))
        yield Certified(sweep, made, made.total.inputs / (time.perf_counter() - start))


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """Join the process group that torchrun has prepared, if it has; give the rank and the size."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield rank_and_world()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield rank_and_world()
    finally:
        dist.destroy_process_group()
