"""Sweeps: what float64 decides, what Arb settles, what a kill leaves, what many processes share."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharded_sweep import CHUNKS, short_sweep

from gradref.declare.registry import operations
from gradref.judge.ulp import HISTOGRAM_EDGES, errors, to_floats
from gradref.sweep import archive
from gradref.sweep.certificate import Certificate, Float64Error, Region
from gradref.sweep.chunks import SIZE, Pass, _errors
from gradref.sweep.journal import Journal
from gradref.sweep.settle import Settled, Settler, _ties
from gradref.sweep.sweep import GENERAL, Sweep, float64_error
from gradref.sweep.tally import Tally
from gradref.truth.jets import (
    Balls,
    LinearExpansion,
    asymptote,
    line_to_infinity,
    linear_expansion_at_zero,
)

ROOT = Path(__file__).parent.parent


def sweep_of(
    name: str, quantity: str, dtype: str = "float32", chunk_size: int = SIZE, **case: Any
) -> Sweep:
    return Sweep(operations(name)[0], case, quantity, dtype, "cpu", chunk_size=chunk_size)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As without a C++ compiler, which would take seconds for each formula."""
    monkeypatch.setenv("CXX", "none")
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        yield


# --- what decides --------------------------------------------------------------------------------


def test_errors_are_those_of_the_judge() -> None:
    """The compiled metric and the one of the verdicts, on every kind of number."""
    values = [0.0, 1.0, -1.5, 2.0**-149, 2.0**-127, 3.4e38, 1e39, 1e60, math.inf, math.nan, 1e-60]
    wide = torch.tensor([a for a in values for _ in values], dtype=torch.float64)
    got = torch.tensor(values * len(values)).to(torch.float32)
    truth = Balls(to_floats(wide), np.zeros(len(wide)))
    assert np.array_equal(
        to_floats(_errors(got.to(torch.float64), wide)),
        errors(to_floats(got), truth, torch.float32),
    )


def settled_as_arb_does(sweep: Sweep, x: torch.Tensor, step: float | None) -> Settled:
    """What is decided of right results, or of those beside them; Arb says the same of each."""
    got = sweep.evaluate(x)
    if step is not None:
        got = torch.nextafter(got, torch.tensor(step))
    points, results = to_floats(x), to_floats(got)
    quick = sweep.settler.settle(points, results)
    slow = Settler(*(getattr(sweep.settler, f.name) for f in dataclasses.fields(Settler)))
    vars(slow)["expansions"] = vars(slow)["lines"] = vars(slow)["asymptotes"] = (None, None)
    proved = slow.settle(points, results)
    assert proved.by_expansion == 0
    assert np.array_equal(quick.ulp > 0.5, proved.ulp > 0.5)
    assert np.allclose(quick.ulp, proved.ulp, rtol=1e-9)
    return quick


@pytest.mark.parametrize(
    ("name", "quantity", "case"),
    [
        ("silu", "value", {}),
        ("sigmoid", "second_derivative", {}),
        ("elu", "value", {"alpha": 1.5}),
        ("leaky_relu", "value", {"negative_slope": -1.5}),
        ("gelu", "value", {"approximate": "tanh"}),
    ],
)
@pytest.mark.parametrize("step", [None, math.inf, -math.inf])
def test_the_line_near_zero_says_what_arb_says(
    name: str, quantity: str, case: dict[str, Any], step: float | None, seed: int
) -> None:
    """On ties among the smallest numbers; right results, and those beside them."""
    sweep = sweep_of(name, quantity, **case)
    rng = np.random.default_rng(seed)
    bits = torch.from_numpy(rng.integers(1, 0x1000000, 800)).to(torch.int32)
    x = torch.cat([bits.view(torch.float32), -bits.view(torch.float32)])
    quick = settled_as_arb_does(sweep, x, step)
    assert step is not None or quick.by_expansion > 0
    assert quick.undecided == 0


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("softshrink", {}),
        ("rrelu", {}),
        ("leaky_relu", {"negative_slope": 0.1}),
        ("hardswish", {}),
    ],
)
@pytest.mark.parametrize("step", [None, math.inf, -math.inf])
def test_the_line_far_from_zero_says_what_arb_says(
    name: str, case: dict[str, Any], step: float | None, seed: int
) -> None:
    """On integers of 24 bits and multiples of 3, of which halves and slopes are ties."""
    sweep = sweep_of(name, "value", **case)
    rng = np.random.default_rng(seed)
    integers = torch.from_numpy(rng.integers(2**23, 2**24, 300)).to(torch.float32)
    small = torch.from_numpy(3 * rng.integers(1, 2**22, 300)).to(torch.float32)
    x = torch.cat([integers, -integers, small, -small, small * 2.0**-40])
    assert settled_as_arb_does(sweep, x, step).by_expansion > 0


def test_an_asymptote_decides_ties_that_arb_cannot() -> None:
    """x − tanh x is a little more than x − 1, which is a tie for an x of 25 bits."""
    sweep = sweep_of("tanhshrink", "value")
    line = asymptote(operations("tanhshrink")[0].truth, 1, 0.0)
    assert line is not None
    assert (line.value, line.slope, line.side, line.begin) == (-1.0, 1.0, 1, 32.0)
    assert asymptote(operations("softsign")[0].truth, 1, 0.0) is None, "it comes no nearer than 1/x"
    x = 2.0**24 + 2 * np.arange(1, 101)
    for sign in (-1.0, 1.0):
        right = sweep.settler.settle(sign * x, sign * x)
        wrong = sweep.settler.settle(sign * x, sign * (x - 2))
        assert right.by_expansion == wrong.by_expansion == 100
        assert (right.ulp == 0.5).all()
        assert (wrong.ulp > 0.5).all()


def test_a_line_ends_at_the_last_kink() -> None:
    hardswish, gelu = operations("hardswish")[0], operations("gelu")[0]
    line = line_to_infinity(hardswish.truth, 0, 1, 3.0)
    assert line is not None
    assert (line.value, line.slope, line.begin) == (0.0, 1.0, 4.0)
    assert line_to_infinity(gelu.truth, 0, 1, 0.0, approximate="tanh") is None


def test_a_line_ends_where_it_is_not_proved() -> None:
    silu, sigmoid = operations("silu")[0], operations("sigmoid")[0]
    line = linear_expansion_at_zero(silu.truth, 0, 1)
    assert line is not None
    assert (line.value, line.slope, line.side, line.power) == (0.0, 0.5, 1, 2)
    assert 0.1 < line.reach < 2  # the third derivative changes its sign beyond
    bent = linear_expansion_at_zero(sigmoid.truth, 2, -1)
    assert bent is not None
    assert (bent.slope, bent.side, bent.power) == (-0.125, -1, 3)
    assert (
        linear_expansion_at_zero(
            operations("softplus")[0].truth, 0, 1, beta=1.0, threshold=math.inf
        )
        is None
    )


@pytest.mark.parametrize(
    ("line", "x", "offset", "tied"),
    [
        (LinearExpansion(0.0, 0.5, 1, 1.0, 2, 1.0), [2.0**-8, 2.0**-60], None, [False, True]),
        (LinearExpansion(1.0, 0.0, -1, 1e-30, 2, 4.0), [1.0, 3.0], 2.0**-8, [True, True]),
    ],
)
def test_a_tie_is_one_where_the_remainder_cannot_matter(
    line: LinearExpansion, x: list[float], offset: float | None, tied: list[bool]
) -> None:
    points = np.array(x)
    got = line.value + points * line.slope + (points * 2.0**-9 if offset is None else offset)
    assert _ties(line, points, got, torch.bfloat16)[0].tolist() == tied


@pytest.mark.usefixtures("uncompiled")
def test_float64_decides_where_it_is_the_truth() -> None:
    """-1.5 x is a tie of float32 at a billion inputs, and exact in float64 at all of them."""
    sides = {
        slope: sweep_of("leaky_relu", "value", negative_slope=slope).settler.exact
        for slope in (-1.5, 0.2)
    }
    assert [low < 0 for low, _ in sides[-1.5]] == [True, False]
    assert [low < 0 for low, _ in sides[0.2]] == [False]
    assert sweep_of("silu", "value").settler.exact == []
    sweep = sweep_of("leaky_relu", "value", chunk_size=1 << 12, negative_slope=-1.5)
    tied = sweep.slice(1e-8, 0xC0)[GENERAL]
    assert (tied.incorrectly_rounded, tied.by_arb, tied.by_expansion) == (0, 0, 0)
    assert tied.worst == 0.5


@pytest.mark.usefixtures("uncompiled")
def test_float64_too_far_off_is_no_reference() -> None:
    """Compiled for a CPU torch.expm1 is exp(x) - 1: the measured error says so."""
    record = dataclasses.replace(operations("elu")[0])

    def cancelling(x: torch.Tensor, /, alpha: float = 1.0) -> torch.Tensor:
        return torch.where(x > 0, x, alpha * (torch.exp(x) - 1))

    record.function = cancelling
    with pytest.raises(ArithmeticError, match="too far to sweep with"):
        float64_error(Sweep(record, {}, "value", "float32", "cpu"))


@pytest.mark.usefixtures("uncompiled")
def test_a_wrong_candidate_is_counted() -> None:
    """One input of a slice is off by 3 ulp, one is NaN; all the others are right."""
    honest = sweep_of("relu", "value")

    def wrong(x: torch.Tensor) -> torch.Tensor:
        y = honest.evaluate(x)
        y[100] = torch.tensor(y[100].view(torch.int32).item() + 3, dtype=torch.int32).view(y.dtype)
        y[200] = math.nan
        return y

    size, chunk = 1 << 12, 0x3F
    sweep = dataclasses.replace(honest, candidate=wrong, claim=1.0, chunk_size=size)
    tally = sweep.slice(1e-8, chunk)[GENERAL]
    assert tally.inputs == size
    assert tally.incorrectly_rounded == 2
    assert (tally.worst, tally.wrong_nonfinite) == (math.inf, 1)
    assert tally.worst_bits == chunk * SIZE + 200


def test_errors_are_counted_as_those_of_a_verdict() -> None:
    """The compiled counts, and those of the judge, of results that are wrong in every way."""
    size, chunk = 1 << 12, 0xBF
    got = torch.tensor([0.0, 1.0, -1.0, math.inf, math.nan, -1.0000002, -1e-9]).repeat(size)[:size]
    comparison = Pass(lambda x: x.copysign(-x), 0.0, [], [])
    index, decided = comparison.run(chunk, got, size)
    x, keep = comparison.inputs(chunk, size), np.ones(size, dtype=bool)
    keep[index.numpy()] = False
    wide = to_floats(x).copy() * -1
    ulp = errors(to_floats(got), Balls(wide, np.zeros(size)), torch.float32)
    bits = np.arange(size) + chunk * SIZE
    assert decided == Tally.of(ulp, to_floats(got), wide, bits, keep)
    assert decided.wrong_nonfinite > 0
    assert decided.lost_to_zero > 0
    assert decided.wrong_sign > 0


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_sixteen_bit_certificate_is_proved(half: str, tmp_path: Path) -> None:
    certificate = sweep_of("gelu", "derivative", half).run(tmp_path, lambda done, of: None)
    assert certificate.grade == "proved"
    assert certificate.passed
    assert certificate.total.inputs == 2**16
    assert certificate.total.incorrectly_rounded == 0
    assert archive.read_folder(tmp_path) == [certificate]


# --- what is added up ----------------------------------------------------------------------------

EDGES = len(HISTOGRAM_EDGES)


def tally_of(ulp: list[float], keep: list[bool], **settled: int) -> Tally:
    """Of results that are off by the given errors, at inputs 100, 101 and so on."""
    size = len(ulp)
    bits = np.arange(100, 100 + size)
    return Tally.of(np.array(ulp), np.ones(size), np.ones(size), bits, np.array(keep), **settled)


def test_a_tally_counts_what_it_keeps() -> None:
    tally = tally_of([0.25, 3.0, math.nan, 9.0, 3.0], [True, True, True, False, True], by_arb=2)
    assert (tally.inputs, tally.undecided, tally.by_arb, tally.by_expansion) == (4, 1, 2, 0)
    assert tally.histogram == (1, 0, 0, 0, 2, 0, 0, 0, 0)
    assert (tally.worst, tally.worst_bits) == (3.0, 101)
    assert tally.incorrectly_rounded == 2
    nothing = tally_of([1.0], [False])
    assert nothing == Tally()
    assert (nothing.worst, nothing.worst_bits) == (0.0, -1)
    assert set(dataclasses.astuple(Tally())) == {0, -1, (0,) * (EDGES + 1)}


def test_tallies_add_in_any_order() -> None:
    parts = [
        tally_of([0.25, 3.0], [True, True], by_expansion=1),
        dataclasses.replace(tally_of([0.75, math.nan], [True, True], by_arb=4), worst_bits=3),
        dataclasses.replace(tally_of([3.0], [True]), worst_bits=7, lost_to_zero=1, wrong_sign=2),
        Tally.all_correct(5),
    ]
    for order in itertools.permutations(parts):
        total = functools.reduce(operator.add, order)
        assert total == Tally(
            inputs=10,
            histogram=(6, 0, 1, 0, 2, 0, 0, 0, 0),
            worst=3.0,
            worst_bits=7,
            undecided=1,
            by_expansion=1,
            by_arb=4,
            lost_to_zero=1,
            wrong_sign=2,
        )


def test_quantiles_are_edges_of_the_histogram() -> None:
    tally = tally_of([0.1, 0.2, 0.7, 3.0, 1e6], [True] * 5)
    quantiles = [tally.quantile(share) for share in (0.2, 0.4, 0.5, 0.8, 0.9, 1.0)]
    assert quantiles == [0.5, 0.5, 1.0, 4.0, 1e6, 1e6]


# --- what is left, and shared --------------------------------------------------------------------


def test_a_line_cut_short_does_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "a[1]", "key", 0)
    journal.append(3, {GENERAL: Tally(inputs=5)})
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text() + '\n{"key": "key", "chu')
    journal.append(4, {GENERAL: Tally(inputs=6)})
    assert sorted(journal.read()) == [3, 4]
    assert Journal(tmp_path, "a[1]", "another", 0).read() == {}
    journal.remove()
    assert not list(tmp_path.iterdir())


def run(*arguments: str, torchrun: int = 0) -> subprocess.CompletedProcess[str]:
    """A short sweep by processes that compile nothing: which of them does what is the same."""
    command = [sys.executable, str(ROOT / "tests/sharded_sweep.py"), *arguments]
    if torchrun:
        processes = f"--nproc-per-node={torchrun}"
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", processes]
    environment = {**os.environ, "CXX": "none", "PYTHONWARNINGS": "ignore:no C++ compiler"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


@pytest.mark.xdist_group("sharded")
def test_any_number_of_processes_writes_the_same_certificate(tmp_path: Path) -> None:
    """And a sweep that was killed resumes, with another number of processes."""
    folders = {name: tmp_path / name for name in ("1", "2", "3", "killed")}
    killed = run(str(folders["killed"]), torchrun=2)
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr or "Signal 9" in killed.stderr
    journals = [path.read_text() for path in folders["killed"].iterdir()]
    written = [line for journal in journals for line in journal.split("\n") if line]
    assert 2 <= len(written) < CHUNKS
    processes = {"1": 1, "2": 2, "3": 3, "killed": 3}
    done = run(*(part for n, count in processes.items() for part in (str(folders[n]), str(count))))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for name, count in processes.items():
        assert count == 1 or f"by {count} processes in {folders[name]}" in said
        assert [path.name for path in folders[name].iterdir()] == ["relu.json"]
        assert certificate_in(folders[name]) == certificate_in(folders["1"])
    (certificate,) = archive.read_folder(folders["1"])
    assert certificate.total.inputs == CHUNKS * short_sweep().chunk_size


def certificate_in(folder: Path) -> bytes:
    return archive.path_of(folder, "relu").read_bytes()


# --- the files -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("proved")
    return sweep_of("relu", "value", "float16").run(folder, lambda done, of: None)


def test_certificates_of_an_operation_share_a_file(
    certificate: Certificate, tmp_path: Path
) -> None:
    elsewhere = {**certificate.environment, "machine": "another"}
    total = dataclasses.replace(certificate.total, worst=math.inf, worst_bits=7, undecided=1)
    changes: list[dict[str, Any]] = [
        {},
        {"subject": "mine"},
        {"parameters": {"alpha": math.inf, "approximate": "tanh"}},
        {"quantity": "derivative", "environment": elsewhere},
        {"dtype": "float32", "float64": Float64Error(1e-9, "1 (0x1p+0)", 5, 2e-9)},
        {"device": "cuda", "regions": {GENERAL: Region(0.5, total)}, "worst_inputs": {}},
    ]
    found = [dataclasses.replace(certificate, **change) for change in changes]
    for one in found:
        archive.write(tmp_path, one)
    (path,) = tmp_path.iterdir()
    assert path.name == "relu.json"
    text = path.read_text()
    assert sorted(archive.read(path), key=repr) == sorted(found, key=repr)
    assert text.count('"environment"') == 2
    assert len(text.splitlines()) < 5 * len(found)
    for one in reversed(found):
        archive.write(tmp_path, one)
    assert path.read_text() == text, "the order of writing counts, or one is kept twice"
    assert [one.passed for one in archive.read(path)].count(False) == 1


def test_a_certificate_of_another_source_or_bound_is_stale(
    certificate: Certificate, tmp_path: Path
) -> None:
    sweep = sweep_of("relu", "value", "float16")
    assert sweep.found(tmp_path) is None
    archive.write(tmp_path, certificate)
    assert sweep.certified(tmp_path) == certificate
    assert dataclasses.replace(sweep, claim=1.0).found(tmp_path) is None
    archive.write(tmp_path, dataclasses.replace(certificate, environment={}))
    assert sweep.found(tmp_path) is not None
    assert sweep.certified(tmp_path) is None
    archive.write(tmp_path, dataclasses.replace(certificate, source="another"))
    assert sweep.found(tmp_path) is None


def test_writers_at_the_same_time_lose_nothing(certificate: Certificate, tmp_path: Path) -> None:
    """Each writes a certificate of its own, while others read whole files."""
    found = [dataclasses.replace(certificate, subject=f"kernel {i}") for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        for one in found:
            pool.submit(archive.write, tmp_path, one)
            pool.submit(archive.read_folder, tmp_path)
    assert len(archive.read_folder(tmp_path)) == len(found)
    assert [path.name for path in tmp_path.iterdir()] == ["relu.json"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "relu.json"
    path.write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"got format 1, wants 2: certify again"):
        archive.read(path)
