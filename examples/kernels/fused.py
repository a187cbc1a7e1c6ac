"""Our own fused kernels, in float32 arithmetic, judged like anybody's.

gradref check examples/kernels/fused.py --mode full
gradref certify --module examples/kernels/fused.py --claim 4ulp --out certificates
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from gradref.declare.operation import Operation, operations
from gradref.fusion.fused import fuse


def entry(record: Operation) -> dict[str, Any]:
    """The value and its derivative from one kernel; of rows the vector-Jacobian product."""
    kernel = fuse(record.function)
    if record.kind == "elementwise":
        return {"value_and_gradient": kernel}
    if record.kind == "loss":
        gradient_of = functools.partial(kernel, wrt=record.arguments[0])
        return {"value_and_gradient": gradient_of, "target": "either"}

    def forward(x: Tensor, dim: int = -1) -> Tensor:
        value: Tensor = kernel(x, dim=dim, grad_output=x)[0]
        return value

    def backward(grad_output: Tensor, x: Tensor, dim: int = -1) -> Tensor:
        gradient: Tensor = kernel(x, dim=dim, grad_output=grad_output)[1]
        return gradient

    return {"forward": forward, "backward": backward}


KERNELS = {record.name: entry(record) for record in operations("activations", "losses")}
