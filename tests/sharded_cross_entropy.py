"""Cross entropy over sharded classes, run under torchrun by test_sharded: what every rank finds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh
from torch.distributed.tensor.parallel import loss_parallel
from torch.utils._python_dispatch import TorchDispatchMode

from losses import sharded

CLASSES = 10


def cases() -> dict[str, tuple[list[int], dict[str, Any]]]:
    """The classes on every one of three ranks, of which two take the first two; the arguments."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, CLASSES, generator=generator) * 4
    target = torch.tensor([0, 3, 4, 6, 7, 9])  # at the edges of the shards
    weight = torch.rand(CLASSES, generator=generator)
    weight[4] = 0.0
    plain = {"input": logits, "target": target}
    empty = logits.clone()
    empty[:, :4] = -torch.inf
    empty[5] = -torch.inf
    broken = logits.clone()
    broken[0, 3], broken[1, 4], broken[2, 4], broken[3, 9] = (
        torch.inf,
        torch.nan,
        torch.inf,
        torch.inf,
    )
    images = torch.randn(2, CLASSES, 3, generator=generator)
    uneven, some_empty = [4, 3, 3], [0, 10, 0]
    smooth = {"label_smoothing": 0.1}
    return {
        "uneven": (uneven, plain),
        "an empty shard": (some_empty, plain),
        "none": (uneven, {**plain, "reduction": "none"}),
        "sum": (uneven, {**plain, "reduction": "sum"}),
        "ignored": (uneven, {**plain, "ignore_index": 3}),
        "all ignored": (uneven, {**plain, "target": torch.full((6,), -100)}),
        "smoothed": (uneven, {**plain, **smooth}),
        "weighted": (uneven, {**plain, "weight": weight}),
        "everything": (uneven, {**plain, **smooth, "weight": weight, "ignore_index": 3}),
        "a shard of -inf": (uneven, {"input": empty, "target": target, "reduction": "none"}),
        "-inf, smoothed": (
            uneven,
            {"input": empty, "target": target, "reduction": "none", **smooth},
        ),
        "inf and nan": (uneven, {"input": broken, "target": target, "reduction": "none"}),
        "certain": (
            uneven,
            {"input": logits * 20, "target": logits.argmax(1), "reduction": "none"},
        ),
        "far from 0": (uneven, {"input": logits + 3e4, "target": target, **smooth}),
        "positions": (uneven, {"input": images, "target": torch.tensor([[0, 3, 4], [6, 7, 9]])}),
        "one row": (uneven, {"input": logits[0], "target": torch.tensor(4)}),
        "bfloat16": (uneven, {"input": logits.bfloat16(), "target": target, "reduction": "none"}),
        "float64": (uneven, {"input": logits.double(), "target": target, "reduction": "none"}),
    }


class Collectives(TorchDispatchMode):
    """Keeps the name of every collective and the bytes that this rank sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            tensors = [a for a in args if isinstance(a, Tensor)]
            self.sent.append((func.overloadpacket.__name__, tensors[-1].nbytes))
        return func(*args, **(kwargs or {}))


def edges(lengths: list[int]) -> tuple[int, int]:
    """Where the classes of this rank begin and end; the last rank takes all that is left."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    first = sum(lengths[:rank])
    return first, CLASSES if rank == ranks - 1 else first + lengths[rank]


def found() -> dict[str, Any]:
    """Loss, gradient and what was sent, for every case; by autograd, and without it."""
    results: dict[str, Any] = {}
    for name, (lengths, arguments) in cases().items():
        first, last = edges(lengths)
        logits, target, options = split(arguments)
        here = logits[..., first:last] if logits.dim() == 1 else logits[:, first:last]
        options |= {"first_class": first, "num_classes": CLASSES}
        leaf = here.clone().requires_grad_()
        with Collectives() as forward:
            loss = sharded.cross_entropy(leaf, target, **options)
        with Collectives() as backward:
            loss.sum().backward()
        buffer = here.clone()
        again, gradient = sharded.cross_entropy_and_gradient(buffer, target, out=buffer, **options)
        assert gradient is buffer
        results[name] = {
            "loss": loss.detach(),
            "gradient": leaf.grad,
            "agree": torch.equal(again.nan_to_num(7.0), loss.detach().nan_to_num(7.0))
            and torch.equal(gradient.nan_to_num(7.0), leaf.grad.nan_to_num(7.0)),
            "forward": forward.sent,
            "backward": backward.sent,
        }
    return results


def split(arguments: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    options = dict(arguments)
    return options.pop("input"), options.pop("target"), options


def of_dtensors() -> dict[str, Any]:
    """The same by a DTensor, and by torch's loss_parallel."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    logits, target, _ = split(cases()["uneven"][1])
    results = {}
    for name in ("ours", "torch"):
        spread: DTensor = distribute_tensor(logits, mesh, [Shard(1)]).requires_grad_()
        with loss_parallel():
            cross_entropy = (
                torch.nn.functional.cross_entropy if name == "torch" else sharded.cross_entropy
            )
            loss = cross_entropy(spread, target)
            loss.backward()
        results[name] = {"loss": loss.full_tensor().detach(), "gradient": spread.grad.full_tensor()}
    loss, gradient = sharded.cross_entropy_and_gradient(spread.detach(), target)
    results["pair"] = {"loss": loss.full_tensor(), "gradient": gradient.full_tensor()}
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {"cases": found(), "dtensor": of_dtensors()}
    torch.save(results, Path(sys.argv[1]) / f"{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # at a regular end torch may destroy a thread of gloo that still runs, and abort
