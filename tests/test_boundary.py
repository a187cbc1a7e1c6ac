"""Every kind of array in, the same kind out; ``out=``; layouts; and the errors, word for word."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import activations
import losses
from gradref import arrays
from gradref.declare.registry import operations

NUMPY = {"float64": np.float64, "float32": np.float32, "float16": np.float16}


class Foreign:
    """An array of another library: all that the boundary may use of it is DLPack."""

    def __init__(self, data: np.ndarray[Any, Any]) -> None:
        self.data = data

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def __array_namespace__(self) -> type[Foreign]:
        return Foreign

    @staticmethod
    def from_dlpack(other: Any) -> Foreign:
        return Foreign(np.from_dlpack(other))


# --- kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_in_numpy_out(name: str) -> None:
    x = np.linspace(-3, 3, 13).astype(NUMPY[name])
    y = activations.silu(x)
    assert isinstance(y, np.ndarray)
    assert y.dtype == x.dtype
    assert np.array_equal(y, activations.silu(torch.from_numpy(x)).numpy())
    scalar = activations.silu(x[3])
    assert type(scalar) is NUMPY[name]
    assert scalar == y[3]


def test_numpy_is_not_copied() -> None:
    x = np.zeros(4)
    tensor, _ = arrays.enter("x", x)
    assert tensor.data_ptr() == x.ctypes.data


@pytest.mark.parametrize(
    "x",
    [
        np.linspace(-3, 3, 12)[::-1],
        np.linspace(-3, 3, 12).astype(">f4"),
        np.linspace(-3, 3, 12).reshape(3, 4).T,
        np.broadcast_to(np.linspace(-3, 3, 3), (4, 3)),
    ],
    ids=["reversed", "big-endian", "transposed", "broadcast"],
)
def test_numpy_of_any_layout(x: np.ndarray[Any, Any]) -> None:
    plain = np.ascontiguousarray(x).astype(x.dtype.newbyteorder("="))
    assert np.array_equal(activations.tanh(x), activations.tanh(plain))


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.bool_, np.uint16])
def test_numpy_integers_are_promoted_as_numpy_does(kind: type) -> None:
    x = np.array([0, 1], dtype=kind)
    assert activations.sigmoid(x).dtype == np.exp(x).dtype


def test_torch_integers_are_promoted_as_torch_does() -> None:
    x = torch.tensor([-1, 0, 2])
    assert activations.sigmoid(x).dtype == torch.sigmoid(x).dtype == torch.float32


def test_floats_in_floats_out() -> None:
    for value in (0.5, 1, True, -math.inf):
        assert type(activations.sigmoid(value)) is float
    assert losses.mse_loss(3.0, 1.0) == 4.0
    assert math.isnan(activations.relu_derivative(math.nan))


def test_dlpack_in_and_out() -> None:
    x = np.linspace(-3, 3, 7)
    y = activations.gelu(Foreign(x))
    assert isinstance(y, Foreign)
    assert np.array_equal(y.data, activations.gelu(x))
    loss = losses.mse_loss(Foreign(x), Foreign(x + 1), reduction="none")
    assert np.array_equal(loss.data, losses.mse_loss(x, x + 1, reduction="none"))


# --- dtypes, shapes, layouts ---------------------------------------------------------------------


def elementwise_functions() -> list[Callable[..., Any]]:
    found = []
    for record in operations():
        if record.kind == "elementwise":
            found += [record.function, *record.derivatives.values()]
    return found


@pytest.mark.parametrize("function", elementwise_functions(), ids=lambda f: f.__name__)
def test_layouts(function: Callable[..., Any], dtype: str, device: str) -> None:
    kind = getattr(torch, dtype)
    base = torch.linspace(-4, 4, 6 * 8, device=device).to(kind).reshape(6, 8)
    want = function(base)
    assert want.dtype == kind
    assert want.device == base.device
    assert want.shape == base.shape
    same = torch.equal
    expect = want.nan_to_num(nan=7.0)
    assert same(function(base.T).T.nan_to_num(nan=7.0), expect)
    assert same(function(base[:, ::2]).nan_to_num(nan=7.0), expect[:, ::2])
    assert same(function(base[:, 3]).nan_to_num(nan=7.0), expect[:, 3])
    assert same(function(base[:1].expand(5, 8)).nan_to_num(nan=7.0), expect[:1].expand(5, 8))
    assert function(base[0, 0]).shape == ()
    assert function(base[:0]).shape == (0, 8)
    assert bool(function(torch.tensor(math.nan, dtype=kind, device=device)).isnan())
    formula = function.__wrapped__  # type: ignore[attr-defined]
    assert formula(base.double()).dtype == torch.float64


@pytest.mark.parametrize("size", [1, arrays.BLOCK - 1, arrays.BLOCK, arrays.BLOCK + 1, 200_003])
def test_blocks_do_not_show(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-9, 9, size)
    rows = torch.linspace(-9, 9, size * 3).reshape(-1, 3)
    target = torch.arange(size) % 3

    def results() -> list[torch.Tensor]:
        return [
            activations.gelu(x),
            activations.softmax(rows),
            activations.softmax(rows, dim=0),
            losses.cross_entropy(rows, target, reduction="none"),
            losses.cross_entropy_gradient(rows, target),
            losses.cross_entropy_gradient(rows.T.reshape(1, 3, -1), target.reshape(1, -1)),
        ]

    blocked = results()
    monkeypatch.setattr(arrays, "BLOCK", 1 << 30)
    for got, want in zip(blocked, results(), strict=True):
        assert torch.equal(got, want)
    assert losses.cross_entropy(rows, target) == pytest.approx(
        float(losses.cross_entropy(rows, target, reduction="none").double().mean()), rel=1e-6
    )


@pytest.mark.parametrize("shape", [(3,), (4, 3), (4, 3, 5), (2, 3, 2, 5)])
def test_classes_stand_in_dimension_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    rest = (*shape[:1], *shape[2:]) if len(shape) > 1 else ()
    target = torch.randint(0, 3, rest)
    reference = torch.nn.functional.cross_entropy(x, target, reduction="none")
    loss = losses.cross_entropy(x, target, reduction="none")
    assert loss.shape == reference.shape
    torch.testing.assert_close(loss, reference)
    gradient = losses.cross_entropy_gradient(x, target)
    leaf = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(leaf, target).backward()
    torch.testing.assert_close(gradient, leaf.grad)


def test_dimensions_of_a_softmax() -> None:
    x = torch.randn(2, 3, 4)
    for dim in (-3, -2, -1, 0, 1, 2):
        torch.testing.assert_close(activations.softmax(x, dim), torch.softmax(x, dim))
        square = activations.softmax_jacobian(x, dim)
        rest = [size for i, size in enumerate(x.shape) if i != dim % 3]
        assert square.shape == (*rest, x.shape[dim], x.shape[dim])


def test_rounding_is_one_rounding() -> None:
    """A float64 just above a tie of float16 that float32 cannot tell from the tie."""
    wide = torch.tensor([1 + 2.0**-11 + 2.0**-40], dtype=torch.float64)
    assert wide.to(torch.float16) == 1.0
    assert arrays.round_once(wide, torch.float16) == 1 + 2.0**-10
    tie = torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11], dtype=torch.float64)
    assert arrays.round_once(tie, torch.float16).tolist() == [1.0, 1 + 2.0**-9]


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rounding_keeps_every_number_of_the_format(name: str) -> None:
    kind = getattr(torch, name)
    values = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(kind)
    finite = values[~values.isnan()]
    again = arrays.round_once(finite.double(), kind)
    assert torch.equal(again.view(torch.int16), finite.view(torch.int16))
    largest = torch.finfo(kind).max
    over = torch.tensor([largest * (1 + torch.finfo(kind).eps), 1e300, math.inf])
    assert arrays.round_once(over.double(), kind).isinf().all()


# --- out= ----------------------------------------------------------------------------------------


def test_out_is_written_and_returned() -> None:
    x = torch.linspace(-3, 3, 10)
    out = torch.full_like(x, math.nan)
    assert activations.tanh(x, out=out) is out
    assert torch.equal(out, activations.tanh(x))
    strided = torch.full((20,), math.nan)[::2]
    assert torch.equal(activations.tanh(x, out=strided), out)
    array = np.empty(10, dtype=np.float32)
    assert activations.tanh(x.numpy(), out=array) is array
    assert np.array_equal(array, out.numpy())
    assert activations.tanh(x, out=x) is x
    assert torch.equal(x, out)


def test_out_of_losses() -> None:
    x, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    want = losses.cross_entropy_gradient(x, target)
    total = losses.cross_entropy(x, target, out=torch.empty(()))
    assert total == losses.cross_entropy(x, target)
    assert losses.cross_entropy_gradient(x, target, out=x) is x
    assert torch.equal(x, want)


def read_only() -> np.ndarray[Any, Any]:
    array = np.zeros(10)
    array.flags.writeable = False
    return array


BUFFER = torch.zeros(20, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "out", "error", "message"),
    [
        (BUFFER[:10], torch.zeros(9).double(), ValueError, r"out: got shape \(9,\), wants .*10"),
        (BUFFER[:10], torch.zeros(10), TypeError, r"out: got torch.float32, wants torch.float64"),
        (BUFFER[:10], BUFFER[5:15], ValueError, r"out: got memory that partly overlaps x"),
        (BUFFER[:10], BUFFER[:1].expand(10), ValueError, r"out: got a tensor that overlaps itself"),
        (BUFFER[:10], np.zeros(10), TypeError, r"out: got a float64 array .* wants a Tensor"),
        (
            BUFFER[:10],
            BUFFER[:10].to("meta"),
            ValueError,
            r"out: got device meta, wants device cpu",
        ),
        (np.zeros(10), read_only(), ValueError, r"out: got a read-only array, wants a writable"),
        (np.zeros(10), np.zeros(10)[::-1], ValueError, r"out: got an array of odd strides"),
    ],
)
def test_out_is_rejected(x: Any, out: Any, error: type[Exception], message: str) -> None:
    before = BUFFER.clone()
    with pytest.raises(error, match=message):
        activations.sigmoid(x, out=out)
    assert torch.equal(BUFFER, before)


# --- errors --------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
X = torch.zeros(3)
LOGITS, INDEX = torch.zeros(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: activations.relu("text"), TypeError, "x: got str 'text', wants a tensor"),
        (lambda: activations.relu([1.0]), TypeError, "x: got list"),
        (lambda: activations.relu(X.to(torch.complex64)), TypeError, "x: got a complex64 tensor"),
        (lambda: activations.relu(X.to(torch.float8_e4m3fn)), TypeError, "x: got a float8"),
        (lambda: activations.relu(X.to_sparse()), TypeError, "x: got a torch.sparse_coo tensor"),
        (lambda: activations.relu(np.array(["a"])), TypeError, "x: got a <U1 array"),
        (lambda: activations.relu(np.zeros(3, complex)), TypeError, "x: got a complex128 array"),
        (lambda: activations.relu(np.zeros(3, np.longdouble)), TypeError, "wants float64"),
        (lambda: activations.relu(X.clone().requires_grad_()), ValueError, r"wants x.detach\(\)"),
        (lambda: activations.elu(X, alpha=-1.0), ValueError, "alpha: got -1.0, wants .* >= 0"),
        (lambda: activations.elu(X, alpha=math.nan), ValueError, "alpha: got nan"),
        (lambda: activations.elu(X, alpha="1"), TypeError, "alpha: got str '1'"),
        (lambda: activations.softplus(X, beta=0.0), ValueError, "beta: got 0.0, wants .* > 0"),
        (
            lambda: activations.gelu(X, approximate="erf"),
            ValueError,
            "approximate: got 'erf', .*tanh",
        ),
        (lambda: activations.gelu(X, aproximate="tanh"), TypeError, "aproximate"),
        (lambda: activations.softmax(X, dim=1), IndexError, r"dim: got 1, wants -1 to 0"),
        (lambda: activations.softmax(X, dim=0.0), TypeError, "dim: got float 0.0, wants an int"),
        (lambda: activations.softmax(X[0]), ValueError, r"x: got shape \(\)"),
        (lambda: activations.softmax_vjp(LOGITS, X), ValueError, r"grad_output: got shape \(3,\)"),
        (lambda: losses.mse_loss(X, X[:, None]), ValueError, r"target: got shape \(3, 1\), wants"),
        (lambda: losses.mse_loss(X, X, "avg"), ValueError, "reduction: got 'avg', wants one of"),
        (lambda: losses.mse_loss(X, X.numpy()), TypeError, "target: got a float32 array"),
        (lambda: losses.mse_loss(X, X.to("meta")), ValueError, "target: got device meta"),
        (lambda: losses.mse_loss(X, X, weight=-X - 1), ValueError, "weight: got a value of -1.0"),
        (lambda: losses.mse_loss(X, X, weight=LOGITS), ValueError, "weight: .* broadcasts to"),
        (lambda: losses.cross_entropy(LOGITS, INDEX + 2), IndexError, r"target: .* 3, .*\[0, 3\)"),
        (lambda: losses.cross_entropy(LOGITS, -INDEX), IndexError, "target: got a value of -1"),
        (lambda: losses.cross_entropy(LOGITS, INDEX[:1]), ValueError, "target: got shape"),
        (lambda: losses.cross_entropy(LOGITS, LOGITS + 2), ValueError, "target: .* value of 2.0"),
        (
            lambda: losses.cross_entropy(LOGITS, INDEX, label_smoothing=1.5),
            ValueError,
            "label_smoothing: got 1.5",
        ),
        (
            lambda: losses.cross_entropy(LOGITS, INDEX, weight=X[:2]),
            ValueError,
            r"weight: got shape \(2,\), wants shape \(3,\)",
        ),
        (
            lambda: losses.cross_entropy_gradient(LOGITS, INDEX, wrt="target"),
            ValueError,
            "wrt: got 'target', wants an argument that is not a class index",
        ),
        (
            lambda: losses.cross_entropy_gradient(LOGITS, INDEX, grad_output=X[:2]),
            ValueError,
            r"grad_output: got shape \(2,\), wants shape \(\)",
        ),
        (lambda: losses.nll_loss(LOGITS, INDEX.float()), TypeError, "target: .* are integers"),
        (lambda: losses.binary_cross_entropy(X + 2, X), ValueError, "input: got a value of 2.0"),
        (lambda: losses.binary_cross_entropy(X, X - 1), ValueError, "target: got a value of -1.0"),
        (
            lambda: losses.binary_cross_entropy_with_logits(X, X + 2),
            ValueError,
            "target: got a value of 2.0",
        ),
        (lambda: losses.soft_margin_loss(X, X), ValueError, "target: .* 0.0, wants .* -1 or 1"),
        (
            lambda: losses.soft_margin_loss_gradient(X, X + 1, wrt="target"),
            ValueError,
            "wrt: got 'target', wants one of 'input'",
        ),
        (lambda: losses.hinge_embedding_loss(X, X + 1, INF), ValueError, "margin: got inf, wants"),
        (
            lambda: losses.poisson_nll_loss(X, X, log_input=False),
            ValueError,
            "input: got a value of 0.0, wants numbers > 0",
        ),
        (lambda: losses.poisson_nll_loss(X, X - 1), ValueError, "target: .* -1.0, wants counts >="),
        (lambda: losses.entropy(X + 2), ValueError, "p: got a value of 2.0"),
        (lambda: losses.entropy(X, base=1.0), ValueError, "base: got 1.0, wants a base > 1"),
        (lambda: losses.kl_div(X, X - 1), ValueError, "target: got a value of -1.0"),
        (lambda: losses.kl_div(X, X[:, None]), ValueError, "nothing is broadcast"),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: activations.softmax(None), TypeError, "x: got None, wants a tensor"),
        (lambda: losses.cross_entropy(LOGITS, None), TypeError, "target: got None"),
        (lambda: losses.mse_loss(None, X), TypeError, "input: got None"),
        (lambda: activations.softmax_vjp(LOGITS, None), TypeError, "grad_output: got None"),
        (lambda: activations.relu(10**400), ValueError, "x: got an int beyond every float"),
        (
            lambda: activations.relu(np.ma.array([1.0], mask=[1])),
            TypeError,
            "x: got a masked array",
        ),
        (lambda: activations.relu(X, out=X.clone().requires_grad_()), ValueError, "requires grad"),
        (
            lambda: activations.softmax(LOGITS[:, :0]),
            ValueError,
            r"x: got shape \(2, 0\), wants an",
        ),
        (lambda: losses.cross_entropy(LOGITS[:, :0], INDEX), ValueError, "input: got shape"),
        (lambda: losses.nll_loss(LOGITS, INDEX, ignore_index=None), TypeError, "ignore_index: got"),
        (lambda: losses.nll_loss(LOGITS, INDEX, ignore_index=1.5), TypeError, "wants an int"),
        (lambda: losses.kl_div(X, X, log_target="no"), TypeError, "log_target: got str 'no'"),
        (lambda: losses.mse_loss(*[X.numpy()] * 3), ValueError, "reduction: got a float32 array"),
        (lambda: losses.kl_div(X[0], X[0], reduction="batchmean"), ValueError, "batchmean"),
        (
            lambda: losses.cross_entropy_hvp(LOGITS, INDEX, LOGITS, along="target"),
            ValueError,
            "along: got 'target', wants an argument that is not a class index",
        ),
        (
            lambda: torch.func.jvp(activations.sigmoid, (X,), (X,)),
            ValueError,
            "x: got a tensor that torch differentiates, wants .*as_autograd",
        ),
    ],
)
def test_more_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_small_integers_as_class_indices(kind: torch.dtype) -> None:
    """An ignore_index of -100 is no class of a byte, nor are 256 classes none."""
    x = torch.arange(256.0).repeat(2, 1)
    target = torch.tensor([0, 100]).to(kind)
    assert losses.nll_loss(x, target, reduction="none").tolist() == [-0.0, -100.0]
    wide = torch.tensor([0, 156])
    if kind is torch.uint8:
        assert losses.nll_loss(x, wide.to(kind), reduction="none").tolist() == [-0.0, -156.0]


def test_integers_beside_floats() -> None:
    exact = torch.tensor([2.0**24 + 1], dtype=torch.float64)
    assert losses.mse_loss(exact, torch.tensor([2**24 + 1])) == 0
    low = losses.mse_loss(torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.int64))
    assert low.dtype == torch.bfloat16


def test_structured_and_foreign_byte_orders() -> None:
    field = np.zeros(3, dtype=[("a", "f4"), ("b", "f8")])["b"]
    assert np.array_equal(activations.relu(field), np.zeros(3))
    foreign = np.array([1.0, -1.0], dtype=">f8")
    with pytest.raises(ValueError, match="out: got an array of odd strides or byte order"):
        activations.relu(foreign, out=foreign)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (lambda: losses.kl_div(torch.tensor([NAN]), torch.tensor([0.0])), NAN),
        (lambda: losses.kl_divergence(torch.tensor([0.0, 1.0]), torch.tensor([NAN, 0.5])), NAN),
        (
            lambda: losses.binary_cross_entropy_with_logits(
                torch.tensor([INF, -INF]), torch.tensor([1.0, 0.0])
            ),
            0.0,
        ),
        (
            lambda: losses.binary_cross_entropy(
                torch.tensor([0.0, 0.5]), torch.ones(2), torch.tensor([0.0, 1.0]), "sum"
            ),
            math.log(2),
        ),
        (lambda: torch.tensor(activations.leaky_relu(-INF, 0.0)), 0.0),
        (lambda: torch.tensor(activations.leaky_relu(-INF, -1.0)), INF),
        (lambda: losses.soft_margin_loss(X - 100, X + 1), 100.0),
        (lambda: losses.soft_margin_loss(X, X * NAN), NAN),
        (lambda: losses.poisson_nll_loss(torch.tensor([-INF]), X[:1]), 0.0),
        (lambda: losses.poisson_nll_loss(X, X + 2, full=True), 1 + math.log(2)),
        (lambda: losses.poisson_nll_loss(X, X + 0.5, full=True), 1 + math.lgamma(1.5)),
        (lambda: losses.hinge_embedding_loss_gradient(X[:1] + 1, X[:1] - 1), -1.0),
        (lambda: losses.mse_loss_hessian_diagonal(X[:1] * NAN, X[:1]), NAN),
        (
            lambda: losses.cross_entropy(
                torch.tensor([[NAN, 1.0], [0.0, 0.0]]), torch.tensor([-100, 1])
            ),
            math.log(2),
        ),
        (
            lambda: losses.cross_entropy_gradient(
                torch.tensor([[INF, 1.0], [0.0, 0.0]]), torch.tensor([-100, 1])
            ).sum(),
            0.0,
        ),
    ],
)
def test_special_values_of_losses(value: Callable[[], torch.Tensor], want: float) -> None:
    assert float(value()) == pytest.approx(want, rel=1e-7, nan_ok=True)


def test_nothing_is_written_before_an_error() -> None:
    out = torch.full((2, 3), 7.0)
    with pytest.raises(IndexError):
        losses.cross_entropy_gradient(LOGITS, INDEX + 2, out=out)
    assert torch.equal(out, torch.full((2, 3), 7.0))


def test_inputs_are_not_changed() -> None:
    x, target = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    kept = x.clone(), target.clone()
    losses.cross_entropy(x, target, label_smoothing=0.1)
    losses.cross_entropy_gradient(x, target)
    activations.gelu(x)
    assert torch.equal(x, kept[0])
    assert torch.equal(target, kept[1])
