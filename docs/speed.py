"""docs/speed.md and its curves, from what ``gradref bench --out benchmarks/results/...`` wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from docs.tables import table
from gradref.bench.contest import ratios
from gradref.bench.results import Result, latest, read
from gradref.bench.subjects import (
    BOUND,
    COMPILED,
    EAGER,
    FORMULAS,
    FRESH,
    OURS,
    PLAIN,
    STANDARD,
    TORCH_VALUE,
    VALUE,
)
from gradref.report.drawing import Axis, Series, chart
from gradref.report.page import Figure

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"

TARGETS: dict[str, tuple[float, float, float, float]] = {
    "sigmoid": (7, 3, 4, 0.8),
    "tanh": (7, 3, 4, 0.8),
    "silu": (7, 3, 4, 0.8),
    "gelu": (6, 2, 3, 0.6),
    "softmax": (5, 2, 3, 0.8),
    "cross_entropy": (10, 3, 5, 0.6),
    "mse_loss": (8, 4, 5, 0.85),
}
"""At 2^24 float32 elements: against autograd, the same with huge pages, against compiled autograd,
share of the bound."""

GROWTH = ("sigmoid", "mse_loss")
CURVES = {"fused": OURS, EAGER: EAGER, BOUND: BOUND}
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LARGE = 16_000_000
SMALL = 1 << 14
"""Elements in 64 KiB of float32."""

Entry = tuple[dict[str, Any], Result]

HEAD = """\
# Speed

Written by `docs/build.py` from `benchmarks/results`; `gradref bench` measures. Value and derivative
by one fused kernel, into buffers that are given; for softmax the value and the vector-Jacobian
product, for a loss the value and the gradient. Every number is the median, over paired rounds in
random order in one process, of the ratio of two times, with the larger half of a bootstrap interval
of 95 %. Contenders have to agree on the results before they are timed.

- **autograd**: torch's function, forward and backward, its time as a multiple of ours; **compiled
  autograd**: the same under torch.compile.
- **fused**: our kernel into fresh memory. **plain, out=**: the plain calls, which evaluate in
  float64 and round once.
- **of bound**: the time of a kernel with the same reads and writes and next to no arithmetic, as a
  share of ours: 1 is the speed of memory.

`linear_cross_entropy`, of 256 features, gives the loss and the gradients by both matrices into
fresh memory. It has no bound of memory: products of matrices take its time.

The machines are shared: the share of the bound and all ratios move with what the neighbours do to
the memory. Nothing has been measured on a GPU, nor against Liger, which needs one; there
`gradref bench --device cuda --peers benchmarks/peers.py` also times a Triton kernel of our own
(`benchmarks/triton_rows.py`).
"""


WHY = """\
What keeps the kernels below the bound, from timing parts of the generated code:

- `cross_entropy`, `softmax`: three loops over a row in the cache, for the maximum, the sums and the
  result. The second computes the exponentials, and meanwhile the next row is fetched; what is left
  is their arithmetic.
- `gelu` computes its tail, and a polynomial for where its derivative crosses 0, everywhere, and
  selects: more arithmetic than fast memory waits for.
- Where memory is fast, arithmetic counts for more: the share of the bound is then smaller, and the
  ratio to autograd, whose time is fresh memory, larger or smaller with what that costs.
- The first calls with arrays of a form, and all calls with NumPy's, go through our checks and
  dynamo's guards, which take longer than all of autograd does for a small array. What is timed
  comes later.
"""


PLAIN_CALLS = """\
## The plain call

It evaluates in float64, one block that stays in the cache after the other, each operation of a
formula by torch. The aims are twice autograd's time, and for arrays up to 64 KiB not more than it
takes. "Unchecked" is what no plain call can be faster than: every block converted to float64, put
into the formula and rounded into the result, in a bare loop. Where that is beyond the aim, what the
formulas spend on their digits rules the aim out, and what is fast is a fused kernel.
"""


def row(result: Result) -> str:
    """The results of one subject."""
    ratios = result.ratios

    def times(name: str) -> str:
        ratio = ratios.get(name)
        return "not measured" if ratio is None else f"{ratio.median:.2f} ± {ratio.margin:.2f}"

    cells = [
        f"`{result.operation}`",
        result.dtype,
        shape(result),
        *(times(name) for name in (EAGER, COMPILED, FRESH, PLAIN)),
        f"{ratios[BOUND].median:.2f}" if BOUND in ratios else "none",
        f"{result.compile_seconds:.1f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def aims(entries: list[Entry]) -> list[str]:
    """What was aimed at, and what came out."""
    large = {
        (about["huge pages"], r.operation): r
        for about, r in entries
        if r.dtype == "float32" and LARGE <= elements(r) < 2 * LARGE
    }
    lines = [
        f"| operation | {EAGER} | {EAGER}, huge pages for both | {COMPILED} | of bound |",
        "|---|---|---|---|---|",
    ]
    for name, wanted in sorted(TARGETS.items()):
        plain, huge = large.get((False, name)), large.get((True, name))
        asked = ((plain, EAGER), (huge, EAGER), (plain, COMPILED), (plain, BOUND))
        cells = [reached(result, n, aim) for (result, n), aim in zip(asked, wanted, strict=True)]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def reached(result: Result | None, name: str, aim: float) -> str:
    """A result beside its aim; where not even the bound reaches that, what the bound does."""
    if result is None or name not in result.ratios:
        return f"not measured (≥ {aim:g})"
    ratio, at_most = result.ratios[name], ratios(result.seconds, BOUND)[name].median
    got = f"{ratio.median:.2f} ± {ratio.margin:.2f}"
    if ratio.median >= aim:
        return f"{got} (≥ {aim:g})"
    if at_most < aim:
        return f"{got} (≥ {aim:g}; the bound itself {at_most:.2f})"
    return f"{got} (≥ {aim:g}, **not reached**)"


def elements(result: Result) -> int:
    """How many numbers the first argument has."""
    return math.prod(result.shape)


def ordinary(entries: list[Entry]) -> list[Result]:
    """The float32 results without huge pages."""
    return [r for about, r in entries if r.dtype == "float32" and not about["huge pages"]]


def largest(entries: list[Entry]) -> list[Result]:
    """The largest float32 result of every operation."""
    results = [r for r in ordinary(entries) if elements(r) < 2 * LARGE]
    found = {r.operation: r for r in sorted(results, key=elements)}
    return [found[name] for name in sorted(found)]


def others(entries: list[Entry]) -> list[str]:
    """Who else has it, as multiples of ours."""
    results = largest(entries)
    ours = (*STANDARD, VALUE, TORCH_VALUE)
    names = sorted({n for r in results for n in r.seconds if n not in ours})
    lines = [f"| operation | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for result in results:
        ratios = result.ratios
        cells = [f"{ratios[n].median:.2f}" if n in ratios else "-" for n in names]
        if set(names) & set(ratios):
            lines.append(f"| `{result.operation}` | {' | '.join(cells)} |")
    return lines


def memory(entries: list[Entry]) -> list[str]:
    """The memory that a call takes at its peak, as a multiple of its results."""
    names = (OURS, PLAIN, FRESH, EAGER, COMPILED)
    lines = [f"| operation | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for result in largest(entries):
        whole = elements(result) * 4 * (1 if result.results[1] == "gradient" else 2)
        taken = result.peak_bytes
        cells = [f"{taken[n] / whole:.2f}" if taken.get(n) is not None else "-" for n in names]
        if FRESH in taken:  # a loss of a batch has no buffers to write into
            lines.append(f"| `{result.operation}` | {' | '.join(cells)} |")
    return lines


def plain(entries: list[Entry]) -> list[str]:
    """The plain calls, and what they would take without a check, as multiples of autograd."""
    lines = [
        "| operation | shape | plain, of autograd | unchecked, of autograd | aim |",
        "|---|---|---|---|---|",
    ]
    for result in ordinary(entries):
        small = elements(result) <= SMALL
        large = LARGE <= elements(result) < 2 * LARGE
        if FORMULAS in result.seconds and (small or large):
            of_autograd = ratios(result.seconds, EAGER)
            got, bound = of_autograd[PLAIN].median, of_autograd[FORMULAS].median
            aim = 1 if small else 2
            state = "reached" if got <= aim else "ruled out" if bound > aim else "**not reached**"
            lines.append(
                f"| `{result.operation}` | {shape(result)} | {got:.2f} | {bound:.2f} "
                f"| ≤ {aim}: {state} |"
            )
    return lines


def values(entries: list[Entry]) -> list[str]:
    """The value alone against torch's, both into a buffer."""
    lines = ["| operation | shape | torch's time, as a multiple of ours |", "|---|---|---|"]
    for result in ordinary(entries):
        if VALUE in result.seconds:
            ratio = ratios(result.seconds, VALUE)[TORCH_VALUE]
            cells = (shape(result), f"{ratio.median:.2f} ± {ratio.margin:.2f}")
            lines.append(f"| `{result.operation}` | {' | '.join(cells)} |")
    return lines


def shape(result: Result) -> str:
    """The shape of the first argument."""
    return " × ".join(f"{n:,}" for n in result.shape)


def growth(entries: list[Entry]) -> list[str]:
    """The time of an element, by size."""
    lines = ["| operation | elements | ns an element, fused | autograd, as a multiple |"]
    lines.append("|---|---|---|---|")
    for operation in GROWTH:
        for result in grown(entries, operation):
            each = float(np.median(result.seconds[OURS])) / elements(result) * 1e9
            cells = (f"{elements(result):,}", f"{each:.2f}", f"{result.ratios[EAGER].median:.2f}")
            lines.append(f"| `{operation}` | {' | '.join(cells)} |")
    return lines


def curves(entries: list[Entry]) -> dict[str, Figure]:
    """The time of an element over their number, on scales of powers, by the names of the files."""
    sizes = Axis(9.5, 27.5, [(n, f"2{str(n).translate(SUPERSCRIPTS)}") for n in range(10, 28, 4)])
    times = Axis(-1.5, 2.5, [(power, f"{10.0**power:g}") for power in range(-1, 3)])
    found = {}
    for operation in GROWTH:
        results = grown(entries, operation)
        counts = np.array([elements(result) for result in results], dtype=float)
        lines = []
        for name, who in CURVES.items():
            medians = np.array([np.median(result.seconds[who]) for result in results])
            lines.append(Series(name, np.log2(counts), np.log10(medians / counts * 1e9)))
        caption = f"{operation}: nanoseconds an element, by the number of elements"
        heading = f"{operation}, ns an element"
        picture = chart(lines, sizes, times, heading, caption, alone=True)
        found[f"growth/{operation}.svg"] = Figure(caption, picture)
    return found


def grown(entries: list[Entry], operation: str) -> list[Result]:
    """The float32 results of an operation, by size."""
    return sorted((r for r in ordinary(entries) if r.operation == operation), key=elements)


def training() -> list[str]:
    """Return the table of training steps, from what benchmarks/training.py wrote."""
    content = json.loads((RESULTS / "training.json").read_text())
    rows = []
    for step in content["steps"]:
        ours, *others = step["seconds"]
        found, kept = ratios(step["seconds"], ours), step["kept"]
        beside = [f"{found[who].median:.2f} ± {found[who].margin:.2f}" for who in others]
        rows.append([step["step"], *beside, *(f"{kept[who] / kept[ours]:.3f}" for who in others)])
    names = list(content["steps"][0]["seconds"])[1:]
    header = ["step", *(f"{who}: time" for who in names), *(f"{who}: kept" for who in names)]
    return table(header, rows)


TRAINING = """\
## A training step

Forward and backward with `gradref.as_autograd(gradref.fuse(f))`: time of torch's function, and of
it compiled, as a multiple of ours, and the bytes that are kept for the backward, parameters left
out. A factor above 1 says that ours is faster. At 2²² elements torch's eager `silu` and `gelu` run
at the speed of memory: they touch five arrays in a step, and ours six, as it writes the derivative
that backward reads in place of the argument. `benchmarks/training.py` measures it.
"""


def document(entries: list[Entry]) -> str:
    """The whole of it."""
    machines = {
        f"torch {a['torch']}, {a['cpu capability']}, {a['threads']} threads, {a['when'][:10]}"
        for a, _ in entries
    }
    return "\n".join(
        [
            HEAD,
            f"Measured with {'; '.join(sorted(machines)) or 'nothing yet'}.",
            "",
            "## Aims, at 2²⁴ elements in float32",
            "",
            "Where the memory is too slow for an aim, the ratio of the bound stands beside it:",
            "that of a kernel without arithmetic.",
            "",
            *aims(entries),
            "",
            WHY,
            "## Others, as multiples of the fused kernel",
            "",
            "The textbook as people write it (`benchmarks/peers.py`), eager in torch and NumPy,",
            "compiled in JAX.",
            "",
            *others(entries),
            "",
            PLAIN_CALLS,
            *plain(entries),
            "",
            TRAINING,
            *training(),
            "",
            "## The value alone",
            "",
            "Of functions that torch, too, computes into a given buffer.",
            "",
            *values(entries),
            "",
            "## Memory, as a multiple of the results",
            "",
            "What a call takes at its peak beyond what was there, its results included where it",
            "makes them; 0 is a call into given buffers that takes nothing.",
            "",
            *memory(entries),
            "",
            "## Growth",
            "",
            *(
                f'<img src="{name}" alt="{figure.caption}" width="49%">'
                for name, figure in curves(entries).items()
            ),
            "",
            *growth(entries),
            "",
            "## Everything",
            "",
            f"| operation | dtype | shape | {EAGER} | {COMPILED} | {FRESH} | {PLAIN} | of bound "
            "| compiled in |",
            "|---|---|---|---|---|---|---|---|---|",
            *(row(result) for about, result in entries if not about["huge pages"]),
            "",
        ]
    )


def measured() -> list[Entry]:
    """The latest result of every subject."""
    return latest(e for path in sorted(RESULTS.glob("*.jsonl")) for e in read(path))


def made() -> dict[Path, str]:
    """Return the text and the curves."""
    entries = measured()
    pictures = {DOCS / name: f"{figure.drawing}\n" for name, figure in curves(entries).items()}
    return {DOCS / "speed.md": document(entries), **pictures}
