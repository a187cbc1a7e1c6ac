"""The built wheel: three packages and no more, importable and running outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.xdist_group("wheel")
def test_only_the_packages_go_in(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"activations", "losses", "gradref"}
    for package in packages:
        assert f"{package}/py.typed" in names
        for kind in ("*.py", "*.html"):
            sources = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob(kind)}
            assert sources <= set(names)


@pytest.mark.xdist_group("wheel")
def test_it_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    code = (
        "import activations, losses, gradref, gradref.declare.registry as o;"
        "print(activations.__file__, len(o.operations()), activations.relu_derivative(2.0))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    where, count, slope = result.stdout.split()
    assert where.startswith(str(site))
    assert int(count) > 20
    assert float(slope) == 1.0
