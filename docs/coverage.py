"""docs/coverage.md: every activation and loss of torch.nn.functional, and what is known of ours."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import torch.nn.functional as F

from docs.tables import table
from gradref.declare.operation import Operation
from gradref.declare.registry import every_operation
from gradref.report.summary import FROM_OUTPUT, ORDERS, Line, lines
from gradref.report.text import ulp
from gradref.runs.run import Run

PATH = Path(__file__).parent / "coverage.md"

OTHER = {
    "attention, convolution and matrix products": (
        *("bilinear", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d"),
        *("conv_transpose2d", "conv_transpose3d", "grouped_mm", "linear"),
        *("multi_head_attention_forward", "scaled_dot_product_attention", "scaled_grouped_mm"),
        "scaled_mm",
    ),
    "dropout, which draws at random": (
        *("alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d"),
        "feature_alpha_dropout",
    ),
    "normalization over a batch, or over groups of channels": (
        *("batch_norm", "group_norm", "instance_norm", "local_response_norm"),
    ),
    "pooling": (
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
        *("adaptive_max_pool1d", "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d"),
        *("adaptive_max_pool2d_with_indices", "adaptive_max_pool3d"),
        *("adaptive_max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
        *("fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d"),
        *("fractional_max_pool3d_with_indices", "lp_pool1d", "lp_pool2d", "lp_pool3d"),
        *("max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices"),
        *("max_pool3d", "max_pool3d_with_indices", "max_unpool1d", "max_unpool2d", "max_unpool3d"),
    ),
    "shapes, images and indices": (
        *("affine_grid", "channel_shuffle", "embedding", "embedding_bag", "fold", "grid_sample"),
        *("interpolate", "native_channel_shuffle", "one_hot", "pad", "pdist", "pixel_shuffle"),
        *("pixel_unshuffle", "unfold", "upsample", "upsample_bilinear", "upsample_nearest"),
    ),
    "torch's own machinery": (
        *("assert_int_or_pair", "boolean_dispatch", "handle_torch_function"),
        *("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"),
    ),
}
"""The names of torch.nn.functional that are neither an activation nor a loss, by what they are."""

HEAD = """\
# Coverage

Every activation and loss of `torch.nn.functional`, then what `torch`, kernel libraries and the
literature have besides. Errors are the largest of f, f′ and f″ in float32, in ulp, at every input
that `gradref verify` asks about; "none" where torch has no such derivative, and Arb is the only
witness. float64, float16 and bfloat16 are in [verdicts.md](verdicts.md), and certificates for every
float32 input in [accuracy.md](accuracy.md). Written by `docs/build.py`.
"""

COLUMNS = ("function", "arguments", "derivatives", "grade", "ours: f, f′, f″", "torch's: f, f′, f″")


def of_torch() -> list[str]:
    """Return the names of torch.nn.functional that are an activation or a loss."""
    public = {n: f for n, f in vars(F).items() if not n.startswith("_") and callable(f)}
    others = {name for names in OTHER.values() for name in names}
    in_place = {name for name in public if name.endswith("_") and name[:-1] in public}
    functions = {name for name, f in public.items() if not inspect.isclass(f)}
    return sorted(functions - others - in_place - {"Optional"})


def missing() -> list[str]:
    """Return those that are not ours."""
    return [name for name in of_torch() if name not in _records()]


def _records() -> dict[str, Operation]:
    return {record.name: record for record in every_operation()}


def document(run: Run) -> str:
    """Return the page for a run of ``gradref verify``."""
    records = _records()
    named = of_torch()
    sections = {
        "torch.nn.functional": [name for name in named if name in records],
        "Besides": sorted(records.keys() - set(named)),
    }
    found = [line for line in lines(run.verdicts) if line.region != FROM_OUTPUT]
    text = [HEAD]
    for title, names in sections.items():
        text += [f"## {title}", "", f"{len(names)} functions.", ""]
        text += [*table(COLUMNS, (_row(records[name], found) for name in names)), ""]
    return "\n".join(text)


def _row(record: Operation, found: list[Line]) -> list[str]:
    of_it = [line for line in found if line.operation == record.name and line.dtype == "float32"]
    derivatives = [f"`{role}`" for role in record.derivatives]
    return [
        f"`{record.name}`",
        ", ".join(f"`{name}`" for name in record.signature.parameters),
        ", ".join(derivatives),
        of_it[0].grade.split()[0] if of_it else "not judged",
        ", ".join(_errors(of_it, "ours")),
        ", ".join(_errors(of_it, "theirs")),
    ]


def _errors(found: list[Line], whose: str) -> Iterator[str]:
    """Yield the largest error of f, f′ and f″ of one of both."""
    for order in ORDERS:
        errors = [getattr(line, whose) for line in found if line.order == order]
        known = [error for error in errors if error is not None]
        yield ulp(max(known)) if known else "none"
