"""The finished chunks of a sweep on disk: one that was killed resumes after the last of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from gradref.sweep.tally import Tally

Chunk = Mapping[str, Tally]
"""The tallies of one chunk, by region."""


class Journal:
    """One line for each finished chunk, in one file for each process.

    ``key`` is a digest of all that the result of a chunk depends on. Lines with another key are of
    another source or machine, and are skipped.
    """

    def __init__(self, folder: Path, name: str, key: str, rank: int) -> None:
        self._pattern = f"{_escaped(name)}.*.journal"
        self._folder, self._key = folder, key
        self._path = folder / f"{name}.{rank}.journal"

    def read(self) -> dict[int, Chunk]:
        """Return the chunks that any process has finished; skip lines that a kill cut short."""
        chunks: dict[int, Chunk] = {}
        for path in self._folder.glob(self._pattern):
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if entry["key"] == self._key:
                    chunks[entry["chunk"]] = {
                        name: Tally.read(tally) for name, tally in entry["tallies"].items()
                    }
        return chunks

    def append(self, chunk: int, tallies: Chunk) -> None:
        """Write the result of a chunk, and wait until it is on the disk."""
        content = {name: asdict(tally) for name, tally in tallies.items()}
        with self._path.open("a") as file:
            entry = {"key": self._key, "chunk": chunk, "tallies": content}
            file.write("\n" + json.dumps(entry))  # the line before may be cut short: end it first
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete the files of all processes, once the certificate is written."""
        for path in self._folder.glob(self._pattern):
            path.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
