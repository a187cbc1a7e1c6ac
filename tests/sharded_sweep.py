"""A short sweep, run under torchrun by test_sweep: the first argument is the folder."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from gradref.declare.operation import operations
from gradref.report.certification import run_all
from gradref.sweep.journal import Chunk, Journal
from gradref.sweep.run import Sweep

CHUNKS = 7


class DyingJournal(Journal):
    """Kills its process, as a power cut would, after the second chunk."""

    written = 0

    def append(self, chunk: int, tallies: Chunk) -> None:
        super().append(chunk, tallies)
        DyingJournal.written += 1
        if DyingJournal.written == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def short_sweep() -> Sweep:
    return Sweep(operations("relu")[0], {}, "value", "float32", "cpu", chunk_count=CHUNKS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2:] == ["die"] and os.environ.get("RANK", "0") == "0":
        import gradref.sweep.run

        gradref.sweep.run.Journal = DyingJournal
    sys.exit(run_all([short_sweep()], Path(sys.argv[1])))
