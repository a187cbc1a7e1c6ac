"""Fused kernels: what they give, where they write it, and how often they are compiled.

What is compiled is the native (float32) evaluation of the declared formulas. To compile takes
seconds, so that every formula is judged uncompiled; a few kernels of each kind, shared by the
tests of this module, are compiled and held to the uncompiled evaluation.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor
from torch._inductor.codegen import cpp
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch._inductor.graph import GraphLowering
from torch.autograd import forward_ad
from torch.profiler import ProfilerActivity, profile

import activations
import losses
from gradref import arrays
from gradref.contenders.kernel import Kernel, index_or_probability
from gradref.contenders.sandbox import InProcess
from gradref.declare.operation import Operation
from gradref.declare.registry import operations
from gradref.environment import has_compiler
from gradref.fusion import compiler
from gradref.fusion.compiler import Compiled, code_generator
from gradref.fusion.fused import Fused, fuse
from gradref.fusion.replay import CallForm
from gradref.fusion.settings import SMALL
from gradref.runs.check import cases, check
from gradref.runs.options import Options

pytestmark = [
    pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler"),
    pytest.mark.xdist_group("fused"),  # one process, so that each kernel is compiled once
]


@pytest.fixture(scope="module")
def sigmoid() -> Fused:
    return fuse(activations.sigmoid)


@pytest.fixture(scope="module")
def silu() -> Fused:
    return fuse(activations.silu, "value", "derivative", "second_derivative")


@pytest.fixture(scope="module")
def softmax() -> Fused:
    return fuse(activations.softmax)


@pytest.fixture(scope="module")
def swiglu() -> Fused:
    return fuse(activations.swiglu)


@pytest.fixture(scope="module")
def mse_loss() -> Fused:
    return fuse(losses.mse_loss)


@pytest.fixture(scope="module")
def cross_entropy() -> Fused:
    return fuse(losses.cross_entropy)


def uncompiled(function: Callable[..., Any], *results: str, **options: bool) -> Callable[..., Any]:
    """A fused kernel whose formulas are evaluated as they are compiled: in float32, by torch."""
    kernel = fuse(function, *results, **options)

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return kernel(*args, **kwargs)

    return call


def logits(rows: int = 6, classes: int = 37) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    target = torch.randint(0, classes, (rows,), generator=generator)
    return torch.randn(rows, classes, generator=generator) * 3, target


LOSS_WITH_ALL = {
    "weight": torch.linspace(0.5, 1.5, 37),
    "ignore_index": int(logits()[1][0]),
    "label_smoothing": 0.1,
    "reduction": "none",
    "grad_output": torch.arange(6.0),
}
"""Arguments of a cross entropy, so that one kernel has them all."""


# --- what they give ------------------------------------------------------------------------------


def entry(record: Operation) -> dict[str, Any]:
    """Every result of an operation, with respect to every argument, as an entry of KERNELS."""
    function = record.function
    both = uncompiled(function)
    if record.kind == "elementwise":
        bend = {"second_derivative"} & set(record.derivatives)
        return {"value_and_gradient": both, **{name: uncompiled(function, name) for name in bend}}
    if record.kind == "rowwise":
        value, vjp, jvp = (uncompiled(function, result) for result in ("value", "vjp", "jvp"))

        def backward_of_rows(grad_output: Tensor, *arrays: Tensor, **more: Any) -> list[Tensor]:
            several = len(record.arguments) > 1
            asked = [{"wrt": name} if several else {} for name in record.arguments]
            return [vjp(*arrays, **more, **which, grad_output=grad_output) for which in asked]

        return {
            "forward": value,
            "backward": backward_of_rows,
            "jvp": lambda *arrays, **more: jvp(*arrays[:-1], tangent=arrays[-1], **more),
        }
    gradient = uncompiled(function, "gradient")

    def backward(grad_output: Tensor, *arrays: Tensor, **more: Any) -> list[Tensor | None]:
        return [
            gradient(*arrays, **more, grad_output=grad_output, wrt=name)
            if array.is_floating_point() and name in record.differentiable
            else None
            for name, array in zip(record.arguments, arrays, strict=True)
        ]

    def value_and_gradient(*arrays: Tensor, **more: Any) -> Any:
        return both(*arrays, **more, wrt=record.arguments[0])

    return {
        "value_and_gradient": value_and_gradient,
        "backward": backward,
        **({choice: "either"} if (choice := index_or_probability(record)) else {}),
    }


@pytest.mark.parametrize("record", operations("activations", "losses"), ids=lambda r: r.name)
def test_our_own_judge_passes_them(record: Operation) -> None:
    """In float32 arithmetic, within 4 ulp, or what a stable algorithm for rows keeps."""
    kernel = Kernel.of(record.name, entry(record))
    for _, case in cases([kernel], ["float32", "bfloat16"], "cpu"):
        verdicts = list(check(kernel, case, InProcess([kernel]), Options("link")))
        assert any(verdict.status == "pass" for verdict in verdicts)
        assert [(v.name, v.words) for v in verdicts if not v.passed] == []


def test_what_is_compiled_is_what_is_judged(
    sigmoid: Fused, silu: Fused, softmax: Fused, mse_loss: Fused, cross_entropy: Fused
) -> None:
    """To a few ulp: a compiler contracts a·b + c, and adds in another order."""
    x, (rows, target) = torch.linspace(-12, 12, 1001), logits()
    y, g = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    for kernel, arrays_of, more in (
        (sigmoid, (x,), {}),
        (silu, (x,), {}),
        (softmax, (y,), {"dim": 1, "grad_output": g}),
        (mse_loss, (y, g), {}),
        (cross_entropy, (rows, target), {}),
        (cross_entropy, (rows, target), LOSS_WITH_ALL),
    ):
        found = kernel(*arrays_of, **more)
        wanted = uncompiled(kernel.record.function, *kernel.results)(*arrays_of, **more)
        torch.testing.assert_close(found, wanted, rtol=2**-21, atol=2**-23)


def test_precise_is_the_plain_call_to_the_bit(silu: Fused) -> None:
    x = torch.linspace(-12, 12, 1001)
    precise = fuse(activations.silu, *silu.results, precise=True)
    value, derivative, bend = precise(x)
    assert torch.equal(value, activations.silu(x))
    assert torch.equal(derivative, activations.silu_derivative(x))
    assert torch.equal(bend, activations.silu_second_derivative(x))
    assert not torch.equal(silu(x)[0], value)


def test_a_second_derivative_keeps_its_digits_where_it_cancels(silu: Fused) -> None:
    x = torch.linspace(2.39, 2.41, 2001)  # there silu'' crosses 0
    expected = activations.silu_second_derivative(x)
    torch.testing.assert_close(silu(x)[2], expected, rtol=2**-23, atol=0)


def test_float64_stays_float64(sigmoid: Fused) -> None:
    x = torch.linspace(-40, 40, 99, dtype=torch.float64)
    value, derivative = sigmoid(x)
    torch.testing.assert_close(value, activations.sigmoid(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(derivative, activations.sigmoid_derivative(x), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_rows_have_a_vector_jacobian_product(softmax: Fused, dim: int) -> None:
    x, g = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    kernel = softmax if dim == 1 else uncompiled(activations.softmax)
    value, gradient = kernel(x, dim=dim, grad_output=g)
    torch.testing.assert_close(value, activations.softmax(x, dim))
    torch.testing.assert_close(gradient, activations.softmax_vjp(x, g, dim))


def test_parameters_and_reductions_are_those_of_the_function(cross_entropy: Fused) -> None:
    x, target = logits()
    plain = uncompiled(losses.cross_entropy)
    for kernel, more in (
        (cross_entropy, {}),
        (cross_entropy, LOSS_WITH_ALL),
        (plain, {"reduction": "sum", "grad_output": torch.tensor(0.5)}),
        (plain, {"reduction": "none", "grad_output": torch.arange(6.0)}),
        (plain, {"label_smoothing": 0.1, "ignore_index": 3, "weight": torch.rand(37)}),
    ):
        backward = {n: v for n, v in more.items() if n == "grad_output"}
        forward = {n: v for n, v in more.items() if n != "grad_output"}
        value, gradient = kernel(x, target, **more)
        torch.testing.assert_close(value, losses.cross_entropy(x, target, **forward))
        expected = losses.cross_entropy_gradient(x, target, **forward, **backward)
        torch.testing.assert_close(gradient, expected)


# --- where they write it -------------------------------------------------------------------------


def test_results_are_written_where_one_says(sigmoid: Fused, cross_entropy: Fused) -> None:
    x = torch.randn(999)
    buffers = torch.empty(999), torch.empty(999)
    results = sigmoid(x, out=buffers)
    assert results[0] is buffers[0]
    assert results[1] is buffers[1]
    torch.testing.assert_close(buffers[1], activations.sigmoid_derivative(x))
    rows, target = logits()
    expected = losses.cross_entropy(rows, target), losses.cross_entropy_gradient(rows, target)
    before = rows.clone()
    loss, gradient = cross_entropy(rows, target)
    assert torch.equal(rows, before)
    loss, gradient = cross_entropy(rows, target, out=rows)
    assert gradient is rows
    torch.testing.assert_close((loss, gradient), expected)


def test_a_function_of_two_arrays_has_buffers_for_its_value_and_a_gradient() -> None:
    x, y = torch.rand(9), torch.rand(9)
    out = torch.empty(9), torch.empty(9)
    results = uncompiled(activations.xlogy)(x, y, wrt="other", out=out)
    expected = activations.xlogy(x, y), activations.xlogy_gradient(x, y, wrt="other")
    assert results[0] is out[0]
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    ("name", "first"),
    [("sigmoid", False), ("softmax", True), ("softmax", False), ("mse_loss", False)],
)
def test_an_input_is_overwritten_after_everything_is_read(
    name: str, first: bool, request: pytest.FixtureRequest
) -> None:
    """Whichever result goes into it, and whichever input it is."""
    kernel = request.getfixturevalue(name)
    function, kind = kernel.record.function, kernel.record.kind
    x, other = torch.randn(4, 50), torch.randn(4, 50)
    arguments, more = (x,), {"grad_output": other} if kind == "rowwise" else {}
    if kind == "loss":
        arguments = (x, other)
    expected = uncompiled(function)(*arguments, **more)
    place = x if first or kind == "elementwise" else other
    out = place if kind == "loss" else (place, torch.empty_like(x))
    if kind != "loss" and not first:
        out = out[::-1]
    torch.testing.assert_close(kernel(*arguments, **more, out=out), expected)


def test_a_gated_unit_has_buffers_for_half_a_row_and_for_a_row(swiglu: Fused) -> None:
    for _ in range(3):  # compiled, called, replayed
        x, g = torch.randn(2, 3, 14), torch.randn(2, 3, 7)
        expected = activations.swiglu(x), activations.swiglu_vjp(x, g)
        for out in ((torch.empty_like(g), torch.empty_like(x)), (g, x)):
            results = swiglu(x, grad_output=g, out=out)
            assert all(result is buffer for result, buffer in zip(results, out, strict=True))
            torch.testing.assert_close(results, expected)
    assert known(swiglu, x, grad_output=g, out=(torch.empty_like(g), torch.empty_like(x)))
    assert known(swiglu, x, grad_output=g, out=(g, x))


def test_a_gated_unit_of_other_layouts_has_buffers_too() -> None:
    """Along the first dimension, or in rows with gaps, it is not compiled for parts of rows."""
    swiglu, x, g = uncompiled(activations.swiglu), torch.randn(8, 5), torch.randn(4, 5)
    for dim, rows, of_each in ((0, x, g), (1, x.T, g.T)):
        out = torch.empty_like(of_each), torch.empty_like(rows)
        results = swiglu(rows, dim, grad_output=of_each, out=out)
        expected = activations.swiglu(rows, dim), activations.swiglu_vjp(rows, of_each, dim)
        torch.testing.assert_close(results, expected)


def test_other_threads_go_on_in_float64() -> None:
    seen = []
    with arrays.native():
        thread = threading.Thread(target=lambda: seen.append(arrays.evaluated_in(torch.float32)))
        thread.start()
        thread.join()
        assert arrays.evaluated_in(torch.float32) is torch.float32
        assert arrays.evaluated_in(torch.float64) is torch.float64
    assert seen == [torch.float64]


def test_numpy_arrays_are_read_and_written_in_place(sigmoid: Fused, cross_entropy: Fused) -> None:
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    out = np.empty_like(x), np.empty_like(x)
    assert sigmoid(x, out=out)[0] is out[0]
    np.testing.assert_allclose(out[1], activations.sigmoid_derivative(x), rtol=1e-6)
    assert isinstance(sigmoid(x)[0], np.ndarray)
    rows, target = (t.numpy() for t in logits())
    expected = losses.cross_entropy_gradient(rows, target)
    value = losses.cross_entropy(rows, target)
    loss, gradient = cross_entropy(rows, target, out=rows)
    assert gradient is rows
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_nothing_is_allocated(sigmoid: Fused, cross_entropy: Fused, swiglu: Fused) -> None:
    """Beyond a few numbers for each row."""
    x, out = torch.randn(1 << 20), (torch.empty(1 << 20), torch.empty(1 << 20))
    rows, target = logits(64, 4096)
    gradient = torch.empty_like(rows)
    x16, g16 = rows.bfloat16(), torch.randn(64, 2048).bfloat16()
    buffers = torch.empty_like(g16), torch.empty_like(x16)
    for call in (
        lambda: sigmoid(x, out=out),
        lambda: cross_entropy(rows, target, out=gradient),
        lambda: swiglu(x16, grad_output=g16, out=buffers),
    ):
        call()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            call()
        largest = max((e.cpu_memory_usage for e in profiled.events()), default=0)
        assert largest < 1 << 14


# --- how often they are compiled -----------------------------------------------------------------


def test_another_length_is_not_compiled_again(
    sigmoid: Fused, mse_loss: Fused, cross_entropy: Fused
) -> None:
    """But for the first small and the first large one: a small one has no use for two threads."""

    def into_place(rows: int, classes: int) -> None:
        x, target = logits(rows, classes)
        cross_entropy(x, target, out=torch.empty_like(x))

    for size in (100, SMALL + 1):
        sigmoid(torch.randn(size), out=tuple(torch.empty(2, size)))
    for rows in (4, 400):
        into_place(rows, 100)
    mse_loss(*torch.randn(2, 1 << 20))
    before, seconds = Compiled.compilations, sigmoid.compile_seconds
    assert seconds > 0
    for size in (2, 3, 64, 1000, 65_537):
        out = tuple(torch.empty(2, size))
        assert sigmoid(torch.full((size,), 0.5), out=out)[1] is out[1]
        torch.testing.assert_close(out[1], activations.sigmoid_derivative(torch.full((size,), 0.5)))
    for rows, classes in ((2, 37), (7, 50), (33, 1000)):
        into_place(rows, classes)
    for size in (SMALL + 1, 50_000, 100_003):
        mse_loss(*torch.randn(2, size))
    assert Compiled.compilations == before
    assert sigmoid.compile_seconds == seconds


@pytest.mark.skipif(not pick_vec_isa(), reason="no vector instructions")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_loops_take_vectors_and_keep_one_row(
    kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exponentials, for the loop that divides them; results go into their buffers at once."""
    if code_generator() is None:
        pytest.skip("no code generator for this torch")
    x, codes = torch.randn(4, 5000).to(kind), []
    kernel, out = fuse(activations.softmax), (torch.empty_like(x), torch.empty_like(x))
    monkeypatch.setattr(GraphLowering, "save_output_code", codes.append)
    with inductor.patch(fx_graph_cache=False):  # or no code would be written
        kernel(x, grad_output=x, out=out)
    (code,) = codes
    assert "at::vec::cast<float, int32_t>" in code
    assert code.count("std::make_unique") == 1
    assert code.count("__builtin_prefetch") == 1  # of x, which is grad_output too
    assert "if (auto" in code  # what is the same for a row, before the loop
    assert not any(slow in code for slow in ("bit_cast", "tmpbuf", "cascade_sum"))


@pytest.mark.parametrize("length", [64, 1000])
@pytest.mark.parametrize("name", ["rms_norm", "sparsemax"])
def test_rows_of_vectors_that_are_gathered_or_sorted(name: str, length: int) -> None:
    """An index that is loaded itself is not known a row before; sort has several results."""
    record = operations(name)[0]
    x, g, weight = torch.randn(33, length), torch.randn(33, length), torch.rand(length)
    given = (x, weight)[: len(record.arguments)]
    value, vjp = fuse(record.function)(*given, grad_output=g)
    torch.testing.assert_close(value, record.function(*given), rtol=2**-20, atol=2**-22)
    expected = record.derivatives["vjp"](*given, grad_output=g)
    torch.testing.assert_close(vjp, expected, rtol=2**-20, atol=2**-20)


def test_private_classes_are_those_the_code_generator_extends() -> None:
    """The canary: each name of inductor that the generator overrides or calls, by its signature."""
    if code_generator() is None:
        pytest.skip("no code generator for this torch")
    vec = cpp.CppVecKernel
    leans_on = {
        (vec, "load"): ["self", "name", "index"],
        (vec, "reduction_combine_vec"): ["self", "reduction_type", "var", "next_value"],
        (vec, "need_use_acc_helper"): ["self", "reduction_type", "dtype", "use_scalar"],
        (vec, "broadcast"): ["self", "scalar_var"],
        **{(vec, f"_get_{name}"): ["self", "dtype"] for name in ("vec_type", "mask_type")},
        (vec, "_get_num_vectors"): ["self", "dtype"],
        (cpp.CppKernelProxy, "codegen_nodes"): ["self", "nodes"],
    }
    for (owner, name), parameters in leans_on.items():
        found = list(inspect.signature(getattr(owner, name)).parameters)
        assert found[: len(parameters)] == parameters, f"{owner.__name__}.{name}"
    attributes = {
        cpp.CppVecOverrides: ("to_dtype_bitcast", "maximum", "minimum", "isnan", "isinf"),
        cpp.CppKernelProxy: ("kernel_cls", "vec_kernel_cls", "tile2d_kernel_cls"),
        cpp.CppScheduling: ("kernel_proxy_cls",),
        inductor: ("_pre_fusion_custom_pass", "_post_fusion_custom_pass"),
    }
    for owner, names in attributes.items():
        for name in names:
            assert hasattr(owner, name), name


@pytest.mark.parametrize("missing", ["a private class", "a version in the range"])
def test_without_a_code_generator_stock_inductor_writes_the_loops(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "a private class":
        monkeypatch.delattr(cpp, "CppTile2DKernel")
        monkeypatch.delitem(sys.modules, compiler.CODEGEN, raising=False)
    else:
        monkeypatch.setattr(compiler, "CODEGEN_VERSIONS", ((1, 0), (1, 13)))
    x = torch.linspace(-2, 2, 9)
    monkeypatch.setattr(compiler, "code_generator", functools.cache(code_generator.__wrapped__))
    with pytest.warns(UserWarning, match=r"gradref.fuse: no C\+\+ code generator") as warned:
        value, derivative = (fuse(activations.relu, name)(x) for name in ("value", "derivative"))
    assert len(warned) == 1
    assert torch.equal(value, x.relu())
    assert torch.equal(derivative, (x > 0).float())


def test_without_a_compiler_it_is_the_plain_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    x, out = torch.linspace(-9, 9, 33), torch.empty(33)
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler"):
        result = fuse(activations.silu, "derivative")(x, out=out)
    assert result is out
    assert torch.equal(out, activations.silu_derivative(x))


# --- a call like one before it -------------------------------------------------------------------


def known(kernel: Fused, *args: Tensor, **kwargs: Any) -> bool:
    """Whether a call would run without being looked at."""
    form = CallForm.of(args, kwargs, kwargs.pop("out", None))
    return form is not None and form.key in kernel._replays


def test_a_call_of_a_known_form_is_of_its_own_arrays(mse_loss: Fused, cross_entropy: Fused) -> None:
    for rows, classes in ((6, 37), (6, 37), (6, 37), (7, 37), (6, 38), (6, 37)):
        x, target = torch.randn(rows, classes), torch.randint(0, classes, (rows,))
        place = torch.empty_like(x)
        for out in (None, place, x.clone()):
            first = out if out is not None and out is not place else x
            value, gradient = cross_entropy(first, target, out=out)
            assert out is None or gradient is out
            torch.testing.assert_close(value, losses.cross_entropy(x, target))
            torch.testing.assert_close(gradient, losses.cross_entropy_gradient(x, target))
    other, weight = torch.randn_like(x), torch.rand_like(x)
    seconds = [(second, {}) for second in (x, x, x, other, other, x)]
    for second, more in (*seconds, *[(other, {"weight": weight}), (other, {})] * 3):
        value, gradient = mse_loss(x, second, **more)
        torch.testing.assert_close(value, losses.mse_loss(x, second, **more))
        torch.testing.assert_close(gradient, losses.mse_loss_gradient(x, second, **more))
    assert known(mse_loss, x, x)
    assert known(mse_loss, x, other)
    assert known(mse_loss, x, other, weight=weight)
    assert known(cross_entropy, x, target)
    assert known(cross_entropy, x, target, out=place)
    assert known(cross_entropy, x, target, out=x)
    assert not known(cross_entropy, x, target, reduction="sum")


def test_what_is_refused_is_refused_of_a_known_form_too(sigmoid: Fused) -> None:
    x = torch.randn(64)
    out = torch.empty(64), torch.empty(64)
    for _ in range(3):
        sigmoid(x, out=out)
    assert known(sigmoid, x, out=out)
    memory = torch.empty(96)
    with pytest.raises(ValueError, match="partly overlaps x"):
        sigmoid(memory[:64], out=(memory[32:], out[1]))
    with pytest.raises(ValueError, match="buffers that share memory"):
        sigmoid(x, out=(out[0], out[0]))
    with pytest.raises(ValueError, match="torch differentiates"):
        sigmoid(x.requires_grad_(), out=out)
    with forward_ad.dual_level(), pytest.raises(ValueError, match="torch differentiates"):
        sigmoid(forward_ad.make_dual(x.detach(), x.detach()), out=out)


def test_a_known_form_keeps_no_array(sigmoid: Fused) -> None:
    x = torch.randn(64)
    for _ in range(3):
        results = sigmoid(x)
    held = [weakref.ref(t) for t in (x, *results)]
    assert known(sigmoid, x)
    del x, results
    assert [ref() for ref in held] == [None] * 3


# --- what they refuse ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f, x: f(1.0), TypeError, "x: got float 1.0, wants a tensor or an array"),
        (lambda f, x: f(x, out=x), ValueError, "out: got 1 buffers, wants one for each of value"),
        (lambda f, x: f(x, out=(x, x)), ValueError, "out: got buffers that share memory"),
        (lambda f, x: f(x[1:], out=(x[1:], x[:-1])), ValueError, "out: got memory that partly"),
        (lambda f, x: f(+x, out=(x, x[:])), ValueError, "out: got buffers that share memory"),
        (lambda f, x: f(x, out=(x, x[:2].clone())), ValueError, r"out: got shape \(2,\)"),
        (lambda f, x: f(x, beta=1), TypeError, "beta"),
        (lambda f, x: f(x.requires_grad_()), ValueError, "a tensor that torch differentiates"),
        (lambda f, x: fuse(activations.sigmoid, "gradient"), ValueError, "results: got 'gradient'"),
        (lambda f, x: fuse(activations.sigmoid_derivative), ValueError, "wants sigmoid itself"),
        (lambda f, x: fuse(losses.cross_entropy)(x, x.int()), ValueError, "shape"),
        (lambda f, x: fuse(activations.glu)(x), ValueError, "a multiple of 2 along dimension 0"),
        (
            lambda f, x: fuse(activations.glu, "vjp")(x[0], grad_output=x[0], out=x[0].clone()),
            ValueError,
            r"x: got shape \(\), wants at least one dimension",
        ),
        (
            lambda f, x: fuse(activations.glu, "value")(x[:2], out=x[:2].clone()),
            ValueError,
            r"out: got shape \(2,\), wants shape \(1,\)",
        ),
        (
            lambda f, x: fuse(activations.glu, "vjp")(x[:2], grad_output=x[:2], out=x[:2].clone()),
            ValueError,
            r"grad_output: got shape \(2,\)",
        ),
    ],
)
def test_wrong_calls_say_what_is_wanted(
    sigmoid: Fused, call: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(sigmoid, torch.randn(3))


def test_a_kernel_says_what_it_is(sigmoid: Fused) -> None:
    assert repr(sigmoid) == "<fused sigmoid: value, derivative>"
    assert repr(fuse(losses.mse_loss, "gradient", precise=True)) == (
        "<fused mse_loss: gradient, precise>"
    )
