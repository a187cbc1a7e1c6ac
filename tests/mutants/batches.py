"""Wrong kernels of losses of a batch: another gradient, another mean, and a tile left out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._mutant import Kernel, Mutant, narrow, wide
from .losses_multilabel import reduced

TILE = 64

# --- right ones ----------------------------------------------------------------------------------


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Right: the sum over all paths, as probabilities, which float64 holds."""
    p, lengths = wide(log_probs).exp(), target_lengths.tolist()
    sequences = zip(input_lengths.tolist(), lengths, strict=True)
    total = torch.stack(
        [of_paths(p[:t, i], targets[i, :n].tolist(), blank) for i, (t, n) in enumerate(sequences)]
    )
    rows = -total.clamp(min=1e-300).log()
    rows = torch.where(total > 0, rows, 0.0 if zero_infinity else torch.inf)
    if reduction == "mean":
        rows = rows / target_lengths.clamp(min=1)
    return narrow(reduced(rows, reduction), log_probs)


def of_paths(p: Tensor, labels: list[int], blank: int) -> Tensor:
    """What all paths of the labels have together, by state and from time to time."""
    states = [blank, *(c for label in labels for c in (label, blank))]
    zero = p.new_zeros(())
    of_state = [p[0, c] if j < 2 else zero for j, c in enumerate(states)]
    for now in p[1:]:
        skips = [j > 1 and c not in (blank, states[j - 2]) for j, c in enumerate(states)]
        first = [max(0, j - 1 - skip) for j, skip in enumerate(skips)]
        came = [sum(of_state[i : j + 1], zero) for j, i in enumerate(first)]
        of_state = [a * now[c] for a, c in zip(came, states, strict=True)]
    return sum(of_state[-2:], zero)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Right: from logits in float64."""
    bias = None if linear_bias is None else wide(linear_bias)
    z = F.linear(wide(input), wide(linear_weight), bias)
    ignored = -100 if ignore_index is None else ignore_index
    return narrow(F.cross_entropy(z, target, ignore_index=ignored, reduction=reduction), input)


CTC: Kernel = {"operation": "ctc_loss", "function": ctc_loss}
LINEAR: Kernel = {"operation": "linear_cross_entropy", "function": linear_cross_entropy}

# --- wrong ones ----------------------------------------------------------------------------------


def ctc_loss_of_logits(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Wrong: torch's, whose gradient is that by logits before a log_softmax."""
    given = (targets, input_lengths, target_lengths, blank, reduction, zero_infinity)
    return narrow(F.ctc_loss(wide(log_probs), *given), log_probs)


def ctc_loss_of_equal_sequences(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Wrong: a mean that does not divide by the lengths of the targets."""
    given = (log_probs, targets, input_lengths, target_lengths, blank, "none", zero_infinity)
    return reduced(ctc_loss(*given), reduction)


def linear_cross_entropy_of_all_rows(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Wrong: a mean that divides by the ignored rows too."""
    options = {"linear_bias": linear_bias, "ignore_index": ignore_index}
    if reduction != "mean":
        return linear_cross_entropy(input, linear_weight, target, **options, reduction=reduction)
    total = linear_cross_entropy(input, linear_weight, target, **options, reduction="sum")
    return total / len(input)


def linear_cross_entropy_of_whole_tiles(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Wrong: without the classes behind the last whole tile, but in the first."""
    bias = 0.0 if linear_bias is None else wide(linear_bias)
    z = wide(input) @ wide(linear_weight).T + bias
    seen = max(TILE, z.shape[1] // TILE * TILE)
    picked = z.gather(1, target[:, None].clamp(min=0)).squeeze(1)
    counted = target != -100
    rows = torch.where(counted, z[:, :seen].logsumexp(-1) - picked, 0.0)
    result = rows.sum() / counted.sum() if reduction == "mean" else reduced(rows, reduction)
    return narrow(result, input)


MUTANTS = [
    Mutant(
        number=156,
        title="ctc_loss with the gradient of the logits",
        kernel=CTC | {"function": ctc_loss_of_logits},
        correct=CTC,
        words=r"gradient is that by logits",
    ),
    Mutant(
        number=157,
        title="ctc_loss: a mean without the lengths of the targets",
        kernel=CTC | {"function": ctc_loss_of_equal_sequences},
        correct=CTC,
        words=r"divides by the number of losses alone",
    ),
    Mutant(
        number=158,
        title="linear_cross_entropy: a mean over ignored rows too",
        kernel=LINEAR | {"function": linear_cross_entropy_of_all_rows},
        correct=LINEAR,
        words=r"mean divides by all rows",
    ),
    Mutant(
        number=159,
        title="linear_cross_entropy without the classes behind the last whole tile",
        kernel=LINEAR | {"function": linear_cross_entropy_of_whole_tiles},
        correct=LINEAR,
        words=r"input of shape \(67, 33\): got",
        condition="real size",
    ),
]
