"""Run benchmarks, and keep their raw results as lines of JSON: a file of them only grows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradref.bench.contest import Ratio, contest, peak_bytes, ratios
from gradref.bench.subjects import OURS, Subject
from gradref.environment import compiler, environment

SIZES = {"L2": 2**16, "L3": 2**20, "DRAM": 2**24}
"""Elements of a float32 array that, with its results, fits a cache of common size, or none."""

ROUNDS = 15


@dataclass(frozen=True)
class Result:
    """The result of one subject: the seconds of every round, and what follows from them."""

    operation: str
    results: tuple[str, ...]
    dtype: str
    device: str
    shape: tuple[int, ...]
    seconds: dict[str, list[float]]
    compile_seconds: float
    traffic: int
    peak_bytes: dict[str, int | None] = field(default_factory=dict)

    @cached_property
    def ratios(self) -> dict[str, Ratio]:
        """The time of every contender as a multiple of ours."""
        return ratios(self.seconds, OURS)

    @property
    def gigabytes_per_second(self) -> float:
        """The least that ours has to read and write, over its median time."""
        return self.traffic / float(np.median(self.seconds[OURS])) / 1e9


def run(subject: Subject, rounds: int = ROUNDS) -> Result:
    """Return the result of one subject; raise WrongResultError unless all contenders agree."""
    torch.compiler.reset()  # dynamo gives up on a function that has been compiled 8 times
    subject.check()
    seconds = contest(subject.contenders, rounds, subject.device, subject.seed)
    return Result(
        subject.record.name,
        subject.kernel.results,
        subject.dtype,
        subject.device,
        subject.shape,
        seconds,
        subject.kernel.compile_seconds,
        subject.traffic,
        {name: peak_bytes(call, subject.device) for name, call in subject.contenders.items()},
    )


OnSubject = Callable[[Subject], None]
"""Called with a subject before it is timed."""


def run_all(
    subjects: Iterable[Subject], rounds: int, out: Path | None, on_subject: OnSubject
) -> Iterator[Result]:
    """Yield the result of each subject as it is measured; append it to a file if there is one."""
    for subject in subjects:
        on_subject(subject)
        result = run(subject, rounds)
        if out is not None:
            append(result, out)
        yield result


def append(result: Result, path: Path) -> None:
    """Append a result to a file, with the time and the machine."""
    huge = os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"
    machine = {"c++ compiler": compiler(), "threads": torch.get_num_threads()}
    about = {**environment(), **machine, "huge pages": huge}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("a") as file:
        file.write(json.dumps({"when": when, "environment": about, **asdict(result)}) + "\n")


def latest(
    entries: Iterable[tuple[dict[str, Any], Result]],
) -> list[tuple[dict[str, Any], Result]]:
    """Return the last result for each operation, dtype, device, shape and machine setting."""
    found: dict[tuple[Any, ...], tuple[dict[str, Any], Result]] = {}
    for about, result in entries:
        key = (result.operation, result.dtype, result.device, result.shape)
        found[*key, about["threads"], about["huge pages"]] = about, result
    return sorted(found.values(), key=lambda e: (e[1].operation, e[1].dtype, e[1].traffic))


def read(path: Path) -> list[tuple[dict[str, Any], Result]]:
    """Return every result in a file, repeated ones too, each with what it was measured on."""
    found = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        about = {"when": entry.pop("when"), "huge pages": False, **entry.pop("environment")}
        entry |= {name: tuple(entry[name]) for name in ("results", "shape")}
        found.append((about, Result(**entry)))
    return found
