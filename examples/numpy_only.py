"""The analytic helpers on NumPy arrays: a boosting objective without a line of torch.

Gradient boosting asks an objective for the gradient and the diagonal of the Hessian of every row.
Run it: ``python examples/numpy_only.py``
"""

from __future__ import annotations

import numpy as np

from activations import sigmoid
from losses import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_gradient,
    binary_cross_entropy_with_logits_hessian_diagonal,
)

ROUNDS, RATE = 30, 0.3


def objective(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What XGBoost and LightGBM call ``grad`` and ``hess``."""
    gradient = binary_cross_entropy_with_logits_gradient(score, label, reduction="none")
    hessian = binary_cross_entropy_with_logits_hessian_diagonal(score, label, reduction="none")
    return gradient, hessian


def boost(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Newton boosting with stumps: the best split of the feature, and −Σg/Σh on either side."""
    score = np.zeros_like(x)
    for _ in range(ROUNDS):
        gradient, hessian = objective(score, label)
        splits = np.quantile(x, np.linspace(0.05, 0.95, 19))
        left = x[:, None] <= splits
        gain = sum((gradient @ side) ** 2 / (hessian @ side + 1.0) for side in (left, ~left))
        side = left[:, np.argmax(gain)]
        for part in (side, ~side):
            score[part] -= RATE * gradient[part].sum() / (hessian[part].sum() + 1.0)
    return score


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, 500)
    label = (rng.uniform(size=500) < sigmoid(4 * np.sin(2 * x))).astype(np.float64)
    score = boost(x, label)
    before = binary_cross_entropy_with_logits(np.zeros_like(x), label)
    after = binary_cross_entropy_with_logits(score, label)
    print(f"loss {before:.4f} -> {after:.4f} in {ROUNDS} rounds, on {type(score).__name__}s")


if __name__ == "__main__":
    main()
