"""Logistic regression by hand-written gradients alone, step for step what autograd does.

Run it: ``python examples/logistic_regression.py``
"""

from __future__ import annotations

import torch
from torch import Tensor

from activations import sigmoid
from losses import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_gradient,
)

STEPS, RATE = 300, 0.5


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    score = x @ torch.tensor([3.0, -2.0], dtype=torch.float64) + 0.5
    draw = torch.rand(200, generator=generator, dtype=torch.float64)
    return x, (draw < sigmoid(score)).double()


def by_hand() -> list[Tensor]:
    """The weights after every step; no graph, no backward."""
    x, y = data()
    w, b = torch.zeros(2, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    path = []
    for _ in range(STEPS):
        slope = binary_cross_entropy_with_logits_gradient(x @ w + b, y)  # (σ(z) − y) / n
        w = w - RATE * (x.T @ slope)
        b = b - RATE * slope.sum()
        path.append(torch.cat([w, b[None]]))
    return path


def by_autograd() -> list[Tensor]:
    x, y = data()
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    b = torch.zeros((), dtype=torch.float64, requires_grad=True)
    path = []
    for _ in range(STEPS):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ w + b, y)
        slope_w, slope_b = torch.autograd.grad(loss, (w, b))
        with torch.no_grad():
            w -= RATE * slope_w
            b -= RATE * slope_b
        path.append(torch.cat([w.detach(), b.detach()[None]]))
    return path


def main() -> None:
    ours, theirs = by_hand(), by_autograd()
    apart = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    x, y = data()
    score = x @ ours[-1][:2] + ours[-1][2]
    right = float(((score > 0) == (y > 0)).double().mean())
    print(f"loss {float(binary_cross_entropy_with_logits(score, y)):.4f}, accuracy {right:.2f}")
    print(f"largest difference from autograd in {STEPS} steps: {apart:.1e}")


if __name__ == "__main__":
    main()
