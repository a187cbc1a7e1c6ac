"""Others that compute a value and its derivative: textbook formulas, and libraries if installed.

    gradref bench --peers benchmarks/peers.py

The textbook formulas are written once, for torch, NumPy and JAX; they are what people write, not
what is accurate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

Timed = Callable[[], Any]

# --- the textbook --------------------------------------------------------------------------------


def _sigmoid(xp: Any, x: Any) -> Any:
    s = 1 / (1 + xp.exp(-x))
    return s, s * (1 - s)


def _tanh(xp: Any, x: Any) -> Any:
    t = xp.tanh(x)
    return t, 1 - t * t


def _silu(xp: Any, x: Any) -> Any:
    s = 1 / (1 + xp.exp(-x))
    return x * s, s * (1 + x * (1 - s))


def _gelu(xp: Any, x: Any) -> Any:
    cdf = 0.5 * (1 + xp.erf(x * math.sqrt(0.5)))
    return x * cdf, cdf + x * xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def _softmax(xp: Any, x: Any, g: Any) -> Any:
    e = xp.exp(x - xp.amax(x, axis=-1, keepdims=True))
    p = e / xp.sum(e, axis=-1, keepdims=True)
    return p, p * (g - xp.sum(p * g, axis=-1, keepdims=True))


def _cross_entropy(xp: Any, x: Any, t: Any) -> Any:
    shifted = x - xp.amax(x, axis=-1, keepdims=True)
    e = xp.exp(shifted)
    total = xp.sum(e, axis=-1, keepdims=True)
    rows = xp.arange(x.shape[0])
    loss = xp.mean(xp.log(total[:, 0]) - shifted[rows, t])
    is_target = xp.arange(x.shape[1])[None, :] == t[:, None]
    p = e / total
    return loss, xp.where(is_target, p - 1, p) * (1 / x.shape[0])


def _mse_loss(xp: Any, x: Any, t: Any) -> Any:
    d = x - t
    return xp.mean(d * d), d * (2 / math.prod(x.shape))


TEXTBOOK: dict[str, Callable[..., Any]] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "silu": _silu,
    "gelu": _gelu,
    "softmax": _softmax,
    "cross_entropy": _cross_entropy,
    "mse_loss": _mse_loss,
}

# --- who there is --------------------------------------------------------------------------------


def peers(name: str, given: Sequence[Tensor]) -> Iterator[tuple[str, Timed]]:
    """Yield each peer that has an operation: its name, and a call on the given arguments.

    The call returns what the fused kernel does: the value and the derivative.
    """
    device, dtype = given[0].device.type, given[0].dtype
    if name in TEXTBOOK:
        yield "textbook, torch", lambda: TEXTBOOK[name](torch, *given)
        if device == "cpu" and dtype is torch.float32:
            yield from _on_a_cpu(TEXTBOOK[name], given)
    if name == "binary_cross_entropy_with_logits" and device == "cpu" and _has("sklearn"):
        yield "scikit-learn", _sklearn(*given)
    if name == "cross_entropy" and device == "cuda" and _has("liger_kernel"):
        yield "Liger", _liger(*given)
    if device == "cuda" and _has("triton"):
        yield from _in_triton(name, given)


def _has(package: str) -> bool:
    return find_spec(package) is not None


def _on_a_cpu(formula: Callable[..., Any], given: Sequence[Tensor]) -> Iterator[tuple[str, Timed]]:
    arrays = [tensor.numpy() for tensor in given]
    if formula is not _gelu:  # NumPy has no erf
        yield "textbook, NumPy", lambda: _tensors(formula(np, *arrays))
    if _has("jax"):
        jax = import_module("jax")
        namespace = SimpleNamespace(**vars(jax.numpy), erf=jax.scipy.special.erf)
        compiled = jax.jit(lambda *a: formula(namespace, *a))
        there = [jax.numpy.asarray(array) for array in arrays]

        def run() -> tuple[Tensor, ...]:
            return tuple(
                torch.utils.dlpack.from_dlpack(r) for r in jax.block_until_ready(compiled(*there))
            )

        yield "textbook, JAX", run


def _tensors(results: Any) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(result) for result in results)


def _sklearn(x: Tensor, target: Tensor) -> Timed:
    """Return a call of scikit-learn, with weights of 1/n: its sum is then our mean."""
    loss, n = import_module("sklearn._loss._loss").CyHalfBinomialLoss(), x.numel()
    raw, truth = x.numpy(), target.numpy()
    weight = np.full(n, 1 / n, dtype=raw.dtype)
    each, gradient = np.empty_like(raw), np.empty_like(raw)

    def run() -> tuple[Tensor, ...]:
        loss.loss_gradient(truth, raw, weight, each, gradient, torch.get_num_threads())
        return _tensors((each.sum(), gradient))

    return run


def _in_triton(name: str, given: Sequence[Tensor]) -> Iterator[tuple[str, Timed]]:
    import triton_rows  # beside this file

    if name == "softmax" and given[0].shape[1] <= triton_rows.ON_CHIP:
        yield "Triton", lambda: triton_rows.softmax_rows(*given)
    if name == "cross_entropy":
        x, target = given

        def run() -> tuple[Tensor, ...]:
            loss, slope = triton_rows.cross_entropy_rows(x, target, 1 / x.shape[0])
            return loss.mean().to(x.dtype), slope

        yield "Triton", run


def _liger(x: Tensor, target: Tensor) -> Timed:
    functional = import_module("liger_kernel.transformers.functional")

    def run() -> tuple[Tensor, ...]:
        leaf = x.detach().clone().requires_grad_()  # it overwrites its input
        value = functional.liger_cross_entropy(leaf, target)
        (slope,) = torch.autograd.grad(value, leaf)
        return value.detach(), slope

    return run
