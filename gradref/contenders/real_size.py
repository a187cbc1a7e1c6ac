"""Losses of a batch at real size: a tile, a row or a class that is left out shows only there.

Arb is too slow for that: the truth is our float64 result, which verify judges on small calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradref.contenders.candidate import Candidate
from gradref.contenders.ours import Ours
from gradref.judge.batches import BatchExam
from gradref.judge.gates import SINGLE
from gradref.judge.questions import Answer, Quantity, Question
from gradref.judge.ulp import to_floats

REAL_SIZE = "real size"
"""The condition, as it is asked for and as it is said."""

SLACK = 2.0**-16
"""What a result may be off by, as a share of the largest one, besides the digits of its dtype."""


def at_real_size(
    candidate: Candidate, exam: BatchExam, known: Collection[str]
) -> Iterator[tuple[str, Answer]]:
    """Yield what a kernel answers to every question about one large call, by way and quantity.

    Not of the quantities that are ``known`` to be wrong.
    """
    for quantity, (question,) in replace(exam, calls=1, is_large=True).questions():
        if quantity.name in known:
            continue
        for way in candidate.ways(exam.record, quantity):
            asked = candidate.as_asked(question, way)
            answer = candidate.answer(asked, way)
            if answer.result is not None:
                answer = replace(answer, problem=_far_off(asked, answer.result))
            yield f"{way}, {quantity.name}", answer


def _far_off(asked: Question, result: Tensor) -> str:
    """Return where a result is another number, if it is one anywhere.

    A probability is the exponential of a sum of the size of the loss, whose n terms are rounded to
    float32: it may lose about √n units of that size.
    """
    wide = replace(asked, sample=asked.sample.wide())
    expected, got = _ours(wide), to_floats(result)
    losses = _ours(replace(wide, quantity=Quantity("value")))
    longest = max(max(a.shape) for a in asked.sample.arrays.values())
    lost = SLACK + SINGLE * longest**0.5 * float(np.abs(losses).max())
    largest = np.abs(expected).max()
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
