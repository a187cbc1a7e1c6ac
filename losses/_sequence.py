r"""Connectionist temporal classification: a sequence of labels without its place in time.

A path emits one class at every time; the label sequence is what is left of it without repetitions
and then without blanks. With a blank before, between and behind the labels, ext = (␣, y₁, ␣, ...),
all paths go through one lattice of states, and :math:`\alpha_t(j)` is the logarithm of what those
have that are in the state j after t steps:

.. math:: \alpha_t(j) = x_t(\mathrm{ext}_j) + \log \sum_i e^{\alpha_{t-1}(i)}, \qquad
          i \in \{j,\ j - 1,\ j - 2\}

where j − 2 counts if it is another class. State 0 is the start, which emits nothing and is left at
once. The share of i in the sum is the probability that a path which is in j came from i: backwards
through these shares goes :math:`\gamma_t(j)`, the probability that a path of the labels is in j.

It is a loss of a batch: sequences and their labels have lengths of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradref import arrays
from gradref.arrays import describe, reject, widen
from gradref.declare import batch_loss, gradient, hessian_diagonal, hvp
from gradref.formula.weighting import check_choice, check_reduction, times_grad_output
from losses._classification import Reduction

__all__ = ["ctc_loss", "ctc_loss_gradient", "ctc_loss_hessian_diagonal", "ctc_loss_hvp"]

Lengths = Tensor | Sequence[int] | int
Sequences = Literal["log_probs"]


def _truth(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    zero_infinity: bool,
) -> Any:
    p = np.exp(log_probs)
    lengths = zip(input_lengths, target_lengths, strict=True)
    sums = [_all_paths(p[:t, i], targets[i, :n], blank) for i, (t, n) in enumerate(lengths)]
    return np.array([0 * a if zero_infinity and a[0].is_zero() else -a.log() for a in sums])


def _all_paths(p: Any, labels: Any, blank: int) -> Any:
    """The sum of the probabilities of all paths: of each state, and then of the next time."""
    states = [blank, *(c for label in labels for c in (label, blank))]
    zero = 0 * p[0, 0]
    sums = [p[0, c] if j < 2 else zero for j, c in enumerate(states)]
    for now in p[1:]:
        came = [
            sums[j]
            + (sums[j - 1] if j >= 1 else zero)
            + (sums[j - 2] if j >= 2 and c != states[j - 2] else zero)
            for j, c in enumerate(states)
        ]
        sums = [a * now[c] for a, c in zip(came, states, strict=True)]
    return sum(sums[-2:], zero)


def _shares(log_probs: Any, target_lengths: Any, **_: Any) -> Any:
    ones = log_probs[0, :, 0] * 0 + 1
    return ones / np.maximum(target_lengths, 1) / len(ones)


def _draw(rng: np.random.Generator, case: Mapping[str, Any], is_large: bool) -> dict[str, Any]:
    """Sequences with repeated labels; the second may have none, or no path with a loss of 0."""
    times, count, classes, labels = (70, 5, 40, 20) if is_large else (5, 2, 4, 3)
    logits = rng.normal(size=(times, count, classes)) * rng.choice([0.3, 1.0, 3.0])
    known = [c for c in range(classes) if c != case.get("blank", 0)]
    targets = rng.choice(known, (count, labels))
    targets[0, 1] = targets[0, 0]
    short = (2, 3) if case.get("zero_infinity") else (times - 1, int(rng.integers(0, labels)))
    lengths = np.array([(times, labels)] * count)
    lengths[1] = short
    return {
        "log_probs": logits - np.log(np.exp(logits).sum(-1, keepdims=True)),
        "targets": targets,
        "input_lengths": lengths[:, 0].copy(),
        "target_lengths": lengths[:, 1].copy(),
    }


@batch_loss(
    torch=F.ctc_loss,
    truth=_truth,
    shares=_shares,
    draw=_draw,
    precision="normwise",
    cases=({}, {"blank": 2, "zero_infinity": True}),
    differs={"log_probs": "torch's gradient is that by logits before a log_softmax"},
    mistakes={"the gradient is that by logits which log_softmax follows, as torch's": F.ctc_loss},
)
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    r"""Connectionist temporal classification: minus the log-probability of all paths of the labels.

    .. math:: \ell = -\log \sum_{\pi \to y} \exp \sum_{t} x_t(\pi_t)

    over the paths π that give the labels y once repetitions and then blanks are left out. The mean
    divides each loss by the length of its target, at least 1, and is that of the quotients.

    ``log_probs`` has shape (T, N, C), or (T, C) for one sequence; ``targets`` are integers of shape
    (N, S), or those of all sequences one behind the other; a sequence has the first of T times and
    of S labels, as the lengths say: N integers, as a tensor, a tuple, or one number for (T, C).

    Domain ℝ, codomain ℝ, [0, ∞] for logarithms of probabilities; smooth, concave. Labels that do
    not fit into their times have no path: the loss is ∞ and its derivatives are NaN, or all of
    these 0 with ``zero_infinity``. No labels at no time have the loss 0. A time with a NaN gives
    NaN. float64, float32, float16, bfloat16, tensors or NumPy arrays; evaluated in float64, rounded
    once.

    Raises TypeError for targets that are not integers; ValueError for a label that is the blank or
    no class, for lengths or shapes that do not match, or an unknown reduction.
    Source: Graves et al. (2006); ``torch.nn.functional.ctc_loss``.

    >>> x = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> ctc_loss(x, torch.tensor([1]), 2, 1)  # -log(1 - 1/8): all paths but two blanks
    tensor(0.1335)
    """
    lattice = _Lattice.of(log_probs, targets, input_lengths, target_lengths, blank)
    return lattice.reduced(reduction, zero_infinity)


@gradient(ctc_loss)
def ctc_loss_gradient(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    wrt: Sequences = "log_probs",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`\partial \ell / \partial x_t(c) = -g_t(c)`, g the probability that c is emitted at t.

    It is the share of the paths of the labels which do so.

    torch gives :math:`e^{x_t(c)} - g_t(c)`, the gradient by logits that ``log_softmax`` follows:
    another function, and wrong by up to 1 for what ``log_probs`` are here.

    >>> x = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> ctc_loss_gradient(x, torch.tensor([1]), 2, 1)
    tensor([[-0.4286, -0.5714],
            [-0.1429, -0.8571]])
    """
    lattice = _Lattice.of(log_probs, targets, input_lengths, target_lengths, blank)
    check_choice("wrt", wrt, "log_probs")
    return lattice.pulled_back(lattice.emitted, reduction, zero_infinity, grad_output)


@hvp(ctc_loss)
def ctc_loss_hvp(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    tangent: Tensor,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    wrt: Sequences = "log_probs",
    along: Sequences = "log_probs",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`-\dot g_t(c)`, minus the covariance of what is emitted with :math:`\sum x \cdot v`.

    >>> x = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> ctc_loss_hvp(x, torch.tensor([1]), 2, 1, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    tensor([[-0.2449,  0.2449],
            [ 0.0612, -0.0612]])
    """
    lattice = _Lattice.of(log_probs, targets, input_lengths, target_lengths, blank)
    check_choice("wrt", wrt, "log_probs")
    check_choice("along", along, "log_probs")
    vector = lattice.vector(tangent)
    return lattice.pulled_back(lattice.moved(vector), reduction, zero_infinity, grad_output)


@hessian_diagonal(ctc_loss)
def ctc_loss_hessian_diagonal(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    wrt: Sequences = "log_probs",
    grad_output: Tensor | None = None,
) -> Tensor:
    r""":math:`-g_t(c)\,(1 - g_t(c))`: one class is emitted at a time, or not.

    Where g is near 1, 1 − g is the sum of those of the other classes.

    >>> x = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> ctc_loss_hessian_diagonal(x, torch.tensor([1]), 2, 1)
    tensor([[-0.2449, -0.2449],
            [-0.1224, -0.1224]])
    """
    lattice = _Lattice.of(log_probs, targets, input_lengths, target_lengths, blank)
    check_choice("wrt", wrt, "log_probs")
    g = lattice.emitted
    best = g.argmax(-1, keepdim=True)
    rest = g.scatter(-1, best, 0).sum(-1, keepdim=True)
    spread = g * torch.where(g > 0.5, rest, 1 - g)
    return lattice.pulled_back(spread, reduction, zero_infinity, grad_output)


# --- the lattice ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lattice:
    """The states of N label sequences, and what they emit at T times, in float64.

    State 0 is the start, 1, 3, ... are blanks and 2, 4, ... the labels. ``emission`` (T, N, J) is
    −∞ at the start and beyond the last state of a sequence, ``classes`` (N, J) says which class it
    is of; ``may_skip`` (N, J) where a path may come from two states before; ``lasts`` (T, N) which
    times belong to a sequence.
    """

    given: Tensor
    restore: Callable[[Tensor], Tensor]
    emission: Tensor
    classes: Tensor
    may_skip: Tensor
    lasts: Tensor
    target_lengths: Tensor

    @classmethod
    def of(
        cls, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int
    ) -> _Lattice:
        given, restore = arrays.enter("log_probs", log_probs)
        if not given.is_floating_point():
            reject("log_probs", describe(log_probs), "floats", TypeError)
        if given.dim() not in (2, 3):
            reject("log_probs", f"shape {tuple(given.shape)}", "shape (T, N, C) or (T, C)")
        x = given if given.dim() == 3 else given[:, None]
        times, count, classes = x.shape
        if not 0 <= blank < classes:
            reject("blank", blank, f"a class in [0, {classes})")
        within = _lengths("input_lengths", input_lengths, count, times).to(x.device)
        lengths = _lengths("target_lengths", target_lengths, count, None).to(x.device)
        labels = _labels(targets, lengths, blank, classes)
        states = torch.full((count, 2 * labels.shape[1] + 2), blank, device=x.device)
        states[:, 2::2] = labels
        place = torch.arange(states.shape[1], device=x.device)
        outside = (place == 0) | (place > 2 * lengths[:, None] + 1)
        emission = widen(x).gather(2, states.expand(times, -1, -1))
        return cls(
            given=given,
            restore=restore,
            emission=emission.masked_fill(outside, -math.inf),
            classes=states,
            may_skip=F.pad(states[:, 2:] != states[:, :-2], (2, 0)),
            lasts=torch.arange(times, device=x.device)[:, None] < within,
            target_lengths=lengths,
        )

    def before(self, of_state: Tensor, none: float) -> Tensor:
        """Return what the states j, j − 1 and j − 2 have, that a path may come from to j."""
        steps = [of_state, _shifted(of_state, 1, none), _shifted(of_state, 2, none)]
        return torch.stack([*steps[:2], torch.where(self.may_skip, steps[2], none)], dim=-1)

    @cached_property
    def alpha(self) -> tuple[list[Tensor], Tensor]:
        """α before every time and behind the last, less its maximum; and the sum of these."""
        alpha = torch.full_like(self.emission[:1].sum(0), -math.inf)
        alpha[:, 0] = 0
        found, maxima = [alpha], [torch.zeros_like(alpha[:, 0])]
        for emission, lasts in zip(self.emission, self.lasts, strict=True):
            new = torch.logsumexp(self.before(alpha, -math.inf), -1) + emission
            highest = _finite(new.amax(-1))
            alpha = torch.where(lasts[:, None], new - highest[:, None], alpha)
            found.append(alpha)
            maxima.append(torch.where(lasts, highest, 0))
        return found, torch.stack(maxima).sum(0)

    def at_end(self, of_state: Tensor) -> Tensor:
        """Return what the last label and the last blank have, in which a path may end."""
        last = 2 * self.target_lengths[:, None]
        return of_state.gather(1, torch.cat([last, last + 1], dim=1))

    @cached_property
    def total(self) -> Tensor:
        """The logarithm of what all paths have."""
        alpha, maxima = self.alpha
        return maxima + torch.logsumexp(self.at_end(alpha[-1]), -1)

    def shares(self, alpha: Tensor) -> Tensor:
        """Return the probability that a path which is in j came from j, j − 1 and j − 2."""
        terms = self.before(alpha, -math.inf)
        return torch.exp(terms - _finite(torch.logsumexp(terms, -1, keepdim=True)))

    def from_end(self, of_last: Tensor) -> Tensor:
        """Return what each state has behind the last time: what :meth:`at_end` takes."""
        last = 2 * self.target_lengths[:, None]
        zero = torch.zeros_like(self.alpha[0][-1])
        return zero.scatter(1, torch.cat([last, last + 1], dim=1), of_last)

    @cached_property
    def gamma(self) -> list[Tensor]:
        """The probability of each state before every time and behind the last."""
        alpha, _ = self.alpha
        gamma = self.from_end(torch.softmax(self.at_end(alpha[-1]), -1))
        found = [gamma]
        for before, lasts in zip(reversed(alpha[:-1]), self.lasts.flip(0), strict=True):
            came = _back(self.shares(before) * gamma[..., None])
            gamma = torch.where(lasts[:, None], came, gamma)
            found.append(gamma)
        return found[::-1]

    @cached_property
    def emitted(self) -> Tensor:
        """The probability of each class at each time, (T, N, C)."""
        return self.by_class(self.gamma[1:])

    def moved(self, vector: Tensor) -> Tensor:
        """Return the derivative of ``emitted`` along a vector: the same sweeps with tangents."""
        (alpha, _), gamma = self.alpha, self.gamma
        tangents = [torch.zeros_like(alpha[0])]
        for before, v, lasts in zip(alpha[:-1], vector, self.lasts, strict=True):
            mean = (self.shares(before) * self.before(tangents[-1], 0)).sum(-1)
            tangents.append(torch.where(lasts[:, None], mean + v, tangents[-1]))
        ends = torch.softmax(self.at_end(alpha[-1]), -1)
        moved = self.from_end(_times_deviation(ends, self.at_end(tangents[-1])))
        found = [moved]
        for t in reversed(range(len(vector))):
            shares = self.shares(alpha[t])
            turned = _times_deviation(shares, self.before(tangents[t], 0))
            came = _back(shares * moved[..., None] + turned * gamma[t + 1][..., None])
            moved = torch.where(self.lasts[t, :, None], came, moved)
            found.append(moved)
        return self.by_class(found[-2::-1])

    def by_class(self, of_states: list[Tensor]) -> Tensor:
        """Return what the states of each class have together, at the times of each sequence."""
        times, classes = self.given.shape[0], self.given.shape[-1]
        result = self.emission.new_zeros(times, len(self.classes), classes)
        for t, (of_state, lasts) in enumerate(zip(of_states, self.lasts, strict=True)):
            result[t].scatter_add_(1, self.classes, of_state.masked_fill(~lasts[:, None], 0))
        return result

    def vector(self, tangent: Any) -> Tensor:
        """Return a tangent as the states see it."""
        vector, _ = arrays.enter("tangent", tangent)
        if vector.shape != self.given.shape:
            wants = f"shape {tuple(self.given.shape)}, as log_probs"
            reject("tangent", f"shape {tuple(vector.shape)}", wants)
        by_time = widen(vector).reshape(len(vector), -1, vector.shape[-1])
        return by_time.gather(2, self.classes.expand(len(vector), -1, -1))

    # -- what the reduction does

    def reduced(self, reduction: str, zero_infinity: bool) -> Tensor:
        """Return the loss of each sequence, their sum, or the mean of those of one label."""
        check_reduction(reduction)
        loss = -self.total
        if zero_infinity:
            loss = loss.masked_fill(loss == math.inf, 0)
        if reduction == "mean":
            loss = (loss / self.target_lengths.clamp(min=1)).mean()
        elif reduction == "sum":
            loss = loss.sum()
        elif self.given.dim() == 2:
            loss = loss[0]
        return self.restore(arrays.narrowed(loss, self.given.dtype))

    def pulled_back(
        self, of_total: Tensor, reduction: str, zero_infinity: bool, grad_output: Any
    ) -> Tensor:
        """Return a derivative of minus the total, times what the reduction passes back."""
        check_reduction(reduction)
        scale = torch.ones_like(self.total)
        if reduction == "mean":
            scale = scale / self.target_lengths.clamp(min=1) / len(scale)
        shape = self.given.shape[1:-1] if reduction == "none" else ()
        scale = times_grad_output(scale, grad_output, shape)
        has_none = (self.total == -math.inf)[:, None]
        result = (-of_total * scale[:, None]).masked_fill(
            has_none, 0 if zero_infinity else math.nan
        )
        return self.restore(arrays.narrowed(result, self.given.dtype).reshape(self.given.shape))


# --- helpers -------------------------------------------------------------------------------------


def _shifted(of_state: Tensor, by: int, none: float) -> Tensor:
    """Return what the state ``by`` places before has."""
    return F.pad(of_state[:, :-by], (by, 0), value=none)


def _back(flow: Tensor) -> Tensor:
    """Return what comes to each state from j, j + 1 and j + 2: the transpose of ``before``."""
    stayed, one, two = flow.unbind(-1)
    return stayed + F.pad(one[:, 1:], (0, 1)) + F.pad(two[:, 2:], (0, 2))


def _times_deviation(p: Tensor, v: Tensor) -> Tensor:
    """Return p (v − Σ p v), the derivative of probabilities, from the v of the largest of them."""
    away = v - v.gather(-1, p.argmax(-1, keepdim=True))
    return p * (away - (p * away).sum(-1, keepdim=True))


def _finite(highest: Tensor) -> Tensor:
    """Return a maximum to subtract, also from numbers that are all −inf."""
    return highest.masked_fill(highest == -math.inf, 0)


def _lengths(name: str, value: Any, count: int, most: int | None) -> Tensor:
    """Return N lengths, given as a tensor, a sequence or one number."""
    lengths = torch.as_tensor(value)
    if lengths.is_floating_point() or lengths.is_complex():
        reject(name, describe(value), "integers", TypeError)
    lengths = lengths.reshape(-1).to(torch.int64)
    if len(lengths) != count:
        reject(name, f"{len(lengths)} numbers", f"{count}: one for each sequence")
    wants = "numbers >= 0" if most is None else f"numbers in [0, {most}], the times of log_probs"
    for length in lengths.tolist():
        if length < 0 or (most is not None and length > most):
            reject(name, length, wants)
    return lengths


def _labels(value: Any, lengths: Tensor, blank: int, classes: int) -> Tensor:
    """Return the labels of each sequence, (N, S), and the blank behind the last of them."""
    given, _ = arrays.enter("targets", value)
    if given.is_floating_point():
        reject("targets", describe(value), "integers", TypeError)
    count, longest = len(lengths), int(lengths.max()) if len(lengths) else 0
    is_label = torch.arange(longest, device=given.device) < lengths[:, None]
    labels = torch.full(is_label.shape, blank, device=given.device)
    if given.dim() == 2 and len(given) == count and given.shape[1] >= longest:
        labels[is_label] = given[:, :longest][is_label].to(torch.int64)
    elif given.dim() == 1 and len(given) == lengths.sum():
        labels[is_label] = given.to(torch.int64)
    else:
        wants = f"shape ({count}, S), S >= {longest}, or ({int(lengths.sum())},)"
        reject("targets", f"shape {tuple(given.shape)}", wants)
    wrong = is_label & ((labels < 0) | (labels >= classes) | (labels == blank))
    if wrong.any():
        wants = f"labels in [0, {classes}) other than the blank {blank}"
        reject("targets", f"a label of {labels[wrong][0].item()}", wants)
    return labels
