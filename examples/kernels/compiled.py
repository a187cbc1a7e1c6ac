"""Formulas written by hand, as they are and through torch.compile: not the same kernel.

Run it: ``gradref check examples/kernels/compiled.py --dtype f32,bf16``. Needs a C++ compiler.

It does not pass, and compiling cuts both ways. Eager elu is right; compiled for a CPU it is not, as
inductor writes expm1(x) as exp(x) - 1, which cancels: 0 for -3e-8 < x < 0. Eager softmax rounds
every step to bfloat16, and is off by 46 ulp; compiled, x - max x is not rounded, but the
exponentials are, and it is off by 1.3 ulp.
"""

from __future__ import annotations

import torch
import torch._dynamo
from torch import Tensor

torch._dynamo.config.recompile_limit = 64  # beyond it what is compiled runs as it is


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(x))


def softmax(x: Tensor) -> Tensor:
    exps = torch.exp(x - x.amax(-1, keepdim=True))
    return exps / exps.sum(-1, keepdim=True)


KERNELS = {
    "elu": {"forward": elu},
    "elu_compiled": {"operation": "elu", "forward": torch.compile(elu, fullgraph=True)},
    "softmax": {"forward": softmax},
    "softmax_compiled": {"operation": "softmax", "forward": torch.compile(softmax, fullgraph=True)},
}
