"""Right at small matrices: wrong for a length, a number of rows, a rank or a content."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import elementwise, losses, rowwise
from ._mutant import Kernel, Mutant, narrow, wide

# --- right kernels -------------------------------------------------------------------------------


def softmax_along(x: Tensor, dim: int = -1) -> Tensor:
    """Right along any dimension."""
    return rowwise.softmax(x.movedim(dim, -1)).movedim(-1, dim)


def softmax_along_backward(grad_output: Tensor, x: Tensor, dim: int = -1) -> Tensor:
    """Right along any dimension."""
    moved = (grad_output.movedim(dim, -1), x.movedim(dim, -1))
    return rowwise.softmax_backward(*moved).movedim(-1, dim)


def by_rows(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Classes along dimension 1, or the only one, as rows."""
    classes = min(1, input.dim() - 1)
    return input.movedim(classes, -1).reshape(-1, input.shape[classes]), target.reshape(-1)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Right for class indices in any number of dimensions."""
    rows, indices = by_rows(input, target)
    result = losses.cross_entropy(
        rows, indices.long(), weight, ignore_index, reduction, label_smoothing
    )
    return result.reshape(target.shape) if reduction == "none" else result


def cross_entropy_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Right for class indices in any number of dimensions."""
    rows, indices = by_rows(input, target)
    options = (weight, ignore_index, reduction, label_smoothing)
    by_row = losses.cross_entropy_backward(
        grad_output.reshape(-1) if grad_output.dim() else grad_output,
        rows,
        indices.long(),
        *options,
    )
    classes = min(1, input.dim() - 1)
    moved = input.movedim(classes, -1)
    return by_row.reshape(moved.shape).movedim(-1, classes)


def mse_loss_over(count: Callable[[Tensor], Tensor | float]) -> Right:
    """(x − t)², whose mean divides by a count of the input."""

    def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        rows = (wide(input) - wide(target)).square()
        return narrow(losses.reduced(rows, count(input), reduction), input)

    return mse_loss


mse_loss = mse_loss_over(Tensor.numel)
"""Right."""


def mse_loss_backward(
    grad_output: Tensor, input: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Right: 2 (x − t)."""
    g = losses.spread(grad_output, input.numel(), reduction)
    return narrow(2 * g * (wide(input) - wide(target)), input)


def binary_cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Right: −t log p − (1 − t) log(1 − p), infinite where p excludes what t has."""
    p, t = wide(input), wide(target)
    rows = -torch.special.xlogy(t, p) - torch.special.xlog1py(1 - t, -p)
    return narrow(losses.reduced(rows, input.numel(), reduction), input)


def bce_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Right: w ((1 − t) log(1 + exp(x)) + p t log(1 + exp(−x)))."""
    x, t = wide(input), wide(target)
    small = torch.log1p(torch.exp(-x.abs()))
    positive = t if pos_weight is None else wide(pos_weight) * t
    rows = (1 - t) * (x.clamp(min=0) + small) + positive * ((-x).clamp(min=0) + small)
    rows = rows if weight is None else rows * wide(weight)
    return narrow(losses.reduced(rows, input.numel(), reduction), input)


def relu_backward(grad_output: Tensor, x: Tensor) -> Tensor:
    """Right: the slope at 0 is 0, and NaN at NaN."""
    return torch.where(x > 0, grad_output, torch.where(x.isnan(), x, 0.0))


SILU: Kernel = {
    "operation": "silu",
    "forward": elementwise.silu,
    "backward": elementwise.silu_backward,
}
SOFTMAX: Kernel = {
    "operation": "softmax",
    "forward": softmax_along,
    "backward": softmax_along_backward,
}
CROSS_ENTROPY: Kernel = {
    "operation": "cross_entropy",
    "forward": cross_entropy,
    "backward": cross_entropy_backward,
}
MSE: Kernel = {"operation": "mse_loss", "forward": mse_loss, "backward": mse_loss_backward}
BCE_WITH_LOGITS: Kernel = {
    "operation": "binary_cross_entropy_with_logits",
    "forward": bce_with_logits,
}
BCE: Kernel = {"operation": "binary_cross_entropy", "forward": binary_cross_entropy}

Right = Callable[..., Tensor]
Mistake = Callable[[Right], Right]

# --- lengths -------------------------------------------------------------------------------------


def on_result(change: Callable[[Tensor], Tensor]) -> Mistake:
    """A mistake in the result; the signature is that of the right function."""

    def mistake(right: Right) -> Right:
        @functools.wraps(right)
        def kernel(*arguments: Any, **options: Any) -> Tensor:
            return change(right(*arguments, **options))

        return kernel

    return mistake


def elements(change: Callable[[Tensor, int], Tensor]) -> Mistake:
    """A mistake in the flattened result, by its number of elements."""
    return on_result(lambda y: change(y.reshape(-1).clone(), y.numel()).reshape(y.shape))


def zeroed(y: Tensor, start: int) -> Tensor:
    y[start:] = 0
    return y


def last_of_63(flat: Tensor, n: int) -> Tensor:
    return zeroed(flat, n - 1) if n % 64 == 63 else flat


def last_of_a_power(flat: Tensor, n: int) -> Tensor:
    return zeroed(flat, n - 1) if n > 64 and n & (n - 1) == 0 else flat


def first_behind_a_power(flat: Tensor, n: int) -> Tensor:
    return zeroed(flat, n - 1) if n > 64 and (n - 1) & (n - 2) == 0 else flat


def beyond_65536(flat: Tensor, n: int) -> Tensor:
    return zeroed(flat, 1 << 16)


def one_element(flat: Tensor, n: int) -> Tensor:
    return flat * 2 if n == 1 else flat


def rows_beyond(limit: int) -> Mistake:
    """Rows that have no program stay 0."""
    return on_result(lambda y: zeroed(y.clone(), limit) if y.dim() else y)


def long_rows(limit: int) -> Mistake:
    """What lies beyond the last whole block of a long row is not written."""

    def cut(y: Tensor) -> Tensor:
        if y.dim() != 2 or y.shape[1] <= limit:
            return y
        return zeroed(y.T.clone(), y.shape[1] // limit * limit).T

    return on_result(cut)


# --- reductions ----------------------------------------------------------------------------------


def mse_loss_of_whole_blocks(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """A sum takes whole blocks of 2,048 elements only, if there is one."""
    kept = input.numel() // 2048 * 2048 or input.numel()
    rows = (wide(input) - wide(target)).square()
    if reduction == "none":
        return narrow(rows, input)
    return narrow(losses.reduced(rows.reshape(-1)[:kept], input.numel(), reduction), input)


def in_bfloat16(input: Tensor) -> Tensor:
    """The count of a mean, in a format that holds integers to 256."""
    return torch.tensor(float(input.numel())).bfloat16().double()


def rows_of_a_matrix(input: Tensor) -> int:
    """The count of a mean of an array of two dimensions or more is that of its rows."""
    return len(input) if input.dim() > 1 else input.numel()


def less_1_of_many(input: Tensor) -> int:
    """The count of a mean of many is n − 1."""
    return input.numel() - (input.numel() > 100)


def mse_loss_overflows(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """A mean sums before it divides, in float16."""
    rows = (wide(input) - wide(target)).square()
    if reduction == "mean":
        return narrow((rows.sum().to(torch.float16) / input.numel()).double(), input)
    return narrow(losses.reduced(rows, input.numel(), reduction), input)


def cross_entropy_of_whole_blocks(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The last block of more than 2,048 rows is dropped (attorch)."""
    kept = len(input) // 2048 * 2048 if input.dim() == 2 and len(input) > 2048 else len(input)
    if options.get("reduction", "mean") == "none" or kept == len(input):
        return cross_entropy(input, target, **options)
    return cross_entropy(input[:kept], target[:kept], **options)


def mse_loss_backward_of_few(
    grad_output: Tensor, input: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """A gradient of more than 65,535 elements starts again from the first."""
    result = mse_loss_backward(grad_output, input, target, reduction).reshape(-1)
    return result[torch.arange(len(result)) % 65535].reshape(input.shape)


# --- ranks, layouts ------------------------------------------------------------------------------


def softmax_last(x: Tensor, dim: int = -1) -> Tensor:
    """Always along the last dimension."""
    return rowwise.softmax(x)


def softmax_of_matrices(x: Tensor, dim: int = -1) -> Tensor:
    """Dimension 1 of an array of more than two is taken for the last."""
    return softmax_along(x, -1 if dim == 1 else dim)


def softmax_positive(x: Tensor, dim: int = -1) -> Tensor:
    """A negative dimension counts from the front."""
    return softmax_along(x, min(abs(dim), x.dim() - 1) if x.dim() > 2 else dim)


def softmax_of_rank_4(x: Tensor, dim: int = -1) -> Tensor:
    """Dimensions of size 1 are dropped before the dimension is looked up."""
    squeezed = x.squeeze()
    at = dim % x.dim()
    return softmax_along(squeezed, min(at, max(squeezed.dim() - 1, 0))).reshape(x.shape)


def cross_entropy_without_permuting(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Arrays of more than two dimensions are reshaped to rows, not permuted."""
    if input.dim() <= 2:
        return cross_entropy(input, target, **options)
    rows = input.reshape(-1, input.shape[1])
    result = cross_entropy(rows, target.reshape(-1), **options)
    return result.reshape(target.shape) if result.dim() else result


def silu_of_scalars(x: Tensor) -> Tensor:
    """A number without dimensions comes back as an array of one."""
    result = elementwise.silu(x)
    return result if x.dim() else result.reshape(1)


def silu_of_expanded(x: Tensor) -> Tensor:
    """One element broadcast along a row is taken for a row."""
    if x.dim() == 2 and x.stride(-1) == 0 and x.shape[1] > 1:
        held = torch.arange(x.shape[1], device=x.device).clamp(max=0) + 1
        return elementwise.silu(x * held * 0)
    return elementwise.silu(x)


def silu_in_memory_of_x(x: Tensor) -> Tensor:
    """The result is a view of a buffer that the input lies in."""
    return x.detach().mul_(0).add_(0) if x.numel() == 0 else x.detach().copy_(elementwise.silu(x))


# --- contents ------------------------------------------------------------------------------------


def silu_wrong_at(value: float) -> Right:
    """Another branch at one number."""

    def silu(x: Tensor) -> Tensor:
        return torch.where(x == value, x, elementwise.silu(x))

    return silu


def silu_wrong_next_to_3(x: Tensor) -> Tensor:
    """A branch that ends one number too early."""
    edge = torch.nextafter(x.new_tensor(3.0), x.new_tensor(torch.inf))
    return torch.where(x == edge, x, elementwise.silu(x))


def softmax_masked(x: Tensor, dim: int = -1) -> Tensor:
    """A masked logit gives NaN: −inf − max is clamped and multiplied."""
    result = softmax_along(x, dim)
    return torch.where(torch.isneginf(x).any(dim, keepdim=True), math.nan, result)


def softmax_masked_backward(grad_output: Tensor, x: Tensor, dim: int = -1) -> Tensor:
    """A masked logit gives NaN in the gradient."""
    result = softmax_along_backward(grad_output, x, dim)
    return torch.where(torch.isneginf(x), math.nan, result)


def softmax_swallows_nan(x: Tensor, dim: int = -1) -> Tensor:
    """The maximum passes NaN over, and so does the sum."""
    return softmax_along(torch.nan_to_num(x, nan=-1e30, posinf=math.inf, neginf=-math.inf), dim)


def bce_anything_at_0(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Where the loss is infinite some number comes back."""
    rows = binary_cross_entropy(input, target, "none")
    rows = torch.where(torch.isinf(rows), -12345.0, rows)
    return losses.reduced(rows, input.numel(), reduction).to(input.dtype)


def cross_entropy_nan_of_infinite(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A class that is excluded gives NaN where the loss is infinite."""
    return torch.nan_to_num(cross_entropy(input, target, **options), nan=math.nan, posinf=math.nan)


def beyond_24_bits(flat: Tensor, n: int) -> Tensor:
    return zeroed(flat, 1 << 24)


def wrapped_at_24_bits(flat: Tensor, n: int) -> Tensor:
    """The index of an element is a float32."""
    return torch.cat([flat[: 1 << 24], flat[: max(0, n - (1 << 24))]])


def softmax_of_the_scaled(x: Tensor, dim: int = -1) -> Tensor:
    """Rows are divided by their largest number, and by what float32 has of its reciprocal."""
    largest = x.abs().amax(dim, keepdim=True).float()
    return softmax_along(torch.where(torch.isinf(1 / largest) & (largest > 0), math.nan, x), dim)


def cross_entropy_of_some_rows(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A launch of no programs is an error."""
    if not target.numel():
        raise RuntimeError("invalid configuration argument")
    return cross_entropy(input, target, **options)


def bce_of_one_pos_weight(
    input: Tensor, target: Tensor, pos_weight: Tensor | None = None, **options: Any
) -> Tensor:
    """Of one number for each class the first is taken for all."""
    if pos_weight is not None and pos_weight.numel() < input.numel():
        pos_weight = pos_weight.reshape(-1)[:1]
    return bce_with_logits(input, target, pos_weight=pos_weight, **options)


def with_targets(change: Callable[[Tensor, Tensor], Tensor]) -> Mistake:
    """A mistake in the class indices."""

    def mistake(right: Right) -> Right:
        @functools.wraps(right)
        def kernel(*arguments: Any, **options: Any) -> Tensor:
            *before, input, target = arguments
            return right(*before, input, change(input, target), **options)

        return kernel

    return mistake


def last_class_ignored(input: Tensor, target: Tensor) -> Tensor:
    classes = input.shape[min(1, input.dim() - 1)]
    return torch.where((target == classes - 1) & (classes > 3), target * 0, target)


def negative_is_last(input: Tensor, target: Tensor) -> Tensor:
    return torch.where(target < 0, input.shape[min(1, input.dim() - 1)] - 1, target)


def int32_misread(input: Tensor, target: Tensor) -> Tensor:
    if target.dtype is torch.int64:
        return target
    return torch.zeros_like(target)


def cross_entropy_one_class(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """One class is taken for a binary problem."""
    if input.dim() > 1 and input.shape[1] == 1:
        return cross_entropy(torch.cat([input, -input], 1), target, **options)
    return cross_entropy(input, target, **options)


def cross_entropy_all_ignored(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """NaN for the sum of rows that are all ignored."""
    result = cross_entropy(input, target, **options)
    is_empty = bool((target == options.get("ignore_index", -100)).all())
    return result * math.nan if is_empty else result


# --- parameters ----------------------------------------------------------------------------------


def cross_entropy_smooths_if_weighted(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Label smoothing has an effect with a weight only."""
    if options.get("weight") is None:
        options["label_smoothing"] = 0.0
    return cross_entropy(input, target, **options)


def cross_entropy_weighs_if_smoothed(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A weight has an effect with label smoothing only."""
    if not options.get("label_smoothing"):
        options["weight"] = None
    return cross_entropy(input, target, **options)


def cross_entropy_ignores_if_weighted(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """An index is ignored with a weight only."""
    if options.get("weight") is None:
        options["ignore_index"] = -100
    return cross_entropy(input, target, **options)


Planted = tuple[int, str, str, dict[str, Right]]
"""A number, the condition that shows the mistake, its title, and the functions that have it."""


LARGE = (62, 64, 71, 77, 89, 106, 107)
"""What shows at sizes and layouts that only mode full tries."""


def of(right: Kernel, words: str, *planted: Planted) -> list[Mutant]:
    return [
        Mutant(
            number,
            title,
            {**right, **wrong},
            right,
            words,
            mode="full" if number in LARGE else "quick",
            condition=condition,
        )
        for number, condition, title, wrong in planted
    ]


def silu_pair(change: Callable[[Tensor, int], Tensor]) -> dict[str, Right]:
    mistake = elements(change)
    return {"backward": mistake(elementwise.silu_backward)}


MUTANTS = [
    *of(
        SILU,
        r"length|shape|results? (is|are) wrong|\d+ ?%|nowhere else|broadcast|writes into",
        (
            60,
            "lengths",
            "a length of 63 modulo 64, value",
            {"forward": elements(last_of_63)(elementwise.silu)},
        ),
        (61, "lengths", "a length of 63 modulo 64, gradient", silu_pair(last_of_63)),
        (
            62,
            "lengths",
            "a length that is a power of two",
            {"forward": elements(last_of_a_power)(elementwise.silu)},
        ),
        (63, "lengths", "one element behind a power of two", silu_pair(first_behind_a_power)),
        (
            64,
            "lengths",
            "elements beyond 65,536",
            {"forward": elements(beyond_65536)(elementwise.silu)},
        ),
        (65, "lengths", "an array of one element", silu_pair(one_element)),
        (66, "ranks", "a number without dimensions", {"forward": silu_of_scalars}),
        (67, "", "wrong at 6 only", {"forward": silu_wrong_at(6.0)}),
        (68, "", "wrong at 12 only", {"forward": silu_wrong_at(12.0)}),
        (69, "", "wrong at 1e-3 only", {"forward": silu_wrong_at(1e-3)}),
        (70, "", "wrong next to 3", {"forward": silu_wrong_next_to_3}),
        (71, "layouts", "a broadcast element", {"forward": silu_of_expanded}),
        (
            72,
            "arguments untouched",
            "the result in the memory of the input",
            {"forward": silu_in_memory_of_x},
        ),
    ),
    *of(
        SOFTMAX,
        r"dim|rank|rows|length|NaN|nan|inf",
        (73, "ranks", "along the last dimension always", {"forward": softmax_last}),
        (74, "ranks", "dimension 1 of rank 3", {"forward": softmax_of_matrices}),
        (75, "ranks", "a negative dimension", {"forward": softmax_positive}),
        (76, "ranks", "dimensions of size 1", {"forward": softmax_of_rank_4}),
        (
            77,
            "numbers of rows",
            "rows beyond 65,535",
            {"forward": rows_beyond(65535)(softmax_along)},
        ),
        (
            78,
            "numbers of rows",
            "gradients beyond 2,048 rows",
            {"backward": rows_beyond(2048)(softmax_along_backward)},
        ),
        (
            79,
            "lengths",
            "the tail of rows beyond 4,096",
            {"forward": long_rows(4096)(softmax_along)},
        ),
        (
            80,
            "lengths",
            "the tail of gradients beyond 1,000",
            {"backward": long_rows(1000)(softmax_along_backward)},
        ),
        (81, "contents", "a masked logit", {"forward": softmax_masked}),
        (82, "contents", "a masked logit, gradient", {"backward": softmax_masked_backward}),
        (83, "contents", "NaN swallowed", {"forward": softmax_swallows_nan}),
    ),
    *of(
        MSE,
        r"rows|length|shape|result|wrong",
        (
            84,
            "numbers of rows",
            "whole blocks of 2,048 summed",
            {"forward": mse_loss_of_whole_blocks},
        ),
        (85, "numbers of rows", "the count in bfloat16", {"forward": mse_loss_over(in_bfloat16)}),
        (
            86,
            "ranks",
            "the mean over rows of a matrix",
            {"forward": mse_loss_over(rows_of_a_matrix)},
        ),
        (87, "numbers of rows", "the mean of n − 1", {"forward": mse_loss_over(less_1_of_many)}),
        (88, "numbers of rows", "the sum in float16", {"forward": mse_loss_overflows}),
        (89, "numbers of rows", "gradients beyond 65,535", {"backward": mse_loss_backward_of_few}),
        (
            90,
            "numbers of rows",
            "gradients beyond 2,048 rows",
            {"backward": rows_beyond(2048)(mse_loss_backward)},
        ),
    ),
    *of(
        BCE,
        r"inf|got -12345",
        (91, "contents", "some number where the loss is infinite", {"forward": bce_anything_at_0}),
    ),
    *of(
        CROSS_ENTROPY,
        r"rows|rank|class|target|alone|inf|result",
        (
            92,
            "numbers of rows",
            "the last block of more than 2,048 rows",
            {"forward": cross_entropy_of_whole_blocks},
        ),
        (
            93,
            "ranks",
            "rows of K dimensions not permuted",
            {"forward": cross_entropy_without_permuting},
        ),
        (
            94,
            "targets",
            "the last class",
            {"forward": with_targets(last_class_ignored)(cross_entropy)},
        ),
        (
            95,
            "targets",
            "the last class, gradient",
            {"backward": with_targets(last_class_ignored)(cross_entropy_backward)},
        ),
        (
            96,
            "targets",
            "−100 taken for the last class",
            {"forward": with_targets(negative_is_last)(cross_entropy)},
        ),
        (
            97,
            "targets",
            "−100 taken for the last class, gradient",
            {"backward": with_targets(negative_is_last)(cross_entropy_backward)},
        ),
        (98, "targets", "int32 targets", {"forward": with_targets(int32_misread)(cross_entropy)}),
        (99, "targets", "one class", {"forward": cross_entropy_one_class}),
        (100, "targets", "all rows ignored", {"forward": cross_entropy_all_ignored}),
        (
            101,
            "parameters alone",
            "smoothing without a weight",
            {"forward": cross_entropy_smooths_if_weighted},
        ),
        (
            102,
            "parameters alone",
            "a weight without smoothing",
            {"forward": cross_entropy_weighs_if_smoothed},
        ),
        (
            103,
            "parameters alone",
            "an ignored index without a weight",
            {"forward": cross_entropy_ignores_if_weighted},
        ),
        (
            104,
            "contents",
            "NaN for an excluded class",
            {"forward": cross_entropy_nan_of_infinite},
        ),
        (
            105,
            "numbers of rows",
            "gradients beyond 2,048 rows",
            {"backward": rows_beyond(2048)(cross_entropy_backward)},
        ),
    ),
    *of(
        {"operation": "relu", "forward": elementwise.relu},
        r"elements from 16,",
        (
            106,
            "more than 2^24 elements",
            "elements beyond 2²⁴ are not written",
            {"forward": elements(beyond_24_bits)(elementwise.relu)},
        ),
    ),
    *of(
        {"operation": "relu", "backward": relu_backward},
        r"elements from 16,",
        (
            107,
            "more than 2^24 elements",
            "an index in float32, gradient",
            {"backward": elements(wrapped_at_24_bits)(relu_backward)},
        ),
    ),
    *of(
        CROSS_ENTROPY,
        r"0 rows: raises RuntimeError",
        (108, "numbers of rows", "no row", {"forward": cross_entropy_of_some_rows}),
    ),
    *of(
        SOFTMAX,
        r"subnormal x: got nan",
        (109, "contents", "rows of subnormal numbers", {"forward": softmax_of_the_scaled}),
    ),
    *of(
        BCE_WITH_LOGITS,
        r"pos_weight with one number for each class",
        (110, "parameters by class", "pos_weight of classes", {"forward": bce_of_one_pos_weight}),
    ),
]
