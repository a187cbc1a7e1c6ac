"""Cross entropy of a linear function, and connectionist temporal classification, against Arb."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flint import arb, ctx
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import losses
from gradref import fuse
from gradref.contenders.ours import Ours
from gradref.judge import gates
from gradref.judge.batches import BatchExam
from gradref.judge.questions import Sample
from gradref.judge.trial import Trial
from gradref.judge.ulp import errors, spacing, to_floats
from gradref.judge.verdict import DTYPES, Case
from gradref.report.text import failure
from gradref.runs.verify import verify
from gradref.truth.hessians import BITS, rounded_to_balls
from losses import _linear as linear

FLOATS = [torch.float64, torch.float32, torch.bfloat16]
Objects = NDArray[Any]


def off(got: Tensor, truth: Objects, digits: float = 0.0) -> float:
    """The worst error in ulp, less what float64 loses where numbers of the largest size cancel."""
    balls = rounded_to_balls(truth.reshape(-1))
    size = np.nanmax(np.abs(balls.high), initial=0.0)
    with np.errstate(over="ignore"):  # of a truth that is 0
        lost = digits * 2.0**-53 * size / spacing(balls.high, got.dtype)
    return float((errors(to_floats(got).reshape(-1), balls, got.dtype) - lost).max(initial=0.0))


def of(got: Any) -> Any:
    """Floats as exact numbers of Arb."""
    return np.frompyfunc(arb, 1, 1)(to_floats(got))


@pytest.fixture
def in_many_bits() -> Iterator[None]:
    """Arb's precision; without it sums of balls are rounded to 53 bits."""
    with ctx.workprec(BITS):
        yield


# --- linear_cross_entropy ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Several tiles each way, also of small arrays."""
    if "real_tiles" not in request.fixturenames:
        monkeypatch.setattr(linear, "ROWS", 2)
        monkeypatch.setattr(linear, "CLASSES", 3)


@pytest.fixture
def real_tiles() -> None:
    """The tiles as they are."""


CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no bias": {"linear_bias": None},
    "weighted, ignored": {"weight": True, "ignore_index": 1},
    "smoothed": {"label_smoothing": 0.125, "weight": True, "reduction": "sum"},
    "probabilities": {"target": "float", "weight": True, "reduction": "none"},
    "probabilities, smoothed": {"target": "float", "label_smoothing": 0.25},
}
N, C, D = 5, 7, 3


def arguments(case: dict[str, Any], dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Any]]:
    """x, W and t, and the others."""
    draw = torch.Generator().manual_seed(3)
    options = {"linear_bias": True, **case}
    x, w, b = (torch.randn(s, generator=draw).to(dtype) for s in ((N, D), (C, D), (C,)))
    t: Tensor = torch.tensor([1, 6, 0, 1, 3])
    if options.pop("target", "") == "float":
        t = torch.rand(N, C, generator=draw).to(dtype)
    if options["linear_bias"]:
        options["linear_bias"] = b
    if "weight" in options:
        options["weight"] = torch.rand(C, generator=draw).to(dtype)
    return [x, w, t], options


@pytest.mark.parametrize("case", losses.linear_cross_entropy.operation.cases, ids=list)
@pytest.mark.parametrize("kind", DTYPES)
def test_linear_of_several_tiles_is_near_the_truth(case: dict[str, Any], kind: str) -> None:
    """What gradref verify asks, of tiles that small calls have several of each way."""
    found = list(verify(Case("linear_cross_entropy", case, kind, "cpu"), "smoke", 0))
    assert [failure(verdict) for verdict in found if not verdict.passed] == []


def test_linear_keeps_what_is_left_of_a_certain_row() -> None:
    """Where the target has all but 1e-24 of the probability nothing cancels, in float64."""
    w = torch.arange(C * D, dtype=torch.float64).reshape(C, D) % 5 - 2
    x = 8 * torch.tensor([[-1.0, 3.0, 2.0], [2.0, -3.0, 1.0]], dtype=torch.float64).repeat(3, 1)[:N]
    arrays = {"input": x, "linear_weight": w, "target": (x @ w.T).argmax(-1)}
    ones = torch.ones(C * D, dtype=torch.float64)
    exam = BatchExam(Case("linear_cross_entropy", {}, "float64", "cpu"), 1, 0)
    vars(exam)["samples"] = [Sample(arrays, ones[:N], ones, {}, is_one_chunk=True)]
    assert float(losses.linear_cross_entropy(**arrays)) < 1e-9
    found = list(Trial(Ours(), gates.OURS, []).verdicts(exam))
    assert [failure(verdict) for verdict in found if not verdict.passed] == []


def test_linear_is_torchs() -> None:
    """Arguments and defaults, and shapes of one row; options are about torch's memory."""
    theirs = dict(inspect.signature(F.linear_cross_entropy).parameters)
    theirs.pop("options")
    ours = inspect.signature(losses.linear_cross_entropy).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]
    (x, w, t), options = arguments(CASES["weighted, ignored"], torch.float64)
    for reduction in ("none", "mean", "sum"):
        for given in ((x, w, t), (x[1], w, t[1])):
            got = losses.linear_cross_entropy(*given, **options, reduction=reduction)
            torch.testing.assert_close(
                got, F.linear_cross_entropy(*given, **options, reduction=reduction)
            )
    gradient = losses.linear_cross_entropy_gradient(x[1], w, t[1])
    assert gradient.shape == (D,)


def test_linear_of_rows_that_do_not_count() -> None:
    (x, w, t), _ = arguments({}, torch.float32)
    ignored = torch.full_like(t, -100)
    assert losses.linear_cross_entropy(x, w, ignored).isnan()
    for a in ("input", "linear_weight"):
        assert (losses.linear_cross_entropy_gradient(x, w, ignored, wrt=a) == 0).all()
    spoilt = torch.cat([x, torch.full((1, D), torch.nan)])
    more = torch.cat([t, ignored[:1]])
    for a in ("input", "linear_weight"):
        got = losses.linear_cross_entropy_gradient(spoilt, w, more, wrt=a)
        want = losses.linear_cross_entropy_gradient(x, w, t, wrt=a)
        assert torch.equal(got[: len(want)], want)
        assert (got[len(want) :] == 0).all()
    assert losses.linear_cross_entropy(x[:0], w, t[:0]).isnan()
    assert losses.linear_cross_entropy(x[:0], w, t[:0], reduction="sum") == 0
    assert losses.linear_cross_entropy_gradient(x[:0], w, t[:0]).shape == (0, D)
    gradient = losses.linear_cross_entropy_gradient(x[:0], w, t[:0], wrt="linear_weight")
    assert torch.equal(gradient, torch.zeros(C, D))


def test_linear_at_infinity() -> None:
    """A bias of -inf is probability 0, also of the first tile; NaN and inf spoil their row."""
    (x, w, t), _ = arguments({}, torch.float64)
    b = torch.tensor([0.0, 0, 0, 0, 0, 0, 0]).double().index_fill(0, torch.arange(3), -torch.inf)
    t = t.clamp(min=3)
    got = losses.linear_cross_entropy_gradient(x, w, t, linear_bias=b, wrt="linear_weight")
    want = losses.linear_cross_entropy_gradient(x, w[3:], t - 3, wrt="linear_weight")
    torch.testing.assert_close(got, torch.cat([torch.zeros(3, D), want]))
    loss = losses.linear_cross_entropy(x, w, t, linear_bias=b)
    torch.testing.assert_close(loss, losses.linear_cross_entropy(x, w[3:], t - 3))
    lost = losses.linear_cross_entropy(x, w, 0 * t, linear_bias=b, reduction="none")
    assert (lost == torch.inf).all()
    for bad in (torch.nan, torch.inf):
        x[1, 0] = bad
        each = losses.linear_cross_entropy(x, w, t, reduction="none")
        assert each.isnan().tolist() == [False, True, False, False, False]


class Largest(TorchDispatchMode):
    """Records the size in bytes of the largest tensor that any operation gives."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.nbytes)
        return result


@pytest.mark.usefixtures("real_tiles")
def test_linear_makes_no_logits() -> None:
    x, w, t = torch.randn(512, 8), torch.randn(4096, 8), torch.randint(0, 4096, (512,))
    logits = len(x) * len(w) * x.element_size()

    def largest(function: Any, *more: Tensor, **options: Any) -> int:
        with Largest() as seen:
            function(x, w, t, *more, **options)
        return seen.bytes

    assert largest(F.linear_cross_entropy) == logits
    assert largest(losses.linear_cross_entropy, label_smoothing=0.1) <= logits / 8
    for a in ("input", "linear_weight"):
        assert largest(losses.linear_cross_entropy_gradient, wrt=a) <= logits / 8
    fused = fuse(losses.linear_cross_entropy)
    assert largest(fused, wrt=("input", "linear_weight")) <= logits / 8
    assert largest(losses.linear_cross_entropy_hvp, w, along="linear_weight") <= logits / 8
    assert largest(losses.linear_cross_entropy_hessian_diagonal) <= logits / 8


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.zeros(2, 4)}, ValueError, "input: got shape (2, 4), wants shape (N, 3)"),
        ({"linear_weight": torch.zeros(3)}, ValueError, "linear_weight: got shape (3,)"),
        ({"target": torch.zeros(3).long()}, ValueError, "target: got shape (3,), wants shape (2,)"),
        ({"target": torch.tensor([0, 4])}, IndexError, "target: got a value of 4, wants class"),
        ({"target": torch.full((2, 4), 2.0)}, ValueError, "wants probabilities in [0, 1]"),
        (
            {"target": torch.ones(2, 4), "ignore_index": 0},
            ValueError,
            "ignore_index: got 0, wants None",
        ),
        ({"linear_bias": torch.zeros(3)}, ValueError, "linear_bias: got shape (3,), wants shape"),
        ({"weight": -torch.ones(4)}, ValueError, "weight: got a value of -1.0"),
        ({"reduction": "max"}, ValueError, "reduction: got 'max'"),
        ({"label_smoothing": 2.0}, ValueError, "label_smoothing: got 2.0"),
        ({"input": torch.zeros(2, 3).long()}, TypeError, "input: got a int64 tensor"),
        ({"input": torch.zeros(2, 3).requires_grad_()}, ValueError, "that torch differentiates"),
    ],
)
def test_linear_says_what_does_not_fit(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    given = {"input": torch.zeros(2, 3), "linear_weight": torch.zeros(4, 3)}
    given |= {"target": torch.zeros(2).long(), **change}
    for function in (losses.linear_cross_entropy, losses.linear_cross_entropy_gradient):
        with pytest.raises(error, match=re.escape(words)):
            function(**given)


def test_linear_says_what_it_is_not_a_function_of() -> None:
    given = (torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(2).long())
    with pytest.raises(ValueError, match="wrt: got 'linear_bias', wants one of 'input', 'linear"):
        losses.linear_cross_entropy_gradient(*given, wrt="linear_bias")
    with pytest.raises(ValueError, match="tangent: got shape \\(2, 3\\), wants shape \\(4, 3\\)"):
        losses.linear_cross_entropy_hvp(*given, given[0], along="linear_weight")
    with pytest.raises(ValueError, match="grad_output: got shape"):
        losses.linear_cross_entropy_gradient(*given, grad_output=torch.ones(2))


def test_linear_takes_numpy() -> None:
    x, w = np.ones((2, 3), dtype=np.float32), np.eye(4, 3, dtype=np.float32)
    got = losses.linear_cross_entropy_gradient(x, w, np.array([0, 1]))  # type: ignore[arg-type]
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float32


# --- ctc_loss ------------------------------------------------------------------------------------

TIMES, LABELS = 5, 3


def collapsed(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """What is left without repetitions and then without blanks."""
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


class Paths:
    """All paths of a label sequence through log-probabilities of few times and classes, in Arb."""

    def __init__(self, x: Tensor, labels: tuple[int, ...], blank: int) -> None:
        self.shape = tuple(x.shape)
        known = of(x)
        every = itertools.product(range(self.shape[1]), repeat=self.shape[0])
        self.paths = [p for p in every if collapsed(p, blank) == labels]
        times = range(self.shape[0])
        each = [sum((known[t, p[t]] for t in times), arb(0)).exp() for p in self.paths]
        self.total = sum(each, arb(0))
        self.shares = [a / self.total for a in each]

    def loss(self) -> arb:
        return -self.total.log()

    def emitted(self, weights: list[arb] | None = None) -> Objects:
        """The expectation, over the paths, of what is emitted times a weight of the path."""
        result = np.full(self.shape, arb(0), dtype=object)
        for i, path in enumerate(self.paths):
            share = self.shares[i] if weights is None else self.shares[i] * weights[i]
            for t, c in enumerate(path):
                result[t, c] = result[t, c] + share
        return result

    def covariance(self, tangent: Tensor) -> Objects:
        """Of what is emitted with the sum of the tangent along the path."""
        v = of(tangent)
        sums = [sum((v[t, c] for t, c in enumerate(path)), arb(0)) for path in self.paths]
        mean = sum((s * w for s, w in zip(self.shares, sums, strict=True)), arb(0))
        return self.emitted([s - mean for s in sums])


SEQUENCES = [
    (5, (1, 2), 0),
    (4, (1, 1), 0),
    (5, (0, 0, 1), 2),
    (3, (2,), 1),
    (2, (), 0),
    (3, (1, 1), 0),
    (1, (2,), 0),
]
"""Times, labels, repeated or none, and the blank."""


@pytest.mark.usefixtures("in_many_bits")
@pytest.mark.parametrize("kind", FLOATS, ids=str)
@pytest.mark.parametrize(("times", "labels", "blank"), SEQUENCES)
def test_ctc_is_near_the_sum_over_all_paths(
    times: int, labels: tuple[int, ...], blank: int, kind: torch.dtype
) -> None:
    draw = torch.Generator().manual_seed(len(labels))
    x = torch.randn(times, LABELS, generator=draw).mul(3).log_softmax(-1).to(kind)
    v = torch.randn(times, LABELS, generator=draw).to(kind)
    paths = Paths(x, labels, blank)
    given = (x, torch.tensor(labels, dtype=torch.int64), times, len(labels))
    options: dict[str, Any] = {"blank": blank, "reduction": "sum"}
    assert off(losses.ctc_loss(*given, **options), np.array([paths.loss()]), 4) <= 0.5
    g = paths.emitted()
    bound = 8 if kind is torch.float64 else 0.5001
    gradient = losses.ctc_loss_gradient(*given, **options)
    assert gradient.dtype is kind
    assert off(gradient, -g) <= bound
    assert off(losses.ctc_loss_hessian_diagonal(*given, **options), -g * (1 - g), 8) <= 0.5
    assert off(losses.ctc_loss_hvp(*given, v, **options), -paths.covariance(v), 32) <= 0.5


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three sequences of other lengths, behind whose ends stand numbers that do not count."""
    x = torch.randn(TIMES, 3, 4, dtype=torch.float64).log_softmax(-1)
    targets = torch.tensor([[1, 2, 2], [3, -7, 99], [0, 0, 0]])
    return x, targets, torch.tensor([5, 3, 4]), torch.tensor([3, 1, 0])


def test_ctc_is_torchs_but_for_the_gradient() -> None:
    """torch's is that of logits before a log_softmax, which is another function of log_probs."""
    x, targets, times, lengths = batch()
    assert list(inspect.signature(losses.ctc_loss).parameters.values())[4].default == 0
    ours = inspect.signature(losses.ctc_loss).parameters
    theirs = inspect.signature(F.ctc_loss).parameters
    assert {n: p.default for n, p in ours.items()} == {n: p.default for n, p in theirs.items()}
    for reduction in ("none", "mean", "sum"):
        want = F.ctc_loss(x, targets, times, lengths, reduction=reduction)
        got = losses.ctc_loss(x, targets, times, lengths, reduction=reduction)
        torch.testing.assert_close(got, want)
    leaf = x.clone().requires_grad_()
    F.ctc_loss(leaf, targets, times, lengths, reduction="sum").backward()
    assert leaf.grad is not None
    gradient = losses.ctc_loss_gradient(x, targets, times, lengths, reduction="sum")
    is_time = (torch.arange(TIMES)[:, None] < times)[..., None]
    torch.testing.assert_close(leaf.grad, gradient + x.exp() * is_time)
    torch.testing.assert_close(gradient.sum(-1), -is_time[..., 0].double())
    logits = torch.randn_like(x).requires_grad_()
    known = logits.log_softmax(-1)
    F.ctc_loss(known, targets, times, lengths).backward(retain_graph=True)
    slope = losses.ctc_loss_gradient(known.detach(), targets, times, lengths)
    torch.testing.assert_close(torch.autograd.grad(known, logits, slope)[0], logits.grad)


def test_ctc_takes_lengths_and_targets_in_each_form() -> None:
    x, targets, times, lengths = batch()
    want = losses.ctc_loss_gradient(x, targets, times, lengths)
    joined = torch.tensor([1, 2, 2, 3])
    for form in (targets, joined, joined.int()):
        for kind in (lambda a: a, lambda a: tuple(a.tolist()), lambda a: a.int()):
            got = losses.ctc_loss_gradient(x, form, kind(times), kind(lengths))
            assert torch.equal(got, want)
    for i in range(3):
        one = (x[:, i], targets[i, : lengths[i]], times[i], int(lengths[i]))
        got = losses.ctc_loss_gradient(*one, reduction="none")
        torch.testing.assert_close(got, want[:, i] * 3 * max(1, int(lengths[i])))
        assert losses.ctc_loss(*one, reduction="none").shape == ()


def test_ctc_of_labels_without_a_path() -> None:
    """Two equal labels want a blank between them; torch's gradient of such a target is NaN too."""
    x, _, times, _ = batch()
    targets, lengths = torch.tensor([[1, 1, 0], [1, 1, 2], [3, 0, 0]]), torch.tensor([2, 3, 1])
    each = losses.ctc_loss(x, targets, times, lengths, reduction="none")
    assert each.isinf().tolist() == [False, True, False]
    kept = losses.ctc_loss(x, targets, times, lengths, reduction="none", zero_infinity=True)
    assert torch.equal(kept, each.nan_to_num(posinf=0.0))
    for function in (losses.ctc_loss_gradient, losses.ctc_loss_hessian_diagonal):
        wrong = function(x, targets, times, lengths).isnan()
        assert (
            wrong.all(-1).all(0).tolist() == wrong.any(-1).any(0).tolist() == [False, True, False]
        )
        zero = function(x, targets, times, lengths, zero_infinity=True)
        assert (zero[:, 1] == 0).all()
        assert zero[:, 0].any()
    bent = losses.ctc_loss_hvp(x, targets, times, lengths, x, zero_infinity=True)
    assert bent.isfinite().all()
    nothing = torch.zeros(0, dtype=torch.int64)
    assert losses.ctc_loss(x[:, 0], nothing, 0, 0) == 0
    assert losses.ctc_loss(x[:, 0], torch.tensor([1]), 0, 1) == torch.inf


def test_ctc_of_probability_0_and_of_a_long_sequence() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64).log()
    given = (x, torch.tensor([1]), 3, 1)
    assert losses.ctc_loss(*given) == -np.log(0.5)
    assert losses.ctc_loss_gradient(*given).tolist() == [[0, -1], [-1, 0], [-1, 0]]
    assert losses.ctc_loss_hessian_diagonal(*given).abs().max() == 0
    x = torch.full((400, 3), -40.0, dtype=torch.float64)
    labels = torch.tensor([1, 2]).repeat(100)
    gradient = losses.ctc_loss_gradient(x, labels, 400, 200)
    torch.testing.assert_close(gradient.sum(-1) * 200, torch.full((400,), -1.0).double())


def test_ctc_hvp_is_that_of_the_gradient() -> None:
    """Along a direction, by central differences that get better as the square of the step."""
    x, targets, times, lengths = batch()
    v = torch.randn_like(x)
    g = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    options: dict[str, Any] = {"reduction": "none", "grad_output": g}
    bent = losses.ctc_loss_hvp(x, targets, times, lengths, v, **options)

    def difference(h: float) -> Tensor:
        up, down = (
            losses.ctc_loss_gradient(x + s * h * v, targets, times, lengths, **options)
            for s in (1, -1)
        )
        return (up - down) / (2 * h)

    coarse, fine = ((difference(h) - bent).abs().max() for h in (2.0**-6, 2.0**-9))
    assert fine < coarse / 32 < 1e-3


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"log_probs": torch.zeros(5)}, ValueError, "log_probs: got shape (5,), wants shape (T, N"),
        ({"log_probs": torch.zeros(4, 2, 3).long()}, TypeError, "log_probs: got a int64 tensor"),
        ({"targets": torch.ones(2, 2)}, TypeError, "targets: got a float32 tensor"),
        ({"targets": torch.ones(3).long()}, ValueError, "targets: got shape (3,), wants shape (2"),
        ({"targets": torch.zeros(2, 2).long()}, ValueError, "targets: got a label of 0, wants la"),
        ({"targets": torch.full((2, 2), 3)}, ValueError, "targets: got a label of 3, wants labels"),
        ({"input_lengths": (4, 5)}, ValueError, "input_lengths: got 5, wants numbers in [0, 4]"),
        ({"input_lengths": (4,)}, ValueError, "input_lengths: got 1 numbers, wants 2"),
        ({"target_lengths": (2, -1)}, ValueError, "target_lengths: got -1, wants numbers >= 0"),
        ({"target_lengths": (2.0, 1.0)}, TypeError, "target_lengths: got tuple (2.0, 1.0), wants"),
        ({"blank": 3}, ValueError, "blank: got 3, wants a class in [0, 3)"),
        ({"reduction": "max"}, ValueError, "reduction: got 'max'"),
    ],
)
def test_ctc_says_what_does_not_fit(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    given = {"log_probs": torch.zeros(4, 2, 3), "targets": torch.ones(2, 2).long()}
    given |= {"input_lengths": (4, 4), "target_lengths": (2, 2), **change}
    for function in (losses.ctc_loss, losses.ctc_loss_gradient):
        with pytest.raises(error, match=re.escape(words)):
            function(**given)
