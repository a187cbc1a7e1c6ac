"""NumPy formulas as tutorials have them, each with the derivative that stands beside it.

Right on paper, and at the handful of inputs that a tutorial tries. ``"library": "numpy"`` says
that the functions take NumPy arrays; ``"approximate": "tanh"`` is what gelu is written for.

Run it: ``gradref check examples/kernels/numpy_textbook.py --dtype f32,f64``

It does not pass: exp overflows where no maximum is subtracted, and inf / inf is NaN; 1 + tanh,
1 − σ and log(1 + eˣ) cancel; and ``np.sqrt(2 / np.pi)`` is a float64, with which NumPy 2 makes a
float64 of every float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def sigmoid_derivative(x: Array) -> Array:
    return sigmoid(x) * (1 - sigmoid(x))


def tanh(x: Array) -> Array:
    return (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))


def tanh_derivative(x: Array) -> Array:
    return 1 - tanh(x) ** 2


def relu(x: Array) -> Array:
    return np.maximum(0, x)


def relu_derivative(x: Array) -> Array:
    return (x > 0).astype(x.dtype)


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def silu_derivative(x: Array) -> Array:
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def softplus(x: Array) -> Array:
    return np.log(1 + np.exp(x))


def softplus_derivative(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_derivative(x: Array) -> Array:
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    slope = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + np.tanh(inner)) + 0.5 * x * (1 - np.tanh(inner) ** 2) * slope


def softmax(x: Array) -> Array:
    exps = np.exp(x)
    return exps / exps.sum(axis=-1, keepdims=True)


def softmax_backward(grad_output: Array, x: Array) -> Array:
    p = softmax(x)
    return p * (grad_output - (grad_output * p).sum(axis=-1, keepdims=True))


def stable_softmax(x: Array) -> Array:
    exps = np.exp(x - x.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


def cross_entropy(logits: Array, target: Array) -> Array:
    rows = np.arange(len(target))
    return -np.log(stable_softmax(logits)[rows, target]).mean()


def cross_entropy_backward(grad_output: Array, logits: Array, target: Array) -> Array:
    slope = stable_softmax(logits)
    slope[np.arange(len(target)), target] -= 1
    return grad_output * slope / len(target)


def binary_cross_entropy(p: Array, y: Array) -> Array:
    p = np.clip(p, 1e-15, 1 - 1e-15)
    return -y * np.log(p) - (1 - y) * np.log(1 - p)


def binary_cross_entropy_backward(grad_output: Array, p: Array, y: Array) -> Array:
    p = np.clip(p, 1e-15, 1 - 1e-15)
    return grad_output * (-(y / p) + (1 - y) / (1 - p))


def numpy_kernel(**entry: Any) -> dict[str, Any]:
    return {"library": "numpy", **entry}


KERNELS = {
    "sigmoid": numpy_kernel(forward=sigmoid, derivative=sigmoid_derivative),
    "tanh": numpy_kernel(forward=tanh, derivative=tanh_derivative),
    "relu": numpy_kernel(forward=relu, derivative=relu_derivative),
    "silu": numpy_kernel(forward=silu, derivative=silu_derivative),
    "softplus": numpy_kernel(forward=softplus, derivative=softplus_derivative),
    "gelu": numpy_kernel(forward=gelu, derivative=gelu_derivative, approximate="tanh"),
    "softmax": numpy_kernel(forward=softmax, backward=softmax_backward),
    "stable_softmax": numpy_kernel(operation="softmax", forward=stable_softmax),
    "cross_entropy": numpy_kernel(forward=cross_entropy, backward=cross_entropy_backward),
    "binary_cross_entropy": numpy_kernel(
        forward=binary_cross_entropy, backward=binary_cross_entropy_backward, reduction="none"
    ),
}
