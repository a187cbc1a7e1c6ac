"""What the documents say is what the code says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

from gradref.contenders.witness import torch_jets
from gradref.declare.operation import operations
from gradref.judge.elementwise import ORDERS

ROOT = Path(__file__).parents[1]


def test_the_conventions_are_those_declared() -> None:
    written = (ROOT / "docs" / "conventions.md").read_text()
    generated = runpy.run_path(str(ROOT / "docs" / "build.py"))["conventions"]()
    assert generated == written, "run: python docs/build.py"


def test_the_gallery_shows_every_operation() -> None:
    written = (ROOT / "docs" / "gallery.md").read_text()
    generated = runpy.run_path(str(ROOT / "docs" / "gallery.py"))["document"]()
    assert generated == written, "run: python docs/gallery.py"
    pictures = set(re.findall(r'src="(\S+)"', written))
    assert len(pictures) > len(operations())
    assert all((ROOT / "docs" / picture).stat().st_size > 1000 for picture in pictures)


def test_the_speeds_are_those_measured() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "speed.py"))
    entries = made["measured"]()
    written = (ROOT / "docs" / "speed.md").read_text()
    assert made["document"](entries) == written, "run: python docs/speed.py"
    for name, figure in made["curves"](entries).items():
        assert (ROOT / "docs" / name).read_text() == figure.drawing + "\n"
        assert f'src="{name}"' in written


def findings() -> list[tuple[str, str, str, float, float, float]]:
    text = (ROOT / "README.md").read_text()
    row = re.compile(r"^\| `(\w+)` (\w+) \| (\w+) \| x = (\S+) \| \S+ \| (\S+) \| (\S+) \|", re.M)
    return [
        (name, quantity, dtype, float(x), float(torchs), float(ours))
        for name, quantity, dtype, x, torchs, ours in row.findall(text)
    ]


def test_the_readme_has_findings() -> None:
    assert len(findings()) >= 4


@pytest.mark.parametrize(("name", "quantity", "dtype_name", "x", "torchs", "ours"), findings())
def test_the_findings_in_the_readme(
    name: str, quantity: str, dtype_name: str, x: float, torchs: float, ours: float
) -> None:
    """Ours anywhere; torch's where it is the torch and the machine that were measured."""
    (record,) = operations(name)
    functions = {ORDERS[0]: record.function, **record.derivatives}
    point = torch.tensor(x, dtype=getattr(torch, dtype_name))
    assert float(functions[quantity](point)) == pytest.approx(ours, rel=1e-5)
    made = f"torch {torch.__version__} on {torch.backends.cpu.get_cpu_capability()}."
    if made in (ROOT / "README.md").read_text():
        theirs = torch_jets(record, point[None], record.parameters)[ORDERS.index(quantity)]
        assert theirs is not None
        assert theirs[0] == pytest.approx(torchs, rel=1e-5)


def test_the_commands_of_the_readme() -> None:
    """CI runs the second of them word for word."""
    text = (ROOT / "README.md").read_text()
    assert "pip install -c constraints.txt . && gradref verify\n" in text
    assert 'pip install -c constraints.txt -e ".[dev]" && pytest\n' in text


def test_every_file_of_the_tree_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "gradref").iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert path.name in text
        if path.is_dir() and path.name != "__pycache__":
            assert f"{path.name}/" in text


def test_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_no_package_host_is_named() -> None:
    names = ("pypi" + ".org", "download.pytorch" + ".org", "files.pythonhosted" + ".org")
    for pattern in ("*.md", "*.toml", "*.txt", ".ci/run"):
        for path in ROOT.glob(pattern):
            assert not any(name in path.read_text() for name in names), path
