"""What a user waits for, measured cold: caches of truths and of inductor that are empty.

    python docs/times.py [--write] [COMMAND ...]

times ``gradref verify`` and ``gradref check`` of one kernel, each from empty caches and again, and
further commands of the shell from empty caches, and prints them. With ``--write`` it keeps them in
docs/times.json, which the README shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for docs.*, when run as a script

from docs.tables import replace_between, table  # noqa: E402  needs the line above
from gradref.declare.registry import every_operation  # noqa: E402

README, KEPT = ROOT / "README.md", ROOT / "docs" / "times.json"

KERNEL = """\
import torch


def silu(x):
    return (x.double() * torch.sigmoid(x.double())).to(x.dtype)


KERNELS = {"silu": {"forward": silu}}
"""


def seconds(command: str, folder: str) -> float:
    """Return what a command takes with its caches in a folder."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "GRADREF_CACHE": f"{folder}/truths"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    start = time.perf_counter()
    run = subprocess.run(
        ["bash", "-c", command], env={**os.environ, **caches, "PATH": path}, cwd=ROOT, check=False
    )
    may_fail = "gradref verify" not in command  # 1 says that something failed, found as slowly
    if run.returncode > may_fail:
        sys.exit(run.returncode)
    return time.perf_counter() - start


def measured(*others: str) -> dict[str, dict[str, float]]:
    """Return the seconds of each command, cold and again."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        (kernel := Path(folder) / "my_silu.py").write_text(KERNEL)
        own = ("gradref verify > /dev/null", f"gradref check {kernel} --dtype f32 > /dev/null")
        for i, command in enumerate(own):
            name = " ".join(command.split()[:2])
            cold, again = (seconds(command, f"{folder}/{i}") for _ in range(2))
            found[name] = {"cold": cold, "again": again}
        count = len(every_operation())
        found[f"gradref verify, each of {count}"] = {
            when: taken / count for when, taken in found["gradref verify"].items()
        }
        for i, command in enumerate(others):
            found[command.split()[0]] = {"cold": seconds(command, f"{folder}/other{i}")}
    return found


def lines(times: dict[str, dict[str, float]], title: str = "command") -> list[str]:
    """Return a table of the times."""

    def shown(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.1f} s" if value < 60 else f"{int(value) // 60}:{int(value) % 60:02}"

    rows = [[f"`{name}`", shown(t["cold"]), shown(t.get("again"))] for name, t in times.items()]
    return table([title, "from empty caches", "again"], rows)


def made() -> dict[Path, str]:
    """Return the README with the times that were kept."""
    kept = json.loads(KEPT.read_text())
    shown = lines(kept["seconds"], f"command, on {kept['cores']} cores")
    return {README: replace_between(README.read_text(), "times", shown)}


def main() -> None:
    """Measure, print, and keep if asked."""
    chosen = [argument for argument in sys.argv[1:] if argument != "--write"]
    times = measured(*chosen)
    print("\n".join(lines(times)))
    if "--write" in sys.argv:
        kept = {"cores": os.cpu_count(), "seconds": times}
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
