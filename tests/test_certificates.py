"""The certificates of ours: of the sources as they are, and a slice of them swept again."""

from __future__ import annotations

import random

import numpy as np
import torch

from docs.accuracy import CERTIFICATES, CLAIMS, stale, wanted
from gradref.declare.registry import operations
from gradref.judge.ulp import to_floats
from gradref.sweep import archive
from gradref.sweep.certificate import OURS
from gradref.sweep.chunks import Pass
from gradref.sweep.sweep import Sweep


def test_every_function_is_certified() -> None:
    """Every setting of every elementwise function, ours and fused, with the source as it is now."""
    assert not [sweep.name for sweep in stale()], "run: python docs/build.py --only accuracy"
    written = archive.read_folder(CERTIFICATES)
    assert {found.name for found in written} == {sweep.name for sweep in wanted()}
    assert all(found.passed for found in written)
    assert CLAIMS == {"float32": 4.0, "float16": 1.0, "bfloat16": 1.0}, "what the README says"


def test_a_slice_is_as_certified(seed: int) -> None:
    """Some thousand consecutive inputs of a certificate, swept again."""
    rng = random.Random(seed)
    certificates = [
        found
        for found in archive.read_folder(CERTIFICATES)
        if (found.subject, found.dtype) == (OURS, "float32")
    ]
    size = 1 << 14
    for certificate in rng.sample(certificates, 3):
        record = operations(certificate.operation)[0]
        parameters, quantity = certificate.parameters, certificate.quantity
        sweep = Sweep(record, parameters, quantity, "float32", "cpu", chunk_size=size)
        chunk = rng.randrange(sweep.chunk_count)
        assert certificate.float64 is not None
        for name, tally in sweep.slice(certificate.float64.margin, chunk).items():
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
