"""Every planted wrong kernel is caught, for the right reason; none of the correct ones fails."""

from __future__ import annotations

import math
import re
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
from gradref.runs.choices import Mode
from gradref.runs.options import Options

KNOWN = 159


def verdicts(mutant: Mutant, entry: dict[str, Any], seed: int) -> list[Verdict]:
    """Of the condition that shows the mistake; docs/trust.md says what whole modes catch."""
    if mutant.condition:
        mode: Mode = "link" if mutant.mode == "quick" else "full"
        return judged(mutant, entry, Options(mode, seed, conditions=(mutant.condition,)))
    conditions = CONDITIONS if mutant.mode == "full" else ()
    return judged(mutant, entry, Options("quick", seed, conditions=conditions))


def judged(mutant: Mutant, entry: dict[str, Any], options: Options) -> list[Verdict]:
    kernel = Kernel.of("kernel", entry)
    return [
        verdict
        for _, case in cases([kernel], mutant.dtypes, "cpu")
        for verdict in check(kernel, case, InProcess([kernel]), options)
    ]


def failures(found: list[Verdict]) -> list[str]:
    return [words for verdict in found if verdict.status == "fail" for words in verdict.words]


def test_every_known_mistake_is_planted() -> None:
    assert {mutant.number for mutant in MUTANTS} == set(range(1, KNOWN + 1))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_wrong_kernel_is_caught_for_the_right_reason(mutant: Mutant, seed: int) -> None:
    words = failures(verdicts(mutant, mutant.kernel, seed))
    if not any(re.search(mutant.words, text) for text in words):  # the seed hides it there
        words += failures(judged(mutant, mutant.kernel, Options(mutant.mode, seed)))
    assert words, "survives"
    assert any(re.search(mutant.words, text) for text in words), words


def neighbours() -> list[Mutant]:
    """A mutant for each correct kernel and condition."""
    functions = ({k: id(v) for k, v in mutant.correct.items()} for mutant in MUTANTS)
    keys = ((m.condition, str(f)) for m, f in zip(MUTANTS, functions, strict=True))
    return list(dict(zip(keys, MUTANTS, strict=True)).values())


@pytest.mark.parametrize("mutant", neighbours(), ids=str)
def test_the_kernel_without_the_mistake_passes(mutant: Mutant, seed: int) -> None:
    found = verdicts(mutant, mutant.correct, seed)
    assert any(verdict.status == "pass" for verdict in found)
    failed = [(v.name, v.used, v.words, v.point) for v in found if not v.passed]
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
