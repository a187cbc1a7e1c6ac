"""The certificates of ours: of the sources as they are, and a slice of them swept again."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from gradref.declare.operation import operations
from gradref.judge.ulp import to_floats
from gradref.sweep.certificate import Certificate
from gradref.sweep.chunks import Pass
from gradref.sweep.native import native_sweeps
from gradref.sweep.run import Sweep, sweeps

FOLDER = Path(__file__).parent.parent / "docs/certificates"


def test_every_function_is_certified() -> None:
    """Every case of every elementwise function, with the source as it is now."""
    names = {path.name.removesuffix(".json") for path in FOLDER.glob("*.json")}
    for sweep in sweeps(operations(), ("float32", "float16", "bfloat16"), ("cpu",)):
        assert sweep.name in names
        found = Certificate.read(FOLDER / f"{sweep.name}.json")
        assert found.source == sweep.source, f"{sweep.name}: certify it again"
        assert found.passed


def test_the_fused_kernels_are_certified() -> None:
    """Every quantity, with the source as it is now, everywhere to 4 ulp, with 16 bits to 1 ulp."""
    claims = {"float32": 4.0, "float16": 1.0, "bfloat16": 1.0}
    for sweep in native_sweeps(operations(), claims, ("cpu",)):
        found = Certificate.read(FOLDER / "fused" / f"{sweep.name}.json")
        assert found.source == sweep.source, f"{sweep.name}: certify it again"
        assert {region.bound for region in found.regions.values()} == {claims[sweep.dtype]}
        assert found.passed


def test_a_slice_is_as_certified(seed: int) -> None:
    """Some thousand consecutive inputs of a certificate, swept again."""
    rng = random.Random(seed)
    for path in rng.sample(sorted(FOLDER.glob("*.float32.cpu.json")), 3):
        certificate = Certificate.read(path)
        record = operations(certificate.operation)[0]
        sweep = Sweep(record, certificate.parameters, certificate.quantity, "float32", "cpu")
        assert certificate.float64 is not None
        size, chunk = 1 << 14, rng.randrange(256)
        for name, tally in sweep.slice(certificate.float64.margin, chunk, size).items():
            certified = certificate.regions[name].tally
            assert tally.undecided == 0
            assert tally.worst <= certified.worst
            assert tally.incorrectly_rounded <= certified.incorrectly_rounded
        x = Pass(sweep.formula, 0.0, [], []).inputs(chunk, size)
        points = to_floats(x)[~np.isnan(to_floats(x))][:: size // 256]
        results = to_floats(sweep.evaluate(torch.from_numpy(points).to(torch.float32)))
        proved = sweep.settler.settle(points, results)
        assert not len(points) or np.max(proved.ulp) <= max(
            region.tally.worst for region in certificate.regions.values()
        )
