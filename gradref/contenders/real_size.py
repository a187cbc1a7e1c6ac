"""Losses of a batch at real size: a tile, a row or a class that is left out shows only there.

Arb is too slow for that: the truth is our float64 result, which verify judges on small calls. The
same is asked with strided arrays, and the arguments have to be left as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.call import Call, Returned
from gradref.contenders.candidate import Candidate
from gradref.contenders.memory import MemoryLayout
from gradref.contenders.ours import Ours
from gradref.contenders.sandbox import Runner
from gradref.judge.batches import BatchExam
from gradref.judge.gates import UNITS
from gradref.judge.questions import Answer, Quantity, Question
from gradref.judge.ulp import to_floats

LAYOUTS: tuple[MemoryLayout, ...] = ("contiguous", "strided")
REAL_SIZE = "real size"
"""The condition, as it is asked for and as it is said."""

SLACK = 256
"""Unit roundoffs that a result may be off by, of the largest in its row, besides its own digits."""


@dataclass(frozen=True)
class _Recorder:
    """Passes calls on with arrays in another layout, and keeps what came back."""

    runner: Runner
    layouts: Mapping[str, MemoryLayout]
    heard: list[Returned] = field(default_factory=list)

    def ask(self, call: Call) -> Returned:
        """Return the answer to one call."""
        self.heard.append(self.runner.ask(replace(call, layouts=self.layouts)))
        return self.heard[-1]


def at_real_size(
    candidate: Candidate, exam: BatchExam, known: Collection[str]
) -> Iterator[tuple[str, Answer]]:
    """Yield what a kernel answers to every question about one large call, by way and quantity.

    Not of the quantities that are ``known`` to be wrong.
    """
    is_contiguous = candidate.kernel.contract.contiguous
    layouts: tuple[MemoryLayout, ...] = ("contiguous",) if is_contiguous else LAYOUTS
    for quantity, (question,) in replace(exam, calls=1, is_large=True).questions():
        if quantity.name in known:
            continue
        for way in candidate.ways(exam.record, quantity):
            asked = candidate.as_asked(question, way)
            answers = [_answer(candidate, asked, way, layout) for layout in layouts]
            yield f"{way}, {quantity.name}", next((a for a in answers if a.problem), answers[0])


def _answer(candidate: Candidate, asked: Question, way: str, layout: MemoryLayout) -> Answer:
    """Return the answer, with what is wrong with its numbers or was done to the arguments."""
    recorder = _Recorder(candidate.runner, dict.fromkeys(asked.sample.arrays, layout))
    answer = replace(candidate, runner=recorder).answer(asked, way)
    if answer.result is None:
        return answer
    wrote = sorted({name for returned in recorder.heard for name in returned.wrote})
    words = f"writes into {', '.join(wrote)}, or next to it" if wrote else ""
    words = words or _far_off(asked, answer.result)
    return replace(answer, problem=f"{layout} arrays: {words}" if words else "")


def _far_off(asked: Question, result: Tensor) -> str:
    """Return where a result is another number, if it is one anywhere.

    A probability is the exponential of a sum of the size of the loss, of n rounded terms: it may
    lose about √n units of that size.
    """
    wide = replace(asked, sample=asked.sample.wide())
    expected, got = _ours(wide), to_floats(result)
    losses = _ours(replace(wide, quantity=Quantity("value")))
    longest = max(max(a.shape) for a in asked.sample.arrays.values())
    lost = UNITS[asked.dtype] * (SLACK + longest**0.5 * float(np.abs(losses).max()))
    largest = np.abs(expected).max(-1 if expected.ndim > 1 else None, keepdims=True)
    off = np.abs(got - expected) - 2 * torch.finfo(asked.dtype).eps * np.abs(expected)
    if bool((off <= lost * largest).all()):
        return ""
    worst = np.unravel_index(int(np.nanargmax(np.where(np.isnan(off), np.inf, off))), off.shape)
    place = f" at {list(map(int, worst))}" if off.shape else ""
    name, first = next(iter(asked.sample.arrays.items()))
    found, wants = (f"{numbers[worst]:.6g}" for numbers in (got, expected))
    return f"{name} of shape {tuple(first.shape)}: got {found}{place}, wants {wants}"


def _ours(question: Question) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    found = Ours().answer(replace(question, result_dtype=torch.float64), "").result
    assert found is not None  # ours has every quantity of a loss of a batch
    return to_floats(found)
