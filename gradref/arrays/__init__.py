"""The boundary: arrays of any library in, the same kind out; evaluated wide, rounded once.

A formula sees float64 tensors, one cache-sized block at a time, with the coupled dimension
(classes, or the ``dim`` of a softmax) last. Everything that makes it usable on a bfloat16 tensor,
a transposed view, a NumPy array or a Python float happens here.
"""

from gradref.arrays.blocks import BLOCK, Extent, Inputs, Layout, compute, summed, total
from gradref.arrays.boundary import (
    describe,
    enter,
    enter_out,
    has_no_values,
    is_differentiated,
    is_same_view,
    memory_range,
    overlap,
    reject,
    to_float,
)
from gradref.arrays.rounding import (
    FLOATS,
    WIDE,
    binade,
    evaluated_in,
    narrowed,
    native,
    round_once,
    widen,
)

__all__ = [
    "BLOCK",
    "FLOATS",
    "WIDE",
    "Extent",
    "Inputs",
    "Layout",
    "binade",
    "compute",
    "describe",
    "enter",
    "enter_out",
    "evaluated_in",
    "has_no_values",
    "is_differentiated",
    "is_same_view",
    "memory_range",
    "narrowed",
    "native",
    "overlap",
    "reject",
    "round_once",
    "summed",
    "to_float",
    "total",
    "widen",
]
