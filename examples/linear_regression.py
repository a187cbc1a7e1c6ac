"""Linear regression by hand-written gradients alone, step for step what autograd does.

Run it: ``python examples/linear_regression.py``
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses import mse_loss, mse_loss_gradient

STEPS, RATE = 200, 0.1


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    noise = 0.01 * torch.randn(100, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64) + 0.3 + noise


def by_hand() -> list[Tensor]:
    """The weights after every step; no graph, no backward."""
    x, y = data()
    w, b = torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    path = []
    for _ in range(STEPS):
        slope = mse_loss_gradient(x @ w + b, y)  # ∂L/∂prediction
        w = w - RATE * (x.T @ slope)  # chain rule: prediction = xw + b
        b = b - RATE * slope.sum()
        path.append(torch.cat([w, b[None]]))
    return path


def by_autograd() -> list[Tensor]:
    x, y = data()
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    b = torch.zeros((), dtype=torch.float64, requires_grad=True)
    path = []
    for _ in range(STEPS):
        loss = torch.nn.functional.mse_loss(x @ w + b, y)
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
    w, b = ours[-1][:3], ours[-1][3]
    print(f"weights {[round(v, 3) for v in w.tolist()]}, bias {float(b):.3f}")
    print(f"loss {float(mse_loss(x @ w + b, y)):.2e}")
    print(f"largest difference from autograd in {STEPS} steps: {apart:.1e}")


if __name__ == "__main__":
    main()
