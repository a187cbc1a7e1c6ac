"""Time training steps: fused kernels under autograd beside torch's functions, eager and compiled.

    python benchmarks/training.py benchmarks/results/training.json

A step is forward and backward: of a function alone, on 2^22 elements, of a small MLP, and of the
head of a language model. What a step keeps for its backward is counted in bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import activations
import gradref
import losses
from gradref.bench.contest import contest, ratios
from gradref.environment import compiler, environment

OURS, EAGER, COMPILED = "as_autograd(fuse(f))", "torch", "torch.compile"
ROUNDS = 21
SIZE = 1 << 22

Step = Callable[[], Any]


def of_function(ours: Any, theirs: Any) -> dict[str, Step]:
    """Return the step of an elementwise function alone."""
    x, g = torch.randn(SIZE), torch.randn(SIZE)

    def step(f: Any) -> Step:
        return lambda: f(x.detach().requires_grad_()).backward(g)

    return _contenders(step, ours, theirs)


def of_loss(ours: Any, theirs: Any, rows: int, classes: int) -> dict[str, Step]:
    """Return the step of a loss of logits alone."""
    x, target = torch.randn(rows, classes), torch.randint(classes, (rows,))

    def step(f: Any) -> Step:
        return lambda: f(x.detach().requires_grad_(), target).backward()

    return _contenders(step, ours, theirs)


def of_mlp(ours: Any, theirs: Any) -> dict[str, Step]:
    """Return the step of three layers of 512, on 2,048 rows."""
    layers = [nn.Linear(512, 512) for _ in range(3)]
    x, y = torch.randn(2048, 512), torch.randn(2048, 512)

    def step(f: Any) -> Step:
        def run() -> None:
            h = x
            for layer in layers:
                h = f(layer(h))
            F.mse_loss(h, y).backward()  # type: ignore[no-untyped-call]  # torch's is untyped

        return run

    return _contenders(step, ours, theirs)


def of_head(ours: Any, theirs: Any) -> dict[str, Step]:
    """Return the step of 512 rows of 256 numbers, and the cross entropy of 32,000 classes."""
    head, x = nn.Linear(256, 32_000), torch.randn(512, 256)
    target = torch.randint(32_000, (512,))

    def step(f: Any) -> Step:
        return lambda: f(head(x), target).backward()

    return _contenders(step, ours, theirs)


def _contenders(step: Callable[[Any], Step], ours: Any, theirs: Any) -> dict[str, Step]:
    fused = gradref.as_autograd(gradref.fuse(ours))
    compiled = torch.compile(theirs)
    return {OURS: step(fused), EAGER: step(theirs), COMPILED: step(compiled)}


def kept(step: Step) -> int:
    """Return how many bytes a step keeps for its backward, parameters left out."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(storages.values())


STEPS: dict[str, Callable[[], dict[str, Step]]] = {
    "silu, 2²² elements": lambda: of_function(activations.silu, F.silu),
    "gelu, 2²² elements": lambda: of_function(activations.gelu, F.gelu),
    "tanh, 2²² elements": lambda: of_function(activations.tanh, torch.tanh),
    "softplus, 2²² elements": lambda: of_function(activations.softplus, F.softplus),
    "cross_entropy, 131 rows of 32,000": lambda: of_loss(
        losses.cross_entropy, F.cross_entropy, 131, 32_000
    ),
    "MLP of 3 × 512 with gelu, 2,048 rows": lambda: of_mlp(activations.gelu, F.gelu),
    "language-model head, 512 × 256 to 32,000": lambda: of_head(
        losses.cross_entropy, F.cross_entropy
    ),
}


def main(out: Path) -> None:
    """Time every step, and write the raw results."""
    torch.manual_seed(0)
    found = []
    for name, make in STEPS.items():
        steps = make()
        for step in steps.values():
            for _ in range(3):  # what is compiled is, and buffers are there
                step()
        times = contest(steps, ROUNDS, "cpu")
        bytes_kept = {who: kept(step) for who, step in steps.items()}
        found.append({"step": name, "seconds": times, "kept": bytes_kept})
        shown = {who: f"{r.median:.2f}" for who, r in ratios(times, OURS).items()}
        print(name, shown, bytes_kept, flush=True)
    about = {**environment(), "c++ compiler": compiler(), "threads": torch.get_num_threads()}
    out.write_text(json.dumps({"environment": about, "steps": found}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
