"""Losses of a batch: behind torch.autograd, before the judge, and where rows are wanted."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gradref
import losses
from gradref.declare.registry import batch_losses, operations
from gradref.judge.snippet import of_verdict
from gradref.judge.verdict import Case, Verdict
from gradref.runs.check import check_subject
from gradref.runs.options import Options
from gradref.runs.verify import verify
from losses import _linear

KERNELS = """
import torch
import torch.nn.functional as F


def linear_cross_entropy(input, linear_weight, target, *, linear_bias=None, reduction="mean"):
    return F.cross_entropy(F.linear(input, linear_weight, linear_bias), target, reduction=reduction)


def linear_cross_entropy_backward(
    grad_output, input, linear_weight, target, *, linear_bias=None, reduction="mean"
):
    x, w = input.double(), linear_weight.double()
    z = x @ w.T + (0 if linear_bias is None else linear_bias.double())
    last = {classes}
    p = (z - z[:, :last].logsumexp(-1, keepdim=True)).exp()
    counted = (target != -100)[:, None]
    g = (p - F.one_hot(target.clamp(min=0), len(w))) * counted
    g = g * (grad_output / counted.sum() if reduction == "mean" else grad_output.reshape(-1, 1))
    return g @ w, g.T @ x, None, {bias}


ctc_loss = F.ctc_loss
"""


FUSED = """
import losses
from gradref import fuse

kernel = fuse(losses.linear_cross_entropy)


def linear_cross_entropy(input, linear_weight, target, **more):
    return kernel(input, linear_weight, target, **more)[0]


def linear_cross_entropy_backward(
    grad_output, input, linear_weight, target, linear_bias=None, **more
):
    names = ["input", "linear_weight", "linear_bias"][: 2 if linear_bias is None else 3]
    more.update(linear_bias=linear_bias, grad_output=grad_output, wrt=names)
    _, by_input, by_weight, *by_bias = kernel(input, linear_weight, target, **more)
    return by_input, by_weight, None, *by_bias
"""


def rows_of(kind: str) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
    """A loss of a batch, what is differentiable of it, and the rest."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    if kind == "ctc":
        labels = {"targets": torch.tensor([[1, 2], [3, 3]]), "input_lengths": (5, 4)}
        return losses.ctc_loss, {"log_probs": normal(5, 2, 4)}, {**labels, "target_lengths": [2, 2]}
    if kind == "triplet":
        points = {name: normal(4, 3) for name in ("anchor", "positive", "negative")}
        return losses.triplet_margin_with_distance_loss, points, {"swap": True}
    arrays = {"input": normal(4, 3), "linear_weight": normal(5, 3), "linear_bias": normal(5)}
    if kind == "linear without a bias":
        del arrays["linear_bias"]
    return losses.linear_cross_entropy, arrays, {"target": torch.tensor([0, 4, -100, 2])}


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "kind", ["ctc", "triplet", "linear", "linear without a bias", "linear, fused"]
)
def test_torch_differentiates_once_by_the_gradient(kind: str, reduction: str) -> None:
    loss, arrays, more = rows_of(kind.removesuffix(", fused"))
    made = gradref.fuse(loss) if kind.endswith("fused") else loss
    differentiable = pickle.loads(pickle.dumps(gradref.as_autograd(made)))

    def value(*given: Tensor) -> Tensor:
        named = dict(zip(arrays, given, strict=True))
        result: Tensor = differentiable(**named, **more, reduction=reduction)
        return result

    assert torch.autograd.gradcheck(value, tuple(arrays.values()))
    found = value(*arrays.values())
    assert torch.equal(
        found, loss(**{n: a.detach() for n, a in arrays.items()}, **more, reduction=reduction)
    )
    with pytest.raises(RuntimeError, match=rf"{loss.__name__}_gradient and _hvp: torch"):
        torch.autograd.grad(found.sum(), tuple(arrays.values()), create_graph=True)


def test_a_fused_kernel_of_the_linear_loss_has_the_loss_and_every_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of logits that are in memory row by row."""
    monkeypatch.setattr(_linear, "ROWS", 1)
    monkeypatch.setattr(_linear, "CLASSES", 1)
    loss, arrays, more = rows_of("linear")
    x, w, b = (array.detach().float() for array in arrays.values())
    kernel, names = gradref.fuse(loss), tuple(arrays)
    found = kernel(x, w, **more, linear_bias=b, wrt=names)
    gradients = [
        losses.linear_cross_entropy_gradient(x, w, **more, linear_bias=b, wrt=n) for n in names
    ]
    torch.testing.assert_close(found, (loss(x, w, **more, linear_bias=b), *gradients))
    assert repr(kernel) == "<fused linear_cross_entropy: value, gradient>"
    assert len(kernel(x, w, **more)) == 2
    assert isinstance(kernel(x.numpy(), w.numpy(), more["target"].numpy())[1], np.ndarray)
    mixed = kernel(x.double(), w, **more)
    assert [result.dtype for result in mixed] == [torch.float64] * 2
    precise = gradref.fuse(loss, precise=True)(x, w, **more, wrt="linear_weight")[1]
    expected = losses.linear_cross_entropy_gradient(x, w, **more, wrt="linear_weight")
    assert torch.equal(precise, expected)
    for options, error, words in (
        ({"out": x}, TypeError, "out: got a float32 tensor"),
        ({"wrt": "target"}, ValueError, "wrt: got 'target', wants one of 'input'"),
    ):
        with pytest.raises(error, match=words):
            kernel(x, w, **more, **options)
    with pytest.raises(ValueError, match="results: got 'value', wants none named"):
        gradref.fuse(loss, "value")


@pytest.mark.parametrize("rows", ["infinite or NaN", "none", "ignored", "large"])
def test_a_fused_kernel_of_the_linear_loss_takes_any_rows(rows: str) -> None:
    generator = torch.Generator().manual_seed(7)
    x, w = (torch.randn(n, 3, generator=generator) for n in (5, 7))
    target = torch.tensor([0, 1, 2, 3, -100])
    if rows == "infinite or NaN":
        x[0, 0], x[1, 0], x[4] = math.inf, math.nan, math.nan
    x, target = (x[:0], target[:0]) if rows == "none" else (x, target)
    target = torch.full_like(target, -100) if rows == "ignored" else target
    x = 1e4 * x if rows == "large" else x
    for reduction in ("none", "mean"):
        names = ("input", "linear_weight")
        found = gradref.fuse(losses.linear_cross_entropy)(
            x, w, target, reduction=reduction, wrt=names
        )
        more = [
            losses.linear_cross_entropy_gradient(x, w, target, reduction=reduction, wrt=name)
            for name in names
        ]
        value = losses.linear_cross_entropy(x, w, target, reduction=reduction)
        torch.testing.assert_close(found, (value, *more), equal_nan=True)


def test_what_is_a_constant_of_the_linear_loss() -> None:
    loss, arrays, more = rows_of("linear")
    weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"weight\.detach\(\): it is a constant"):
        gradref.as_autograd(loss)(**arrays, **more, weight=weight)


# --- before the judge ----------------------------------------------------------------------------


def checked(folder: Path, operation: str, **changes: str) -> dict[str, Verdict]:
    """The verdicts on kernels of somebody's file, in float64, by setting and quantity."""
    (file := folder / "theirs.py").write_text(
        KERNELS.format(**{"classes": "len(w)", "bias": "g.sum(0)", **changes})
    )
    run = check_subject(str(file), operation, ["float64"], Options(mode="quick"))
    assert run.problems == []
    return {f"{v.label} {v.quantity}": v for v in run.verdicts}


def test_our_own_judge_passes_the_fused_kernel(tmp_path: Path) -> None:
    (file := tmp_path / "ours.py").write_text(FUSED)
    run = check_subject(str(file), "linear_cross_entropy", ["float32"], Options(mode="quick"))
    assert run.problems == []
    assert {v.status for v in run.verdicts} == {"pass", "unsupported"}
    judged = {v.quantity for v in run.verdicts if v.status == "pass"}
    assert {"value", "gradient(input)", "gradient(linear_bias) [mean]", "real size"} <= judged


def test_a_right_kernel_passes(tmp_path: Path) -> None:
    """By its forward and backward; the gradient by an optional array stands last."""
    found = checked(tmp_path, "linear_cross_entropy")
    assert {v.status for v in found.values()} == {"pass", "unsupported"}
    assert found["linear_cross_entropy gradient(linear_weight) [mean]"].judged > 50
    assert found["linear_cross_entropy real size"].status == "pass"
    bias = found["linear_cross_entropy(linear_bias=<real>) gradient(linear_bias) [sum]"]
    assert bias.status == "pass"
    assert found["linear_cross_entropy parameters"].words == (
        "does not take ignore_index, label_smoothing, weight",
    )


def test_a_backward_may_give_no_gradient_by_an_optional_array(tmp_path: Path) -> None:
    found = checked(tmp_path, "linear_cross_entropy", bias="")
    bias = found["linear_cross_entropy(linear_bias=<real>) gradient(linear_bias) [sum]"]
    assert (bias.status, bias.words) == ("unsupported", ("gives no gradient for linear_bias",))


@pytest.mark.parametrize(
    ("changes", "quantity", "words"),
    [
        ({"classes": "len(w) // 64 * 64 or None"}, "real size", "input of shape (67, 33): got"),
        ({"bias": "(target.zero_(), g.sum(0))[1]"}, "real size", "arrays: writes into target"),
        (
            {"classes": "len(w) if input.is_contiguous() else 1"},
            "real size",
            "strided arrays: input of shape (67, 33): got",
        ),
        ({"classes": "-1"}, "gradient(input) [sum]", "off by up to"),
        ({"bias": "g.sum(1)"}, "gradient(linear_bias) [sum]", "returns shape (5,), wants (4,)"),
    ],
)
def test_a_wrong_kernel_fails(
    tmp_path: Path, changes: dict[str, str], quantity: str, words: str
) -> None:
    """Also where it leaves out what only a large call has: the classes behind the last tile."""
    failed = {
        n: v
        for n, v in checked(tmp_path, "linear_cross_entropy", **changes).items()
        if v.status == "fail"
    }
    assert all("real size" in name for name in failed) == (quantity == "real size")
    assert any(name.endswith(quantity) and words in v.words[0] for name, v in failed.items())


def test_numbers_where_the_truth_is_0_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 an error there is no finite number of ulp, and neither is what may be lost."""
    record = losses.ctc_loss.operation
    right = record.derivatives["hvp"]

    def wrong(*args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = right(*args, **kwargs)
        return torch.where(result == 0, 1e-6, result)

    monkeypatch.setitem(record.derivatives, "hvp", wrong)
    found = list(verify(Case("ctc_loss", {}, "float64", "cpu"), "smoke", 0))
    assert {v.quantity.split("(")[0] for v in found if not v.passed} == {"hvp"}
    assert sum(not v.passed for v in found) == 3


def test_the_gradient_of_torchs_ctc_loss_is_named(tmp_path: Path) -> None:
    """It is wrong in every dtype; the snippet has labels as integers."""
    gradient = checked(tmp_path, "ctc_loss")["ctc_loss gradient(log_probs)"]
    assert "the gradient is that by logits which log_softmax follows" in gradient.words[0]
    assert gradient.point is not None
    assert "targets = torch.tensor([[" in of_verdict(gradient)
    scope: dict[str, Any] = {}
    exec(of_verdict(gradient), scope)
    assert scope["targets"].dtype is torch.int64


# --- where rows are wanted -----------------------------------------------------------------------


def test_only_their_names_find_them() -> None:
    known = {record.name for record in batch_losses()}
    assert known == {"ctc_loss", "linear_cross_entropy", "triplet_margin_with_distance_loss"}
    assert not known & {record.name for record in operations()}
    assert not known & {record.name for record in operations("losses")}
    assert [record.kind for record in operations("ctc_loss", "losses:ctc_loss")] == ["batch"]


@pytest.mark.parametrize("use", [gradref.fuse, gradref.vjp, gradref.value_and_derivative])
def test_what_wants_rows_says_so(use: Any) -> None:
    with pytest.raises(TypeError, match=r"got ctc_loss, wants a function of rows: call ctc_loss_g"):
        use(losses.ctc_loss)
    with pytest.raises(TypeError, match="got ctc_loss, wants a function of rows"):
        gradref.as_autograd(losses.ctc_loss_gradient)
