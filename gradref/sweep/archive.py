"""Certificates on disk: in a folder one JSON file for each operation.

A file holds every subject, setting, quantity, dtype and device, sorted, so that it does not depend
on the order in which they were certified. A certificate takes a few lines; the environment is
written once for all that were made in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradref.judge.ulp import HISTOGRAM_EDGES
from gradref.sweep.certificate import Certificate, Float64Error, Region
from gradref.sweep.tally import Tally

FORMAT = 2


def path_of(folder: Path, operation: str) -> Path:
    """Return the file of an operation."""
    return folder / f"{operation}.json"


def read_folder(folder: Path) -> list[Certificate]:
    """Return all certificates of a folder."""
    return [found for path in sorted(folder.glob("*.json")) for found in read(path)]


def read(path: Path) -> list[Certificate]:
    """Return the certificates in a file; none where there is no file."""
    if not path.is_file():
        return []
    content = json.loads(path.read_text())
    if content["format"] != FORMAT:
        raise ValueError(f"{path}: got format {content['format']}, wants {FORMAT}: certify again")
    return [
        _certificate(content["operation"], group["environment"], entry)
        for group in content["groups"]
        for entry in group["certificates"]
    ]


def write(folder: Path, certificate: Certificate) -> None:
    """Put a certificate into the file of its operation, in the place of an earlier one."""
    path = path_of(folder, certificate.operation)
    with _locked(folder):
        others = [known for known in read(path) if known.name != certificate.name]
        replace(path, [*others, certificate])


def replace(path: Path, certificates: Iterable[Certificate]) -> None:
    """Write the certificates of one operation; a reader sees the old file or the new one."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(_text(sorted(certificates, key=_order)))
    temporary.replace(path)


def _order(found: Certificate) -> tuple[str, ...]:
    setting = json.dumps(found.parameters)
    return (found.subject, setting, found.quantity, found.dtype, found.device)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a folder; the lock ends with its process."""
    try:
        import fcntl
    except ImportError:  # Windows: what two processes write at once is certified again
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# --- as text -------------------------------------------------------------------------------------


def _text(certificates: list[Certificate]) -> str:
    """Return the JSON of one operation's certificates."""
    (operation,) = {found.operation for found in certificates}
    groups: dict[str, list[str]] = {}
    for found in certificates:
        groups.setdefault(_json(found.environment), []).append(_entry(found))
    head = {
        "format": FORMAT,
        "operation": operation,
        "inputs": {dtype: input_set(dtype) for dtype in sorted({c.dtype for c in certificates})},
        "histogram_edges_ulp": HISTOGRAM_EDGES,
    }
    written = (
        f' {{"environment": {environment}, "certificates": [\n' + ",\n".join(entries) + "\n ]}"
        for environment, entries in sorted(groups.items())
    )
    lines = (f"{_fields({name: value})}," for name, value in head.items())
    return "\n".join(["{", *lines, '"groups": [', ",\n".join(written), "]}", ""])


def _entry(found: Certificate) -> str:
    """Return a certificate in lines: what it is of, how it was made, one for each region."""
    about = ("subject", "parameters", "quantity", "dtype", "device")
    made = {
        "source": found.source,
        "grade": found.grade,
        "passed": found.passed,
        "float64": None if found.float64 is None else asdict(found.float64),
    }
    regions = {
        name: {
            "bound": region.bound,
            "worst_input": found.worst_inputs.get(name),
            **asdict(region.tally),
        }
        for name, region in found.regions.items()
    }
    lines = [
        _fields({name: getattr(found, name) for name in about}),
        _fields(made),
        '"regions": {' + ",\n   ".join(_fields({n: content}) for n, content in regions.items()),
    ]
    return "  {" + ",\n   ".join(lines) + "}}"


def _fields(content: Mapping[str, Any]) -> str:
    """Return what stands between the braces of a JSON object, in one line."""
    return ", ".join(f"{_json(name)}: {_json(value)}" for name, value in content.items())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _certificate(
    operation: str, environment: Mapping[str, str], entry: dict[str, Any]
) -> Certificate:
    """Return the certificate that :func:`_entry` wrote."""
    del entry["passed"]  # which follows from the rest
    worst_inputs, regions = {}, {}
    for name, content in entry.pop("regions").items():
        bound, worst_input = content.pop("bound"), content.pop("worst_input")
        regions[name] = Region(bound, Tally.read(content))
        if worst_input is not None:
            worst_inputs[name] = worst_input
    float64 = entry.pop("float64")
    return Certificate(
        **entry,
        operation=operation,
        environment=environment,
        float64=None if float64 is None else Float64Error(**float64),
        regions=regions,
        worst_inputs=worst_inputs,
    )


def input_set(dtype: str) -> dict[str, str]:
    """Return the set of inputs of a dtype, in words, and the digest of those words."""
    bits = 32 if dtype == "float32" else 16
    words = f"all 2^{bits} bit patterns of {dtype}, NaNs included, in the order of their bits"
    return {"set": words, "sha256": hashlib.sha256(words.encode()).hexdigest()}
