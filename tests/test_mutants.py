"""Every planted wrong kernel is caught, for the right reason; none of the correct ones fails."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mutants import CONDITIONS, MUTANTS, Mutant

from gradref.contenders import call
from gradref.contenders.call import Call, Returned, perform
from gradref.contenders.kernel import Kernel
from gradref.contenders.sandbox import InProcess
from gradref.judge.verdict import Verdict
from gradref.runs.check import cases, check
from gradref.runs.options import Options

KNOWN = 110


def verdicts(mutant: Mutant, entry: dict[str, Any], seed: int) -> Iterator[Verdict]:
    """Of the condition that shows the mistake; docs/trust.md says what whole modes catch."""
    kernel = Kernel.of("kernel", entry)
    options = Options("quick", seed, conditions=CONDITIONS if mutant.mode == "full" else ())
    if mutant.condition:
        options = Options(
            "link" if mutant.mode == "quick" else "full", seed, conditions=(mutant.condition,)
        )
    for _, case in cases([kernel], mutant.dtypes, "cpu"):
        yield from check(kernel, case, InProcess([kernel]), options)


def test_every_known_mistake_is_planted() -> None:
    assert {mutant.number for mutant in MUTANTS} == set(range(1, KNOWN + 1))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_wrong_kernel_is_caught_for_the_right_reason(mutant: Mutant, seed: int) -> None:
    words = [
        w for v in verdicts(mutant, mutant.kernel, seed) if v.status == "fail" for w in v.words
    ]
    assert words, "survives"
    assert any(re.search(mutant.words, text) for text in words), words


def neighbours() -> list[Mutant]:
    """A mutant for each correct kernel and condition."""
    functions = ({k: id(v) for k, v in mutant.correct.items()} for mutant in MUTANTS)
    keys = ((m.condition, str(f)) for m, f in zip(MUTANTS, functions, strict=True))
    return list(dict(zip(keys, MUTANTS, strict=True)).values())


@pytest.mark.parametrize("mutant", neighbours(), ids=str)
def test_the_kernel_without_the_mistake_passes(mutant: Mutant, seed: int) -> None:
    judged = list(verdicts(mutant, mutant.correct, seed))
    assert any(verdict.status == "pass" for verdict in judged)
    failed = [(v.name, v.used, v.words, v.point) for v in judged if not v.passed]
    assert not failed


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.number in (39, 41)], ids=str)
def test_unwritten_memory_is_seen_where_freed_memory_is_nan(
    mutant: Mutant, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after many poisoned calls: the memory that is dealt out holds NaN already."""

    def after_poison(kernel: Kernel, call: Call) -> Returned:
        for size in (129, 774, 1542, 40_000):
            _ = [torch.full((size,), math.nan) for _ in range(64)]
        return perform(kernel, call)

    monkeypatch.setattr(call, "perform", after_poison)
    words = [w for v in verdicts(mutant, mutant.kernel, seed) for w in v.words]
    assert any(re.search(mutant.words, text) for text in words), words
