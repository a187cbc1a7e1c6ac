"""The finished chunks of a sweep on disk: a sweep that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from gradref.sweep.certificate import tally_of
from gradref.sweep.tally import Tally

Chunk = Mapping[str, Tally]
"""The tallies of one chunk, by region."""


class Journal:
    """One line for every finished chunk, in a file for every process.

    ``key`` is a digest of all that a chunk's result depends on; lines of another key are not ours.
    """

    def __init__(self, folder: Path, name: str, key: str, rank: int) -> None:
        self._pattern = f"{_escaped(name)}.*.journal"
        self._folder, self._key = folder, key
        self._path = folder / f"{name}.{rank}.journal"

    def read(self) -> dict[int, Chunk]:
        """The chunks that any process has finished; a line cut short by a kill does not count."""
        chunks: dict[int, Chunk] = {}
        for path in self._folder.glob(self._pattern):
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if entry["key"] == self._key:
                    chunks[entry["chunk"]] = {
                        name: tally_of(tally) for name, tally in entry["tallies"].items()
                    }
        return chunks

    def append(self, chunk: int, tallies: Chunk) -> None:
        """Write the result of a chunk through to the disk."""
        content = {name: asdict(tally) for name, tally in tallies.items()}
        with self._path.open("a") as file:
            entry = {"key": self._key, "chunk": chunk, "tallies": content}
            file.write("\n" + json.dumps(entry))  # first the line break: the last may be cut short
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete what every process has written: the certificate is there."""
        for path in self._folder.glob(self._pattern):
            path.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
