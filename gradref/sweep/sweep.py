"""The sweep of one quantity over every input, by one process or shared between many."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gradref.arrays import WIDE, round_once
from gradref.declare.operation import Facts, Operation
from gradref.environment import environment
from gradref.formula import float32
from gradref.judge import gates
from gradref.judge.elementwise import NEAR_ROOT, ORDERS
from gradref.judge.inputs import elementwise_inputs
from gradref.judge.ulp import distance, spacing, to_floats
from gradref.judge.verdict import number
from gradref.sweep import archive, chunks
from gradref.sweep.certificate import OURS, Certificate, Float64Error, Region, unique_name
from gradref.sweep.chunks import BEYOND_FLOAT32, Pass, compiled
from gradref.sweep.digest import source_digest
from gradref.sweep.journal import Chunk, Journal
from gradref.sweep.settle import Settler
from gradref.sweep.tally import Tally
from gradref.truth.jets import jets

NEAR_BOUND = 1.0
"""The error bound for float32 near an isolated root of a derivative, in ulp."""

GENERAL, NEAR_ZERO = "everywhere else", "near an isolated zero"

USABLE = 2.0**-10
"""The largest error of float64, in ulp of float32, with which a sweep is worth while."""

SAMPLE = 40_000
AROUND = 400
"""Inputs at which float64 is compared with Arb: over the whole range, and around each of the
worst."""


@dataclass(frozen=True)
class Sweep:
    """One quantity to certify: f, f′ or f″ of an operation, ours or that of a ``candidate``.

    A candidate is a function of a tensor in the dtype. Ours is judged by its float64 formula, and
    by the public function where float64 cannot decide. ``claim`` replaces the bound in ulp.
    """

    record: Operation
    case: Mapping[str, Any]
    quantity: str
    dtype: str
    device: str
    subject: str = OURS
    candidate: Callable[[Tensor], Tensor] | None = None
    claim: float | None = None
    chunk_count: int = chunks.COUNT
    chunk_size: int = chunks.SIZE

    @property
    def name(self) -> str:
        """Return the name of the certificate and of the journals."""
        return unique_name(
            self.subject, self.record.name, self.case, self.quantity, self.dtype, self.device
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """Return every parameter of the operation."""
        return {**self.record.parameters, **self.case}

    @property
    def torch_dtype(self) -> torch.dtype:
        """Return the dtype as an object of torch."""
        return getattr(torch, self.dtype)  # type: ignore[no-any-return]  # a dtype by its name

    @property
    def order(self) -> int:
        """Return the order of the derivative that the quantity is."""
        return ORDERS.index(self.quantity)

    @cached_property
    def facts(self) -> Facts:
        """Return the facts declared for these parameters."""
        assert self.record.facts is not None  # an elementwise operation has facts
        return self.record.facts.at(**self.parameters)

    @property
    def declared(self) -> Callable[..., Any]:
        """Return our function for the quantity."""
        if self.order == 0:
            return self.record.function
        return self.record.derivatives[self.quantity]

    @property
    def formula(self) -> Callable[[Tensor], Tensor]:
        """Return our formula for the quantity, a function of float64 tensors."""
        return partial(inspect.unwrap(self.declared), **self.parameters)

    def evaluate(self, x: Tensor) -> Tensor:
        """Return the results that are judged."""
        if self.candidate is not None:
            return self.candidate(x)
        result: Tensor = self.declared(x, **self.parameters)
        return result

    @cached_property
    def near(self) -> list[tuple[float, float]]:
        """Return the intervals around isolated zeros of a derivative: there only Arb decides."""
        if self.dtype != "float32":
            return []
        roots = self.facts.roots.get(self.order, [])
        return [(r - NEAR_ROOT * abs(r), r + NEAR_ROOT * abs(r)) for r in roots]

    @property
    def bounds(self) -> dict[str, float]:
        """Return the error bound of each region, in ulp."""
        general = gates.OURS.claims[self.torch_dtype] if self.claim is None else self.claim
        bounds = {GENERAL: general}
        if self.near:
            bounds[NEAR_ZERO] = max(general, NEAR_BOUND)
        return bounds

    @cached_property
    def settler(self) -> Settler:
        """Return what decides where float64 cannot."""
        return Settler(self.record.truth, self.order, self.torch_dtype, self.facts, self.parameters)

    @cached_property
    def source(self) -> str:
        """Return the digest of what is judged: ours is a float64 formula, rounded once."""
        if self.candidate is not None:
            return source_digest(self.candidate)
        return _formula_digest(self.declared)

    @property
    def environment(self) -> dict[str, str]:
        """Return what the result depends on besides the code of the subject."""
        return environment()

    def found(self, folder: Path) -> Certificate | None:
        """Return the certificate in a folder; None unless it has this source and these bounds."""
        for found in archive.read(archive.path_of(folder, self.record.name)):
            if found.name == self.name:
                same = found.source == self.source and found.bounds == self.bounds
                return found if same else None
        return None

    def certified(self, folder: Path) -> Certificate | None:
        """Return the certificate in a folder; None unless it also has this environment."""
        found = self.found(folder)
        return found if found is not None and found.environment == self.environment else None

    def run(self, folder: Path, on_chunk: Callable[[int, int], None]) -> Certificate:
        """Sweep the chunks that no journal holds, and write the certificate of all.

        ``on_chunk`` is called with the number of chunks done and the number of all.
        """
        rank, world = rank_and_world()
        if self.dtype != "float32":
            certificate = self._certificate(None, self._settle_all())
            if rank == 0:
                archive.write(folder, certificate)
            return certificate
        float64 = float64_error(self)
        comparison = self.comparison(float64.margin)
        journal = Journal(folder, self.name, self._key(float64), rank)
        done = _shared(journal.read())
        todo = [chunk for chunk in range(self.chunk_count) if chunk not in done][rank::world]
        on_chunk(len(done), self.chunk_count)
        mine: dict[int, Chunk] = {}
        for count, chunk in enumerate(todo, start=1):
            mine[chunk] = self._sweep(comparison, chunk)
            journal.append(chunk, mine[chunk])
            on_chunk(min(len(done) + count * world, self.chunk_count), self.chunk_count)
        done = {**done, **_shared(mine)}
        totals = {name: Tally() for name in self.bounds}
        for chunk in sorted(done):
            for name, tally in done[chunk].items():
                totals[name] += tally
        certificate = self._certificate(float64, totals)
        if rank == 0:
            archive.write(folder, certificate)
            journal.remove()
        return certificate

    def slice(self, margin: float, chunk: int) -> Chunk:
        """Return the tallies of one chunk, if float64 is off by at most ``margin`` ulp."""
        return self._sweep(self.comparison(margin), chunk)

    def comparison(self, margin: float) -> Pass:
        """Return the comparison with float64, if that is off by at most ``margin`` ulp."""
        listed = list(self.facts.kinks)
        exact = self.settler.exact if self.candidate is None else []
        return Pass(self.formula, margin, self.near, listed, exact, self.device)

    def _key(self, float64: Float64Error) -> str:
        """Return a digest of everything that the result of a chunk depends on."""
        about = (self.name, self.source, self.chunk_size, self.bounds)
        parts = (about, asdict(float64), self.environment)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _sweep(self, comparison: Pass, chunk: int) -> Chunk:
        """Return the tallies of one chunk: float64 decides what it can, Arb the rest."""
        size = self.chunk_size
        got = None if self.candidate is None else self.candidate(comparison.inputs(chunk, size))
        undecided, decided = comparison.run(chunk, got, size)
        open_x = comparison.inputs_at(chunk, undecided)
        open_got = self.evaluate(open_x) if got is None else got[undecided]
        points = to_floats(open_x)
        bits = _bits(open_x)
        settled = self.settler.settle(points, to_floats(open_got))
        near = np.zeros(len(points), dtype=bool)
        for low, high in self.near:
            near |= (points >= low) & (points <= high)
        general = Tally.of(
            settled.ulp,
            to_floats(open_got),
            settled.truth,
            bits,
            ~near,
            by_expansion=settled.by_expansion,
            by_arb=settled.by_arb - int(near.sum()),
        )
        tallies = {GENERAL: decided + general}
        if self.near:
            tallies[NEAR_ZERO] = Tally.of(
                settled.ulp,
                to_floats(open_got),
                settled.truth,
                bits,
                near,
                by_arb=int(near.sum()),
            )
        return tallies

    def _settle_all(self) -> Chunk:
        """Return the tally of all 65,536 inputs of a 16-bit format, each decided by Arb."""
        x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(self.torch_dtype).to(self.device)
        points, got = to_floats(x), to_floats(self.evaluate(x))
        settled = self.settler.settle(points, got)
        everywhere = np.ones(len(points), dtype=bool)
        tally = Tally.of(
            settled.ulp,
            got,
            settled.truth,
            _bits(x),
            everywhere,
            by_expansion=settled.by_expansion,
            by_arb=settled.by_arb,
        )
        return {GENERAL: tally}

    def _certificate(self, float64: Float64Error | None, totals: Chunk) -> Certificate:
        grade = "proved" if float64 is None else f"exhaustive ±{float64.margin:.1e} ulp"
        return Certificate(
            subject=self.subject,
            operation=self.record.name,
            parameters=dict(self.case),
            quantity=self.quantity,
            dtype=self.dtype,
            device=self.device,
            source=self.source,
            environment=self.environment,
            grade=grade,
            float64=float64,
            regions={name: Region(self.bounds[name], totals[name]) for name in self.bounds},
            worst_inputs={
                name: _pasted(tally.worst_bits, self.torch_dtype)
                for name, tally in totals.items()
                if tally.worst_bits >= 0
            },
        )


@cache
def _formula_digest(declared: Callable[..., Any]) -> str:
    """Return the digest of a formula, which is the same for all settings, dtypes and devices."""
    return source_digest(declared, round_once, without=(float32,))


def float64_error(sweep: Sweep) -> Float64Error:
    """Measure how far float64 is from Arb, both compiled as in the sweep and not compiled."""
    both = (sweep.formula, compiled(sweep.formula, sweep.device))
    x = elementwise_inputs(sweep.facts, {}, torch.float32, SAMPLE, 0)
    rng = np.random.default_rng(0)
    worst, at, count = 0.0, "", 0
    for _ in range(3):
        x = _comparable(sweep, x)
        points = to_floats(x)
        truth = jets(sweep.record.truth, points, **sweep.parameters)[sweep.order]
        error = np.zeros(len(points))
        for evaluate in both:
            wide = to_floats(evaluate(_padded(x.to(WIDE), sweep.device)))[: len(points)]
            ulp = distance(wide, truth, spacing(truth.high, torch.float32))
            error = np.maximum(error, np.where(np.abs(wide) < BEYOND_FLOAT32, ulp, 0.0))
        count += len(points)
        order = np.argsort(error)[::-1][:20]
        if error[order[0]] > worst:
            worst, at = float(error[order[0]]), number(float(points[order[0]]), torch.float32)
        nearby = points[order, None] * (1 + rng.uniform(-(2.0**-8), 2.0**-8, (20, AROUND)))
        x = torch.from_numpy(nearby.reshape(-1)).to(torch.float32)
    if worst > USABLE:
        raise ArithmeticError(
            f"{sweep.name}: float64 is {worst:.3g} ulp off at {at}: too far to sweep with"
        )
    return Float64Error(worst, at, count, margin=2 * max(worst, 2.0**-31))


def _comparable(sweep: Sweep, x: Tensor) -> Tensor:
    """Return the inputs that float64 may decide: finite, no kink, not near an isolated root."""
    keep = x.isfinite()
    for point in sweep.facts.kinks:
        keep &= x != point
    for low, high in sweep.near:
        keep &= (x < low) | (x > high)
    return x[keep]


def _padded(x: Tensor, device: str) -> Tensor:
    """Return the inputs filled up to one size, for which one kernel is compiled."""
    return torch.nn.functional.pad(x, (0, 2 * SAMPLE - len(x)), value=1.0).to(device)


def _bits(x: Tensor) -> Any:
    """Return the bit patterns of float32 or 16-bit numbers, as unsigned integers."""
    integers = x.view(torch.int32 if x.dtype is torch.float32 else torch.int16)
    return integers.to(torch.int64).cpu().numpy() & (2 ** (8 * x.itemsize) - 1)


def _pasted(bits: int, dtype: torch.dtype) -> str:
    """Return the number with a bit pattern, in a form to paste."""
    unsigned = torch.uint32 if dtype is torch.float32 else torch.uint16
    return number(float(torch.tensor(bits, dtype=unsigned).view(dtype)), dtype)


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _shared(chunks_here: dict[int, Chunk]) -> dict[int, Chunk]:
    """Return the chunks of all processes, to each of them."""
    if not dist.is_initialized():
        return chunks_here
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, chunks_here)
    return {chunk: tallies for one in gathered for chunk, tallies in one.items()}


def sweeps(
    records: Iterable[Operation], dtypes: Sequence[str], devices: Sequence[str]
) -> list[Sweep]:
    """Return a sweep for each quantity of the elementwise operations in each of their settings."""
    return [
        Sweep(record, case, quantity, dtype, device)
        for record in records
        if record.kind == "elementwise"
        for case in record.cases
        for quantity in ORDERS
        if quantity == "value" or quantity in record.derivatives
        for dtype in dtypes
        for device in devices
    ]
