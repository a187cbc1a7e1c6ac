"""The certificates of our own functions and fused kernels, and docs/accuracy.md from them."""

from __future__ import annotations

from pathlib import Path

import torch

from docs.tables import table
from gradref.cli import certified
from gradref.declare.operation import called
from gradref.declare.registry import operations
from gradref.judge import gates
from gradref.judge.elementwise import NEAR_ROOT, ORDERS
from gradref.sweep import archive
from gradref.sweep.certificate import OURS, Certificate
from gradref.sweep.native import SUBJECT as FUSED
from gradref.sweep.native import native_sweeps
from gradref.sweep.sweep import GENERAL, NEAR_ZERO, Sweep, sweeps

PATH = Path(__file__).parent / "accuracy.md"
CERTIFICATES = Path(__file__).parent / "certificates"

CLAIMS = {"float32": 4.0, "float16": 1.0, "bfloat16": 1.0}
"""The error bound of a fused kernel, in ulp."""

INTRODUCTION = """# Accuracy

The errors of every elementwise function and of its derivatives, at **every** input: all 2³² bit
patterns of float32 and all 65,536 of float16 and bfloat16. Made by `python docs/build.py` from the
[certificates](certificates), a file for each operation; it certifies what has changed since.

In a 16-bit format every result is *proved*: a ball of Arb at every input. In float32 the grade is
*exhaustive ±k*: the float64 value decides whether the float32 result is the nearest number, unless
a midpoint between two of them is closer than k; there, near isolated zeros of a derivative, and at
kinks and infinities, Arb or the declaration decides. k is twice the largest error of float64 that
was found against Arb at some 50,000 inputs, with hundreds of them around each of the worst: it is
measured, not proved. Errors are in ulp; 0.5 is correctly rounded.

A certificate is of one setting of the parameters, which its row names. Others, extreme ones among
them, are drawn at random by `tests/test_extreme_parameters.py`, which holds plain calls to the same
bounds and lists by name where a formula does not keep them.
"""

IN_FLOAT64 = f"{gates.OURS.claims[torch.float64]:g} ulp"
MOVED = f"{gates.BACKWARD:g} · 2⁻⁵³"
FLOAT64 = f"""## float64

A plain call in float64 is within {IN_FLOAT64}, except about an isolated zero of a derivative, where
terms cancel. Within {gates.AROUND_ROOT:.0%} of the zero it may be off by ½ ulp and what moving x by
{MOVED} x changes, if that is more. These are the largest errors, in ulp of float64, that the
certificates found of derivatives with such zeros. They grow with the inverse of the distance to the
zero, and inputs within {NEAR_ROOT:.1%} of it are not among them.
"""

NATIVE = """## Fused kernels

The same of the kernels that `gradref.fuse` compiles, which compute in float32
(`gradref certify --native`): at most 4 ulp in float32, 1 ulp in 16 bits, **for the parameters in
this table**. Others may cost any number of digits, as float32 may not hold αeˣ or eᵝˣ on the way;
`precise=True` has the bounds of plain calls. Where the terms of a first derivative cancel it is a
polynomial about its zero; a second derivative is evaluated in float64.
"""


# --- certificates --------------------------------------------------------------------------------


def wanted() -> list[Sweep]:
    """Return a sweep for every certificate that there should be."""
    ours = sweeps(operations(), tuple(CLAIMS), ("cpu",))
    return [*ours, *native_sweeps(operations(), CLAIMS, ("cpu",))]


def stale() -> list[Sweep]:
    """Return the sweeps whose certificate is missing, or of another source or bound."""
    return [sweep for sweep in wanted() if sweep.found(CERTIFICATES) is None]


def certify() -> None:
    """Remove certificates of what is no longer declared, and make those that are stale."""
    names = {sweep.name for sweep in wanted()}
    for path in CERTIFICATES.glob("*.json"):
        found = archive.read(path)
        known = [certificate for certificate in found if certificate.name in names]
        if not known:
            path.unlink()
        elif len(known) < len(found):
            archive.replace(path, known)
    todo = stale()
    if todo and certified(todo, CERTIFICATES) != 0:
        raise SystemExit("a certificate did not pass: see above")


# --- docs/accuracy.md ----------------------------------------------------------------------------


def made() -> dict[Path, str]:
    """Return the document."""
    certificates = archive.read_folder(CERTIFICATES)
    ours, fused = ([c for c in certificates if c.subject == subject] for subject in (OURS, FUSED))
    parts = [INTRODUCTION, *of_formulas(ours), "", *of_float64(ours), "", *of_kernels(fused)]
    return {PATH: "\n".join(parts) + "\n"}


def of_formulas(certificates: list[Certificate]) -> list[str]:
    """Return the summary and the float32 table of our formulas."""
    full, halves = by_width(certificates)
    rows = []
    for c in full:
        total, near = c.total, c.regions.get(NEAR_ZERO)
        rows.append(
            [
                *title(c),
                f"{c.regions[GENERAL].tally.worst:.4f}",
                f"{near.tally.worst:.4f}" if near else "",
                f"{total.incorrectly_rounded:,}",
                f"{total.by_expansion + total.by_arb:,}",
                c.grade.removeprefix("exhaustive "),
            ]
        )
    inputs = sum(c.total.inputs for c in full)
    wrong = sum(c.total.incorrectly_rounded for c in halves)
    undecided = sum(c.total.undecided for c in certificates)
    machines = sorted(
        {f"torch {c.environment['torch']}, {c.environment['cpu capability']}" for c in full}
    )
    return [
        f"{len(full)} float32 certificates over {inputs:,} inputs, {undecided} undecided; "
        f"{len(halves)} certificates of 16 bits, {wrong} results of them not correctly rounded. "
        f"Made with {', '.join(machines)}.",
        "",
        '"Not nearest" counts the inputs, of 4,294,967,296, whose result is not the nearest',
        'float32 number, by however little; "by Arb" those that float64 could not decide.',
        "",
        *table(
            ["function", "order", "worst", "near a zero", "not nearest", "by Arb", "k"],
            rows,
        ),
    ]


def of_float64(certificates: list[Certificate]) -> list[str]:
    """Return what float64 loses about the isolated zeros of derivatives."""
    in_one = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    rows = [
        [*title(c), f"{c.float64.worst * in_one:.3g}", c.float64.at]
        for c in by_width(certificates)[0]
        if c.float64 is not None and NEAR_ZERO in c.regions
    ]
    return [
        FLOAT64,
        *table(["function", "order", "worst ulp", "at"], rows),
    ]


def of_kernels(certificates: list[Certificate]) -> list[str]:
    """Return the summary and the float32 table of the fused kernels."""
    full, halves = by_width(certificates)
    worst_of_halves = max((c.total.worst for c in halves), default=0.0)
    rows = [
        [
            *title(c),
            f"{c.total.worst:.4g}",
            c.worst_inputs.get(max(c.regions, key=lambda n: c.regions[n].tally.worst), ""),
            f"{c.total.incorrectly_rounded / c.total.inputs:.1%}",
            "pass" if c.passed else "**fail**",
        ]
        for c in full
    ]
    return [
        NATIVE,
        f"{len(full)} in float32; {len(halves)} in 16 bits, the worst of them "
        f"{worst_of_halves:.4f} ulp.",
        "",
        *table(["function", "order", "worst ulp", "at", "not nearest", "within 4 ulp"], rows),
    ]


def by_width(certificates: list[Certificate]) -> tuple[list[Certificate], list[Certificate]]:
    """Return those of float32, and those of 16 bits, in the order of the tables."""
    found = sorted(
        certificates, key=lambda c: (c.operation, str(c.parameters), ORDERS.index(c.quantity))
    )
    return [c for c in found if c.dtype == "float32"], [c for c in found if c.dtype != "float32"]


def title(certificate: Certificate) -> list[str]:
    """Return the first cells of a row: the function as it is called, and the quantity."""
    function = f"`{called(certificate.operation, certificate.parameters)}`"
    return [function, certificate.quantity.replace("_", " ")]
