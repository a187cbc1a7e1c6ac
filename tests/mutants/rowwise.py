"""Softmax with a wrong maximum, a wrong mask or a poor sum."""

from __future__ import annotations

import torch
from torch import Tensor

from ._mutant import Kernel, Mutant, narrow, wide

BLOCK = 128
"""Elements that a program of a blocked kernel handles."""

LANES = 8
"""Partial sums that a blocked kernel keeps of a row."""

# --- right kernels -------------------------------------------------------------------------------


def _softmax(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def _pull_back(p: Tensor, grad_output: Tensor) -> Tensor:
    """p (g − Σ p g), with g relative to the one of the largest p, where the difference cancels."""
    g = grad_output - grad_output.gather(-1, p.argmax(-1, keepdim=True))
    return p * (g - (p * g).sum(-1, keepdim=True))


def softmax(x: Tensor) -> Tensor:
    """Right: the exponentials of what the row falls short of its maximum, over their sum."""
    return narrow(_softmax(wide(x)), x)


def softmax_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: p (g − Σ p g)."""
    return narrow(_pull_back(_softmax(wide(x)), wide(grad_output)), x)


FORWARD: Kernel = {"operation": "softmax", "forward": softmax}
SOFTMAX: Kernel = FORWARD | {"backward": softmax_backward}

# --- wrong kernels -------------------------------------------------------------------------------


def softmax_zeros(x: Tensor) -> Tensor:
    """Zeros, which are close to the softmax of a long row."""
    return torch.zeros_like(x)


def _unshifted(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


def softmax_unshifted(x: Tensor) -> Tensor:
    """No maximum is subtracted: overflows."""
    return _unshifted(x)


def softmax_unshifted_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """No maximum is subtracted: overflows."""
    return _pull_back(_unshifted(x), grad_output)


def _shifted_by_all(x: Tensor) -> Tensor:
    return _unshifted(x - x.max())


def softmax_shifted_by_all(x: Tensor) -> Tensor:
    """The maximum of the tensor, not of the row: a row far below it underflows."""
    return _shifted_by_all(x)


def softmax_shifted_by_all_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """The maximum of the tensor, not of the row: a row far below it underflows."""
    return _pull_back(_shifted_by_all(x), grad_output)


def softmax_masked_with_0(x: Tensor) -> Tensor:
    """The masked lanes of the last block load 0, not −inf."""
    n = x.shape[-1]
    lanes = torch.nn.functional.pad(wide(x), (0, -n % BLOCK), value=0.0)
    return narrow(_softmax(lanes)[..., :n], x)


def softmax_low_sum(x: Tensor) -> Tensor:
    """The sum is accumulated in the dtype of the input."""
    t = wide(x)
    e = torch.exp(t - t.amax(-1, keepdim=True))
    terms = torch.nn.functional.pad(narrow(e, x), (0, -x.shape[-1] % LANES))
    total = torch.zeros_like(terms[..., :LANES])
    for block in torch.split(terms, LANES, -1):
        total = total + block
    return narrow(e / wide(total).sum(-1, keepdim=True), x)


MUTANTS = [
    Mutant(
        number=1,
        title="zeros for softmax",
        kernel=FORWARD | {"forward": softmax_zeros},
        correct=FORWARD,
        words=r"zero|constant|\b0\b",
        shape=(4, 16384),
    ),
    Mutant(
        number=15,
        title="softmax without subtracting the maximum",
        kernel=SOFTMAX | {"forward": softmax_unshifted, "backward": softmax_unshifted_backward},
        correct=SOFTMAX,
        words=r"overflow|maximum|\bmax\b",
    ),
    Mutant(
        number=16,
        title="softmax with the maximum of the whole tensor",
        kernel=SOFTMAX
        | {"forward": softmax_shifted_by_all, "backward": softmax_shifted_by_all_backward},
        correct=SOFTMAX,
        words=r"other rows|whole|alone|batch|underflow|maximum|\bmax\b",
        mode="full",
    ),
    Mutant(
        number=17,
        title="masked lanes of softmax load 0",
        kernel=FORWARD | {"forward": softmax_masked_with_0},
        correct=FORWARD,
        words=r"length|block|mask|pad|lane|sum",
        mode="full",
    ),
    Mutant(
        number=22,
        title="16-bit accumulation",
        kernel=FORWARD | {"forward": softmax_low_sum},
        correct=FORWARD,
        words=r"accumulat|sum|grows|length",
        dtypes=("bfloat16", "float16"),
        mode="full",
    ),
]
