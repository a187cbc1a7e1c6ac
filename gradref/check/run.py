"""A check from its subject to its verdicts, with the failures that are expected."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gradref.arrays import reject
from gradref.check.exhaustive import exhaustive
from gradref.check.judge import cases, check, not_taken
from gradref.check.load import load
from gradref.check.options import Options
from gradref.check.sandbox import Sandbox
from gradref.check.verdict import Verdict
from gradref.environment import environment
from gradref.measure.judge import DTYPES
from gradref.measure.ulp import HISTOGRAM_EDGES, Errors

SHORT = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass
class Checked:
    """What a check was asked, and what it found."""

    subject: str
    options: Options
    verdicts: list[Verdict] = field(default_factory=list)
    unused: Sequence[str] = ()
    finished: bool = False

    @property
    def failures(self) -> list[Verdict]:
        """The verdicts that count against the kernels."""
        return [verdict for verdict in self.verdicts if not verdict.passed]

    @property
    def judged(self) -> list[Verdict]:
        """The verdicts that are not a mere record of what is unsupported."""
        return [verdict for verdict in self.verdicts if verdict.status != "unsupported"]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 could not run."""
        if self.failures or self.unused:
            return 1
        return 0 if self.finished and self.judged else 3

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "environment": environment(),
            "subject": self.subject,
            "options": asdict(self.options),
            "finished": self.finished,
            "exit_code": self.exit_code,
            "histogram_edges_ulp": HISTOGRAM_EDGES,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def read(path: Path) -> tuple[str, list[Verdict]]:
    """What a file of verdicts is about, and the verdicts."""
    content = json.loads(path.read_text())
    return content["subject"], [_verdict(verdict) for verdict in content["verdicts"]]


def _verdict(content: dict[str, Any]) -> Verdict:
    errors = {
        name: None if content[name] is None else Errors.of_json(content[name])
        for name in ("errors", "ours", "torch")
    }
    return Verdict(**{**content, **errors, "words": tuple(content["words"])})


def check_subject(
    subject: str,
    operation: str | None,
    dtypes: Sequence[str],
    options: Options,
    xfails: Path | None = None,
    on_case: Callable[[str, int], None] = lambda label, of: None,
) -> Checked:
    """Judge the kernels of a subject in a process of their own.

    ``on_case`` hears what is judged next, of how many.
    """
    patterns = read_xfails(xfails) if xfails is not None else []
    kernels = load(subject, operation)
    checked = Checked(subject, options)
    selected = cases(kernels, dtypes, options.device)
    used: set[str] = set()
    for kernel in kernels:
        checked.verdicts += not_taken(kernel, options.device)
    with Sandbox(subject, operation) as runner:
        for kernel, case in selected:
            on_case(f"{case.label} {case.dtype}", len(selected))
            verdicts = list(check(kernel, case, runner, options))
            if options.mode == "exhaustive":
                verdicts += exhaustive(kernel, case, runner, options)
            checked.verdicts += _expected(verdicts, patterns, used)
    checked.unused = [pattern for pattern in patterns if pattern not in used]
    checked.finished = True
    return checked


def read_xfails(path: Path) -> list[str]:
    """The patterns in a file, one to a line; what follows a # is the reason."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _expected(
    verdicts: Sequence[Verdict], patterns: Sequence[str], used: set[str]
) -> Iterator[Verdict]:
    for verdict in verdicts:
        matching = {p for p in patterns if fnmatch.fnmatchcase(verdict.name, p)}
        used |= matching
        yield verdict.expected_to_fail() if matching else verdict


def dtypes_of(text: str) -> list[str]:
    """The dtypes in a list like ``bf16,f32``."""
    names = [SHORT.get(name.strip(), name.strip()) for name in text.split(",")]
    for name in names:
        if name not in DTYPES:
            reject("dtype", repr(name), f"one of {', '.join((*SHORT, *DTYPES))}")
    return list(dict.fromkeys(names))


def ulp_of(text: str) -> float:
    """The number in a claim like ``1ulp`` or ``0.5``."""
    try:
        value = float(text.strip().removesuffix("ulp").strip())
    except ValueError:
        value = -1.0
    if not 0.5 <= value < float("inf"):
        reject("claim", repr(text), "a number of ulp that is at least 0.5, as in 1ulp")
    return value
