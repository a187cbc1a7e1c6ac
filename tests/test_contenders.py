"""The parts that a verdict on somebody's kernel is made of, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from gradref.contenders.call import Call, perform
from gradref.contenders.exhaustive import NoAnswerError, Swept, exhaustive, sweeps
from gradref.contenders.kernel import Kernel
from gradref.contenders.load import load
from gradref.contenders.memory import Guarded, MemoryLayout
from gradref.contenders.sandbox import InProcess
from gradref.judge.gates import of_kernel
from gradref.judge.verdict import Case
from gradref.runs.check import cases, check
from gradref.runs.options import Options

GATE = of_kernel(None, "standard", "torch")

# --- memory --------------------------------------------------------------------------------------

STRIDES: dict[MemoryLayout, tuple[int, int]] = {
    "contiguous": (6, 1),
    "transposed": (1, 4),
    "strided": (12, 2),
    "offset": (6, 1),
    "expanded": (0, 1),
    "broadcast": (6, 0),
    "one number": (0, 0),
    "channels last": (6, 1),
    "reversed": (6, 1),
}


@pytest.mark.parametrize("layout", get_args(MemoryLayout))
def test_an_array_lies_as_its_layout_says(layout: MemoryLayout) -> None:
    rows = torch.arange(24.0).reshape(4, 6)
    held = {
        "expanded": rows[:1].expand(4, 6),
        "broadcast": rows[:, :1].expand(4, 6),
        "one number": rows[:1, :1].expand(4, 6),
        "reversed": rows.flip(0, 1),
    }.get(layout, rows)
    laid = Guarded.of(held.contiguous() if layout != "reversed" else rows, layout).tensor
    assert torch.equal(laid, held)
    assert laid.stride() == STRIDES[layout]
    assert (laid.storage_offset() % 16 != 0) == (layout == "offset")


@pytest.mark.parametrize("layout", get_args(MemoryLayout))
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (0, 3), (2, 5, 2, 2)])
def test_every_shape_has_every_layout(layout: MemoryLayout, shape: tuple[int, ...]) -> None:
    laid = Guarded.of(torch.full(shape, 2.0), layout).tensor
    assert laid.shape == shape
    assert bool((laid == 2).all())
    if layout == "channels last" and len(shape) == 4:
        assert laid.is_contiguous(memory_format=torch.channels_last)
    if layout == "expanded" and shape == (5,):
        assert laid.stride() == (0,)


@pytest.mark.parametrize("number", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_what_is_written_beside_an_array_is_seen(number: torch.dtype) -> None:
    for at in (63, 69, 70):
        guarded = Guarded.of(torch.ones(6, dtype=number), "contiguous")
        guarded.tensor.fill_(3)
        assert guarded.changed(but_inside=False)
        assert not guarded.changed(but_inside=True)
        guarded.buffer[at] = 7
        assert guarded.changed(but_inside=True) == (at != 69)


# --- calls ---------------------------------------------------------------------------------------


def called(function: Callable[[Tensor], Tensor], *contents: Tensor) -> Any:
    kernel = Kernel.of("relu", {"forward": function})
    *earlier, x = contents
    return perform(kernel, Call("relu", "forward", (x,), earlier=tuple(earlier)))


def test_an_earlier_result_is_stale_if_it_says_anything() -> None:
    kept: list[Tensor] = []

    def first(x: Tensor) -> Tensor:
        kept.append(x.clone())
        return kept[0].clone()

    assert called(first, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])).stale
    assert not called(torch.zeros_like, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])).stale
    assert not called(torch.ones_like, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])).stale


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: torch.manual_seed(3), "the random numbers"),
        (lambda: torch.set_default_dtype(torch.float64), "the default dtype"),
        (lambda: torch.set_grad_enabled(False), "whether gradients are computed"),
    ],
)
def test_what_a_call_changes_of_torch_is_named(change: Callable[[], Any], named: str) -> None:
    def relu(x: Tensor) -> Tensor:
        change()
        return x.clone()

    before = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        assert called(relu, torch.ones(3)).changed == (named,)
    finally:
        torch.set_default_dtype(before[0])
        torch.set_grad_enabled(before[1])


def test_an_exception_is_placed_in_its_file() -> None:
    def relu(x: Tensor) -> Tensor:
        raise ValueError("wants rows")

    line = relu.__code__.co_firstlineno + 1
    said = called(relu, torch.ones(3)).problem
    where = f"{Path(__file__).name}:{line}"
    assert said == f"raises ValueError: wants rows ({where}), called with x float32 (3,)"
    assert (
        "dimensions., called with x float32 (3,)" in called(torch.linalg.inv, torch.ones(3)).problem
    )


# --- declarations --------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "is_one"), [(0, False), (1, True), (8, True), (9, False)])
def test_ranks_are_1_to_8(rank: int, is_one: bool) -> None:
    entry = {"forward": torch.relu, "ranks": [rank]}
    if is_one:
        assert Kernel.of("relu", entry).contract.ranks == (rank,)
        return
    with pytest.raises(ValueError, match=r"KERNELS\['relu'\]\['ranks'\]: got .*, wants a list of"):
        Kernel.of("relu", entry)


def test_names_of_kernels_are_strings(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text("import torch\nKERNELS = {1: {'operation': 'relu', 'forward': torch.relu}}\n")
    with pytest.raises(TypeError, match="KERNELS: got the key 1, wants names of kernels"):
        load(str(path), None)


# --- every float32 input -------------------------------------------------------------------------


def swept(entry: dict[str, Any]) -> tuple[Kernel, Case, InProcess]:
    kernel = Kernel.of("relu", {"operation": "relu", **entry})
    return kernel, Case("relu", {}, "float32", "cpu"), InProcess([kernel])


def test_results_of_another_dtype_are_not_certified() -> None:
    kernel, case, host = swept({"forward": torch.relu, "result_dtype": "bfloat16"})
    (verdict,) = exhaustive(kernel, case, host, GATE)
    assert verdict.status == "unsupported"
    assert "another dtype" in verdict.words[0]


def test_a_sweep_ends_where_a_kernel_gives_nothing() -> None:
    def relu(x: Tensor) -> Tensor:
        raise RuntimeError("out of registers")

    kernel, case, host = swept({"forward": relu})
    (sweep,) = sweeps(kernel, case, host, GATE)
    assert isinstance(sweep.candidate, Swept)
    with pytest.raises(NoAnswerError, match="raises RuntimeError: out of registers"):
        sweep.candidate(torch.ones(3))


# --- words ---------------------------------------------------------------------------------------


def summed(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    loss = (input.double() - target.double()).square()
    return (loss if reduction == "none" else loss.sum()).to(input.dtype)


NAMED: dict[str, dict[str, Any]] = {
    "the reduction is 'sum', not 'mean'": {"operation": "mse_loss", "forward": summed},
    "returns the value": {"operation": "sigmoid", "derivative": torch.sigmoid},
    "these are the results of tanh": {"operation": "sigmoid", "forward": torch.tanh},
    "x is taken for grad_output, and grad_output for x": {
        "operation": "tanh",
        "backward": lambda x, g: (g.double() / x.double().cosh().square()).to(x.dtype),
    },
    "grad_output is ignored": {
        "operation": "tanh",
        "backward": lambda g, x: 1 / x.double().cosh().square().to(x.dtype),
    },
}


@pytest.mark.parametrize("words", NAMED)
def test_a_known_mistake_is_named(words: str) -> None:
    kernel = Kernel.of("kernel", NAMED[words])
    options = Options("quick", 0, conditions=())
    found = [
        said
        for _, case in cases([kernel], ["float32"], "cpu")
        for verdict in check(kernel, case, InProcess([kernel]), options)
        for said in verdict.words
    ]
    assert words in found
