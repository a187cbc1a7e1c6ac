"""Benchmarks: that a ratio is one, that only what agrees is timed, and what remains of it.

To compile takes seconds: where only the agreement is tested, the kernels are evaluated uncompiled.
"""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.peers import TEXTBOOK, peers
from gradref.bench.contest import CLEAR_REFS, Ratio, contest, peak_bytes, ratios
from gradref.bench.results import append, read, run
from gradref.bench.subjects import (
    BOUND,
    FORMULAS,
    OURS,
    PLAIN,
    TORCH_VALUE,
    VALUE,
    Subject,
    WrongResultError,
    subjects,
)
from gradref.cli import app
from gradref.declare.registry import operations


def subject(name: str, size: int = 256) -> Subject:
    return Subject(operations(name)[0], "float32", "cpu", size)


def test_a_ratio_is_the_median_of_paired_rounds() -> None:
    ratio = Ratio.of(np.array([1.0, 2.0, 2.0, 2.0, 90.0]))
    assert ratio.median == 2.0
    assert 1.0 <= ratio.low <= 2.0 <= ratio.high <= 90.0
    assert Ratio.of(np.full(9, 3.0)) == Ratio(3.0, 3.0, 3.0)


def test_who_takes_longer_has_the_larger_ratio() -> None:
    calls: list[str] = []

    def sleeper(name: str, seconds: float) -> None:
        calls.append(name)
        time.sleep(seconds)

    times = contest(
        {"one": lambda: sleeper("one", 0.002), "three": lambda: sleeper("three", 0.006)}, 7, "cpu"
    )
    assert [len(t) for t in times.values()] == [7, 7]
    found = ratios(times, "one")
    assert found["one"] == Ratio(1.0, 1.0, 1.0)
    assert 1.5 < found["three"].median < 5
    timed = calls[8:]  # after those that say how often to repeat
    assert timed != sorted(timed)


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="only Linux says what a process has used")
def test_the_memory_of_a_call_is_its_peak() -> None:
    megabytes = 64
    buffer = torch.ones(megabytes << 18)
    taken = peak_bytes(lambda: buffer + (buffer + 1), "cpu")
    assert taken is not None
    assert 1.9 < taken / buffer.nbytes < 2.2, "the result, and what it was made of"
    assert peak_bytes(lambda: buffer.mul_(1), "cpu") in range(1 << 21)


@pytest.mark.parametrize("name", TEXTBOOK)
def test_the_textbook_agrees(name: str) -> None:
    one = subject(name)
    found = dict(peers(name, [*one.arrays.values(), *one.vector.values()]))
    assert ("textbook, NumPy" in found) is (name != "gelu")
    exact = [torch.as_tensor(result).double() for result in one.contenders[PLAIN]()]
    for run_peer in found.values():
        for got, want in zip(run_peer(), exact, strict=True):
            torch.testing.assert_close(torch.as_tensor(got).double(), want, rtol=1e-4, atol=1e-6)


@torch.compiler.set_stance("force_eager")
def test_what_disagrees_is_not_timed() -> None:
    wrong = subject("silu")
    wrong.check()
    vars(wrong)["kernel"] = subject("sigmoid").kernel
    with pytest.raises(WrongResultError, match="silu: fused, out= disagrees with the formula"):
        wrong.check()


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # kl_div's, that it is not batchmean
def test_every_operation_of_torch_is_a_subject() -> None:
    selected = list(subjects(operations(), ["float32"], "cpu", [4096]))
    assert len(selected) > 20
    for one in selected:
        assert one.first.numel() <= 4096
        assert one.witness(*one.arrays.values()).dtype == torch.float32


@torch.compiler.set_stance("force_eager")
def test_the_value_alone_meets_torchs() -> None:
    one = subject("softmax")
    one.check()
    (ours,), (theirs,) = (one.contenders[name]() for name in (VALUE, TORCH_VALUE))
    assert ours is theirs is one.buffers[0]
    assert not {VALUE, TORCH_VALUE} & set(subject("sigmoid").contenders)


@pytest.mark.parametrize("name", ["gelu", "log_softmax"])
def test_the_bound_of_the_plain_calls_computes_what_they_do(name: str) -> None:
    subject = Subject(operations(name)[0], "bfloat16", "cpu", 1 << 17)
    contenders = subject.contenders
    wanted = [result.clone() for result in contenders[PLAIN]()]
    for buffer in subject.buffers:
        buffer.fill_(7)
    contenders[FORMULAS]()
    torch.testing.assert_close(list(subject.buffers), wanted, rtol=0, atol=0)


def test_results_are_appended_and_read_again(tmp_path: Path) -> None:
    result = run(subject("mse_loss"), rounds=3)
    assert {OURS, PLAIN, BOUND, FORMULAS} <= set(result.seconds)
    assert result.traffic == 3 * 256 * 4
    assert result.compile_seconds > 0
    path = tmp_path / "results.jsonl"
    append(result, path)
    append(dataclasses.replace(result, dtype="bfloat16"), path)
    (about, first), (_, second) = read(path)
    assert first == result
    assert second.dtype == "bfloat16"
    assert about["torch"] == torch.__version__
    assert about["threads"] == torch.get_num_threads()
    assert about["huge pages"] is False
    assert set(result.peak_bytes) == set(result.seconds)


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["bench", "relu", "--size", "512", "--rounds", "3", "--out", str(out)]
    said = CliRunner().invoke(app, arguments, env={"COLUMNS": "140"})
    assert said.exit_code == 0, said.output
    assert re.search(r"relu float32\s+shape.*\s+512 +\d", said.output)
    assert "1 results appended" in said.output.replace("\n", "")
    assert len(read(out)) == 1
    assert CliRunner().invoke(app, ["bench", "relu", "--size", "1"]).exit_code == 2
