"""A short sweep for test_sweep, by several processes.

python tests/sharded_sweep.py FOLDER PROCESSES [FOLDER PROCESSES ...]
torchrun ... tests/sharded_sweep.py FOLDER

The first certifies into each folder in turn, by forks that are told what torchrun tells its
processes: torch is imported once for all of them. The second loses a process to SIGKILL.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import torch

from gradref.cli import certified
from gradref.declare.registry import operations
from gradref.sweep import sweep
from gradref.sweep.journal import Chunk, Journal
from gradref.sweep.sweep import Sweep

CHUNKS, SIZE = 7, 1 << 12


class DyingJournal(Journal):
    """Kills its process, as a power cut would, after the second chunk."""

    written = 0

    def append(self, chunk: int, tallies: Chunk) -> None:
        super().append(chunk, tallies)
        DyingJournal.written += 1
        if DyingJournal.written == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def short_sweep() -> Sweep:
    record = operations("relu")[0]
    return Sweep(record, {}, "value", "float32", "cpu", chunk_count=CHUNKS, chunk_size=SIZE)


def certify(folder: str) -> int:
    Path(folder).mkdir(exist_ok=True)
    return certified([short_sweep()], Path(folder))


def certify_by(processes: int, folder: str) -> int:
    """Return the worst exit status of as many forks."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            if processes > 1:
                group = {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_PORT": port}
                os.environ |= {**group, "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
            sys.exit(certify(folder))
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if os.environ["RANK"] == "0":
            sweep.Journal = DyingJournal  # type: ignore[misc]
        sys.exit(certify(sys.argv[1]))
    pairs = zip(sys.argv[1::2], sys.argv[2::2], strict=True)
    sys.exit(max(certify_by(int(processes), folder) for folder, processes in pairs))
