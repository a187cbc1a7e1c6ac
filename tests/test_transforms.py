"""Transforms by look-up, and the declared derivatives behind torch.autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import activations
import gradref
import losses
from gradref.declare.operation import Operation
from gradref.declare.registry import operations

F64 = torch.float64
RECORDS = [record for record in operations() if record.name != "heaviside"]
CASES = [
    pytest.param(record, dict(case), id=f"{record.name}-{dict(case)}")
    for record in RECORDS
    for case in record.cases
]
REDUCTIONS = ("none", "mean", "sum")


def leaves(record: Operation, case: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Regular points of the domain: away from kinks and from the edge of a probability."""
    generator = torch.Generator().manual_seed(1)
    shape = (3, 3 * record.parts) if len(record.arguments) < 3 else (2, 3)

    def probabilities() -> Tensor:
        return torch.rand(shape, generator=generator, dtype=F64) * 0.8 + 0.1

    def normal() -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=F64)
        return torch.where(x.abs() < 0.05, 0.5, x)

    chosen: list[Tensor] = []
    parameters = dict(case)
    for name in record.arguments:
        domains = record.array_domains({**record.parameters, **case}).get(name)
        domain = case.get(name) or (domains[0] if domains else None)
        if domain is not None and domain.integer:
            lists = torch.tensor([[0, -1, 1], [2, 0, -1], [1, 1, 2]])
            chosen.append(lists[:, 0] if domain.extent == "row" else lists)
        elif domain is not None and domain.extent == "class":
            chosen.append(normal()[0].requires_grad_())
        elif domain is not None and domain.values:
            labels = torch.tensor(domain.values, dtype=F64)[(normal() > 0).long()]
            chosen.append(labels[:, 0] if domain.extent == "row" else labels)
        elif domain is not None and domain.low == 0.0 and domain.high == torch.inf:
            chosen.append(normal().abs().requires_grad_())
        elif domain is not None and domain.draw in ("unit", "distribution"):
            chosen.append(probabilities().requires_grad_())
        else:
            chosen.append(normal().requires_grad_())
        parameters.pop(name, None)
    for name, domain in parameters.items():
        if name in ("weight", "pos_weight"):
            size = shape[1:] if domain.extent == "class" else shape
            parameters[name] = torch.rand(size, generator=generator, dtype=F64) + 0.5
    return tuple(chosen), parameters


@pytest.mark.parametrize(("record", "case"), CASES)
def test_gradcheck(record: Operation, case: dict[str, Any]) -> None:
    """Reverse, forward and batched modes, and both second derivatives, against differences."""
    points, parameters = leaves(record, case)
    function = gradref.as_autograd(record.function)
    for reduction in ("mean", "none") if record.reductions else ("",):
        more = {"reduction": reduction} if reduction else {}

        def call(*values: Tensor, more: dict[str, str] = more) -> Tensor:
            result: Tensor = function(*values, **parameters, **more)
            return result

        assert torch.autograd.gradcheck(
            call, points, check_forward_ad=True, check_batched_grad=True
        )
        assert torch.autograd.gradgradcheck(call, points, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", ["silu", "gelu", "tanh", "softplus"])
def test_taylor_remainders(name: str) -> None:
    """f − its Taylor polynomial shrinks as h², and with the second derivative as h³."""
    (record,) = operations(name)
    f, slope, curvature = record.function, *list(record.derivatives.values())[:2]
    x = torch.linspace(-3.1, 3.3, 41, dtype=F64)
    for order in (1, 2):
        remainders = []
        for h in (1e-2, 1e-3):
            taylor = f(x) + h * slope(x) + (h * h / 2 * curvature(x) if order == 2 else 0)
            remainders.append(float((f(x + h) - taylor).abs().max()))
        rate = np.log10(remainders[0] / remainders[1])
        assert rate == pytest.approx(order + 1, abs=0.15)


def test_look_up() -> None:
    assert gradref.derivative(activations.silu) is activations.silu_derivative
    assert gradref.derivative(activations.silu_derivative) is activations.silu_second_derivative
    assert gradref.second_derivative(activations.silu) is activations.silu_second_derivative
    assert gradref.gradient(losses.mse_loss) is losses.mse_loss_gradient
    assert gradref.jacobian(activations.softmax) is activations.softmax_jacobian
    assert gradref.vjp(activations.softmax) is activations.softmax_vjp
    assert gradref.vjp(losses.mse_loss) is losses.mse_loss_gradient
    assert gradref.hvp(losses.mse_loss) is losses.mse_loss_hvp


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradref.derivative(losses.mse_loss), "mse_loss, which has no derivative, wants"),
        (lambda: gradref.gradient(activations.silu), "silu, which has no gradient"),
        (lambda: gradref.second_derivative(activations.silu_derivative), "wants silu itself"),
        (lambda: gradref.as_autograd(activations.silu_derivative), "wants silu itself"),
        (lambda: gradref.vjp(losses.mse_loss_gradient), "wants mse_loss itself"),
    ],
)
def test_look_up_of_what_is_not_declared(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_products_of_elementwise_functions(dtype: str) -> None:
    kind = getattr(torch, dtype)
    x, g, t = (torch.linspace(-3, 3, 9).to(kind) * k for k in (1, 0.7, 0.3))
    want = (activations.gelu_derivative(x.double(), approximate="tanh") * g.double()).to(kind)
    assert torch.equal(gradref.vjp(activations.gelu)(x, g, approximate="tanh"), want)
    assert torch.equal(gradref.jvp(activations.gelu)(x, g, approximate="tanh"), want)
    want = (activations.silu_second_derivative(x.double()) * g.double() * t.double()).to(kind)
    torch.testing.assert_close(gradref.hvp(activations.silu)(x, g, t), want)
    array = gradref.vjp(activations.silu)(x.double().numpy(), g.double().numpy())
    assert isinstance(array, np.ndarray)


def test_value_and_derivative() -> None:
    x = torch.linspace(-3, 3, 9)
    value, slope = gradref.value_and_derivative(activations.silu)(x)
    assert torch.equal(value, activations.silu(x))
    assert torch.equal(slope, activations.silu_derivative(x))
    value, slope = gradref.value_and_derivative(losses.mse_loss)(x, x + 1, reduction="sum")
    assert value == 9
    assert torch.equal(slope, torch.full((9,), -2.0))
    _, slope = gradref.value_and_derivative(losses.mse_loss)(x, x + 1, wrt="target")
    assert torch.equal(slope, losses.mse_loss_gradient(x, x + 1, wrt="target"))
    with pytest.raises(ValueError, match="out: .* there are two results"):
        gradref.value_and_derivative(activations.silu)(x, out=x)


def test_directional_derivative_of_a_loss() -> None:
    x, target, t = (
        torch.randn(4, 3).double(),
        torch.tensor([0, 2, 1, 1]),
        torch.randn(4, 3).double(),
    )
    for reduction in REDUCTIONS:
        got = gradref.jvp(losses.cross_entropy)(x, target, t, reduction=reduction)
        _, want = torch.func.jvp(
            lambda x, r=reduction: torch.nn.functional.cross_entropy(x, target, reduction=r),
            (x,),
            (t,),
        )
        torch.testing.assert_close(got, want)


def test_transforms_keep_signatures() -> None:
    names = list(inspect.signature(gradref.vjp(activations.gelu)).parameters)
    assert names == ["x", "grad_output", "approximate"]
    assert gradref.vjp(activations.gelu).__name__ == "gelu_vjp"
    names = list(inspect.signature(gradref.jvp(losses.mse_loss)).parameters)
    assert names == ["input", "target", "tangent", "reduction", "weight", "along"]


def test_functorch() -> None:
    silu = gradref.as_autograd(activations.silu)
    x = torch.randn(7)
    first = torch.func.vmap(torch.func.grad(silu))(x)
    second = torch.func.vmap(torch.func.grad(torch.func.grad(silu)))(x)
    mixed = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(silu)))(x)
    assert torch.equal(first, activations.silu_derivative(x))
    assert torch.equal(second, activations.silu_second_derivative(x))
    assert torch.equal(mixed, second)
    loss = gradref.as_autograd(losses.cross_entropy)
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    each = torch.func.vmap(torch.func.grad(loss))(logits, target)
    assert torch.equal(each, losses.cross_entropy_gradient(logits, target, reduction="sum"))


def test_third_derivative_is_not_declared() -> None:
    x = torch.tensor(0.3, requires_grad=True)
    y = gradref.as_autograd(activations.silu)(x)
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="silu declares no third derivative"):
        torch.autograd.grad(second, x)


def test_autograd_takes_tensors() -> None:
    with pytest.raises(TypeError, match="x: got a float64 array of shape"):
        gradref.as_autograd(activations.silu)(np.zeros(3))


def test_weights_are_constants() -> None:
    loss = gradref.as_autograd(losses.cross_entropy)
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="weight: got a tensor that torch differentiates"):
        loss(torch.zeros(1, 3), torch.tensor([0]), weight=weight)
    with pytest.raises(ValueError, match="weight: got a tensor that torch differentiates"):
        torch.func.jvp(
            lambda w: loss(torch.zeros(1, 3), torch.tensor([0]), weight=w),
            (torch.ones(3),),
            (torch.ones(3),),
        )


@pytest.mark.parametrize(
    ("backend", "activation", "parameters", "loss", "smoothing"),
    [
        ("aot_eager", activations.gelu, {"approximate": "tanh"}, losses.cross_entropy, 0.1),
        ("inductor", activations.silu, {}, losses.nll_loss, None),
    ],
)
def test_compiled_training_step_is_the_eager_one(
    backend: str,
    activation: Callable[..., Tensor],
    parameters: dict[str, Any],
    loss: Callable[..., Tensor],
    smoothing: float | None,
) -> None:
    """Traced in whole for the longest formulas; compiled, which takes seconds, for short ones."""
    torch.manual_seed(0)
    net = torch.nn.Linear(8, 5)
    x, target = torch.randn(16, 8), torch.randint(0, 5, (16,))
    activated, lost = gradref.as_autograd(activation), gradref.as_autograd(loss)
    more = {} if smoothing is None else {"label_smoothing": smoothing}

    def step(x: Tensor, target: Tensor) -> Tensor:
        result: Tensor = lost(activated(net(x), **parameters), target, **more)
        return result

    gradients, values = [], []
    for run in (step, torch.compile(step, fullgraph=True, backend=backend)):
        net.zero_grad()
        value = run(x, target)
        value.backward()
        values.append(value.detach())
        assert net.weight.grad is not None
        gradients.append(net.weight.grad.clone())
    assert torch.equal(values[0], values[1])
    assert torch.equal(gradients[0], gradients[1])


def test_compiled_models_differ_where_their_activations_do() -> None:
    class Model(torch.nn.Module):
        def __init__(self, activation: Callable[..., Tensor]) -> None:
            super().__init__()
            self.activation = gradref.as_autograd(activation)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.activation(x)
            return result

    x = torch.linspace(-2, 2, 5)
    for activation in (activations.relu, activations.silu):
        compiled = torch.compile(Model(activation), fullgraph=True, backend="eager")
        assert torch.equal(compiled(x), activation(x))


@pytest.mark.parametrize(
    ("backend", "function", "parameters"),
    [
        ("aot_eager", activations.gelu, {"approximate": "tanh"}),
        ("inductor", activations.silu, {}),
        ("inductor", activations.softmax, {"dim": 0}),
    ],
)
def test_plain_functions_compile(
    backend: str, function: Callable[..., Tensor], parameters: dict[str, Any]
) -> None:
    x = torch.linspace(-5, 5, 64)
    compiled = torch.compile(lambda x: function(x, **parameters), fullgraph=True, backend=backend)
    for kind in (torch.float32, torch.bfloat16):
        assert torch.equal(compiled(x.to(kind)), function(x.to(kind), **parameters))


def test_it_trains_a_model() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    y = (x[:, 0] * x[:, 1] > 0).long()
    silu = gradref.as_autograd(activations.silu)
    loss = gradref.as_autograd(losses.cross_entropy)
    hidden, head = torch.nn.Linear(2, 32), torch.nn.Linear(32, 2)
    optimizer = torch.optim.Adam([*hidden.parameters(), *head.parameters()], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(head(silu(hidden(x))), y)
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.1
