"""Write everything that is generated, and certify what is stale.

    python docs/build.py
    python docs/build.py --only accuracy --only conventions

What takes seconds is made each time. What takes minutes (verdicts, kernels, trust) is made again
when the code that it comes from has changed: docs/built.json keeps a digest of each part's modules
and of all that they import. A certificate keeps a digest of its formula.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # for docs.* and, in docs.trust, the mutants

from docs import (  # noqa: E402
    accuracy,
    conventions,
    declare,
    findings,
    gallery,
    kernels,
    speed,
    times,
    trust,
)
from docs.sources import sources_digest  # noqa: E402

BUILT = ROOT / "docs" / "built.json"
FORMULAS = (ROOT / "activations" / "__init__.py", ROOT / "losses" / "__init__.py")


@dataclass(frozen=True)
class Part:
    """Files that are made together.

    ``make`` returns their texts. Without ``sources`` it takes seconds; with them it is called
    only when one of them, a formula or a module that they import has changed.
    """

    make: Callable[[], dict[Path, str]]
    sources: tuple[Path, ...] = ()

    @property
    def digest(self) -> str:
        """Return the digest of all that the files depend on."""
        return sources_digest(*self.sources, *FORMULAS)


def certified_accuracy() -> dict[Path, str]:
    """Certify what is stale, and return the document of all certificates."""
    accuracy.certify()
    return accuracy.made()


PARTS = {
    "accuracy": Part(certified_accuracy),
    "conventions": Part(conventions.made),
    "declare": Part(declare.made),
    "gallery": Part(gallery.made),
    "speed": Part(speed.made),
    "verdicts": Part(findings.made, (Path(findings.__file__), ROOT / "gradref" / "cli.py")),
    "kernels": Part(kernels.made, (Path(kernels.__file__), *kernels.FILES)),
    "times": Part(times.made),
    "trust": Part(trust.made, (Path(trust.__file__),)),
}


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also what takes minutes and has not changed.")
    ] = False,
) -> None:
    """Write everything that is generated, and certify what is stale."""
    unknown = sorted(set(only or ()) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"got {', '.join(unknown)}, wants some of {', '.join(PARTS)}")
    for name in only or PARTS:
        typer.echo(f"{name}: {build(name, again)}")


def build(name: str, again: bool) -> str:
    """Make a part unless it is as it would be; return what became of it."""
    part = PARTS[name]
    built = json.loads(BUILT.read_text()) if BUILT.is_file() else {}
    if part.sources and built.get(name) == part.digest and not again:
        return "nothing it depends on has changed"
    changed = [path for path, text in part.make().items() if write(path, text)]
    if part.sources:
        BUILT.write_text(json.dumps({**built, name: part.digest}, indent=1, sort_keys=True) + "\n")
    return f"{len(changed)} files changed"


def write(path: Path, text: str) -> bool:
    """Write a file, and return whether it was another."""
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return True


if __name__ == "__main__":
    typer.run(main)
