"""Our own fused kernels, in float32 arithmetic, judged like anybody's.

gradref check examples/kernels/fused.py --mode full
gradref certify --module examples/kernels/fused.py --claim 4ulp --out certificates
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from gradref.contenders.kernel import index_or_probability
from gradref.declare.operation import Operation
from gradref.declare.registry import operations
from gradref.fusion.fused import fuse


def entry(record: Operation) -> dict[str, Any]:
    """The value and its derivative from one kernel; of rows the vector-Jacobian product."""
    kernel = fuse(record.function)
    if record.kind == "elementwise":
        return {"value_and_gradient": kernel}
    if record.kind == "loss":
        choice = index_or_probability(record)
        gradient_of = functools.partial(kernel, wrt=record.arguments[0])
        return {"value_and_gradient": gradient_of, **({choice: "either"} if choice else {})}

    def backward(grad_output: Tensor, *arrays: Tensor, **more: Any) -> Tensor:
        gradient: Tensor = kernel(*arrays, **more, grad_output=grad_output)[1]
        return gradient

    return {"forward": fuse(record.function, "value"), "backward": backward}


KERNELS = {record.name: entry(record) for record in operations("activations", "losses")}
