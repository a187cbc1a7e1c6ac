"""Losses and row-wise functions at NaN, infinities, corners, ties and sizes where it went wrong."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from torch import Tensor, tensor

import activations
import gradref
import losses
from gradref.arrays import BLOCK

F64 = torch.float64


def same(got: Tensor, want: list[float]) -> bool:
    return torch.equal(torch.nan_to_num(got, nan=7.0), torch.nan_to_num(tensor(want), nan=7.0))


def test_a_derivative_is_nan_where_the_loss_is() -> None:
    one, zero = tensor([1.0]), tensor([0.0])
    missing = tensor([nan])
    assert same(losses.multi_margin_loss_gradient(tensor([nan, 0, -3]), tensor(1)), [nan, nan, 0])
    slope = losses.triplet_margin_loss_gradient(
        tensor([nan, 0]), zero.expand(2), one.expand(2), p=1.0
    )
    assert slope.isnan().any()
    assert losses.gaussian_nll_loss_hessian_diagonal(missing, zero, one).isnan().all()
    mixed = losses.gaussian_nll_loss_hvp(missing, zero, one, one, along="target")
    assert mixed.isnan().all()
    assert losses.poisson_nll_loss_hessian_diagonal(missing, one, wrt="target").isnan().all()


def test_products_are_symmetric_where_one_distance_is_0() -> None:
    anchor, negative, v = torch.zeros(2), tensor([0.3, 0.5]), tensor([1.0, 2.0])
    given = (anchor, anchor, negative, v)
    a, b = "anchor", "negative"
    there = losses.triplet_margin_loss_hvp(*given, eps=0.0, wrt=a, along=b)
    back = losses.triplet_margin_loss_hvp(*given, eps=0.0, wrt=b, along=a)
    assert torch.equal(there, back)
    assert there.isfinite().all()
    assert same(losses.triplet_margin_loss_hvp(*given, eps=0.0, wrt="positive", along=b), [0, 0])


def test_two_equal_distances_count_half_each() -> None:
    a, n = tensor([1.0, 0.0]), tensor([2.0, 0.0])
    leaf = a.clone().requires_grad_()
    options = {"swap": True, "margin": 3.0, "eps": 0.0}
    torch.nn.functional.triplet_margin_loss(leaf, a, n, **options).backward()  # type: ignore[arg-type]
    assert torch.equal(losses.triplet_margin_loss_gradient(a, a, n, **options), leaf.grad)


def test_a_margin_counts_beside_large_logits() -> None:
    large, first = tensor([1e17, 1e17]), tensor(0)
    assert losses.multi_margin_loss(large, first) == 0.5
    assert same(losses.multi_margin_loss_gradient(large, first), [-0.5, 0.5])
    near = losses.multi_margin_loss(tensor([1e9, 1e9]), first, margin=0.1)
    assert near == tensor(0.05)


def test_a_weight_of_0_hides_an_infinity() -> None:
    weight = tensor([0.0, 1.0, 1.0])
    given = (tensor([5.0, 0.0, inf]), tensor(0))
    assert losses.multi_margin_loss(*given, weight=weight) == 0
    assert same(losses.multi_margin_loss_gradient(*given, p=2, weight=weight), [0, 0, 0])


def test_the_gradient_in_a_variance_does_not_cancel() -> None:
    k = torch.arange(1.0, 2001.0)
    assert (losses.gaussian_nll_loss_gradient(k, 0 * k, k * k, wrt="var") == 0).all()
    assert losses.gaussian_nll_loss(1e200, 0.0, 1e300) == pytest.approx(5e99)


def test_a_slope_that_is_not_used_has_no_gradient() -> None:
    x, slopes, g = tensor([2.0, -1.0]), tensor([0.25, 0.5]), tensor([inf, 1.0])
    assert same(activations.prelu_vjp(x, slopes, g, wrt="weight"), [0, -1])
    assert same(activations.prelu_jvp(x, slopes, g, along="weight"), [0, -1])
    shared = tensor(0.3)
    result = activations.prelu_vjp(x, shared, tensor([1.0, 1.0]), wrt="weight", out=shared)
    assert result is shared
    assert shared == -1


def test_a_gate_does_not_underflow_before_its_product() -> None:
    gated = activations.glu(tensor([1e300, -850.0], dtype=F64))
    assert gated.item() == pytest.approx(7.0744e-70, rel=1e-4)
    pulled = activations.glu_vjp(tensor([1e300, -100.0], dtype=F64), tensor([1e10], dtype=F64))
    assert pulled[1].item() == pytest.approx(3.7201e266, rel=1e-4)


def test_blocks_can_be_mapped() -> None:
    count = BLOCK + 2
    target = torch.ones(2, count)
    loss = gradref.as_autograd(losses.mse_loss)
    x = torch.zeros(count)
    mapped = torch.func.vmap(lambda t: loss(x, t, reduction="none"))(target)
    assert torch.equal(mapped, torch.ones(2, count))
    leaf = torch.zeros(count, requires_grad=True)
    value = gradref.as_autograd(activations.silu)(leaf)
    (slopes,) = torch.autograd.grad(value, leaf, target, is_grads_batched=True)
    assert torch.equal(slopes, 0.5 * target)


@pytest.mark.parametrize("huge", [10**400, 10**5000], ids=["10**400", "10**5000"])
def test_a_huge_int_is_named(huge: int) -> None:
    with pytest.raises(ValueError, match="max_val: got an int of .* bits, wants a finite number"):
        activations.hardtanh(torch.ones(2), 0, huge)


def test_slopes_that_torch_draws_are_the_noise_of_ours(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(1000, requires_grad=True)
    noise = torch.ones_like(x)
    y = torch.ops.aten.rrelu_with_noise(x, noise, training=True)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y, activations.rrelu_with_noise(x.detach(), noise))
    assert torch.equal(slope, activations.rrelu_with_noise_gradient(x.detach(), noise))


@pytest.mark.parametrize("loss", ["poisson_nll_loss", "gamma_nll_loss", "tweedie_nll_loss"])
@pytest.mark.parametrize("x", [1e-38, 1e-16, -1e-14, 1e-9])
def test_a_likelihood_keeps_its_digits_at_its_minimum(loss: str, x: float) -> None:
    at = tensor([x], dtype=torch.float64)
    gradient = getattr(losses, f"{loss}_gradient")(at, torch.ones_like(at))
    assert gradient.item() == pytest.approx(x, rel=1e-8, abs=0)
