"""Kernels that behave well, badly and worse, for test_check."""

from __future__ import annotations

import math
import os
import signal
import time

import numpy as np
import torch
from torch import Tensor


def right_silu(x: Tensor) -> Tensor:
    w = x.to(torch.float64).clamp(min=-745)
    e = torch.exp(-w.abs())
    return torch.where(w < 0, w * e / (1 + e), w / (1 + e)).to(x.dtype)


def textbook_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def crashing(x: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGSEGV)
    return x


def hanging(x: Tensor) -> Tensor:
    time.sleep(60)
    return x


def raising(x: Tensor) -> Tensor:
    raise NotImplementedError("float64 is not implemented")


def of_another_shape(x: Tensor) -> Tensor:
    return x.reshape(-1, 1)


def relu_with_half_at_0(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x, torch.where(x == 0, 0.5, (x > 0).to(x.dtype)))


def numpy_tanh(x: np.ndarray) -> np.ndarray:
    if x.dtype.name == "bfloat16":
        raise NotImplementedError("bfloat16")
    return np.tanh(x.astype(np.float64)).astype(x.dtype)


def overflowing_softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


def sigmoid_with_wrong_pieces(x: Tensor) -> Tensor:
    y = torch.sigmoid(x.double()).to(x.dtype)
    return torch.where((x.abs() >= 2) & (x.abs() <= 3), y * 1.001, y)


def logsigmoid_slope_with_wrong_constant(x: Tensor) -> Tensor:
    return torch.sigmoid(-1.01 * x.double()).to(x.dtype)


def gradient_of_a_mean_of_rows(grad_output: Tensor, input: Tensor, target: Tensor) -> Tensor:
    return grad_output * 2 * (input - target) / len(input)


def flushing_sigmoid(x: Tensor) -> Tensor:
    y = torch.sigmoid(x.double()).to(x.dtype)
    return torch.where(y.abs() < torch.finfo(x.dtype).tiny, 0 * x, y)


def log_of_softmax(x: Tensor) -> Tensor:
    return torch.log(torch.softmax(x, -1))


def mean_with_0_log_0(input: Tensor, target: Tensor) -> Tensor:
    x, t = input.double(), target.double()
    return -(t * torch.log(x) + (1 - t) * torch.log1p(-x)).mean().to(input.dtype)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.clamp(x, min=0)

    @staticmethod
    def backward(ctx: object, *grad_output: Tensor) -> Tensor:
        return grad_output[0]


KERNELS = {
    "right": {"operation": "silu", "forward": right_silu},
    "gelu": {"forward": textbook_gelu, "approximate": "none"},
    "crash": {"operation": "silu", "forward": crashing},
    "hang": {"operation": "silu", "forward": hanging},
    "raise": {"operation": "silu", "forward": raising},
    "shape": {"operation": "silu", "forward": of_another_shape},
    "kink": {"operation": "relu", "derivative": relu_with_half_at_0},
    "tanh": {"forward": numpy_tanh, "library": "numpy"},
    "overflowing": {"operation": "softplus", "forward": overflowing_softplus},
    "two sides": {"operation": "sigmoid", "forward": sigmoid_with_wrong_pieces},
    "wrong constant": {
        "operation": "logsigmoid",
        "derivative": logsigmoid_slope_with_wrong_constant,
    },
    "mean of rows": {"operation": "mse_loss", "backward": gradient_of_a_mean_of_rows},
    "flushed": {"operation": "sigmoid", "forward": flushing_sigmoid},
    "log of 0": {"operation": "log_softmax", "forward": log_of_softmax},
    "0 log 0": {"operation": "binary_cross_entropy", "forward": mean_with_0_log_0},
}
