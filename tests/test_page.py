"""The page: what is on it, and what a browser does with it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from playwright.sync_api import sync_playwright
from typer.testing import CliRunner

from gradref.bench.results import Result, append
from gradref.bench.subjects import BOUND, COMPILED, EAGER, FRESH, OURS, PLAIN
from gradref.cli import app
from gradref.declare.registry import batch_losses, operations
from gradref.judge.verdict import OURS as GRADREF
from gradref.report import files
from gradref.runs.check import check_subject
from gradref.runs.options import Options
from gradref.runs.run import Run
from gradref.runs.verify import jobs, verify_all
from gradref.sweep.sweep import Sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

WRONG = """
import torch


def silu(x):
    return x * torch.exp(x) / (1 + torch.exp(x))


KERNELS = {"silu": {"forward": silu}}
"""

pytestmark = pytest.mark.xdist_group("page")

COUNT = len(operations()) + len(batch_losses())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files of a small run of everything, as arguments of the command."""
    folder = tmp_path_factory.mktemp("measured")
    run = Run(GRADREF, {}, finished=True)
    records = operations("silu", "mse_loss")
    for outcome in verify_all(jobs(records, ["bfloat16"], ["cpu"], "smoke", 0, (0, 1, 2))):
        run.add(outcome)
    (folder / "verdicts.json").write_text(json.dumps(run.as_dict()))
    (folder / "mine.py").write_text(WRONG)
    found = check_subject(str(folder / "mine.py"), None, ["float32"], Options())
    (folder / "checked.json").write_text(json.dumps(found.as_dict()))
    (folder / "certificates").mkdir()
    Sweep(operations("silu")[0], {}, "value", "bfloat16", "cpu").run(
        folder / "certificates", lambda done, of: None
    )
    seconds = {OURS: 1.0, FRESH: 1.5, PLAIN: 4.0, EAGER: 7.0, COMPILED: 3.5, BOUND: 0.9}
    rounds = {name: [time] * 3 for name, time in seconds.items()}
    result = Result("silu", ("value", "derivative"), "float32", "cpu", (64,), rounds, 1.0, 768)
    append(result, folder / "bench.jsonl")
    with mock.patch.dict(os.environ, THP_MEM_ALLOC_ENABLE="1"):
        append(result, folder / "bench.jsonl")
    return [
        f"--verdicts={folder / 'verdicts.json'}",
        f"--checked={folder / 'checked.json'}",
        f"--certificates={folder / 'certificates'}",
        f"--benchmarks={folder / 'bench.jsonl'}",
    ]


@pytest.fixture(scope="module")
def path(measured: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    result = CliRunner().invoke(app, ["report", *measured, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def card(page: str, name: str) -> str:
    found = re.search(rf'<article id="{name}".*?</article>', page, re.DOTALL)
    assert found is not None
    return found[0]


def test_every_operation_has_a_card_with_its_formulas(path: Path) -> None:
    page = path.read_text()
    for record in operations():
        text = card(page, record.name)
        assert "<math" in text
        assert "<svg" in text
        for function in (record.function, *record.derivatives.values()):
            assert f"<h3>{function.__name__}</h3>" in text
            unset = re.search(r"frac(?!\{)", function.__doc__ or "")
            assert unset is None, "docutils sets a fraction of what is in braces only"
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page), "needs the network"
    assert "problematic" not in page, "a docstring that cannot be set"


def test_shows_what_was_measured(path: Path) -> None:
    page = path.read_text()
    silu, gelu = card(page, "silu"), card(page, "gelu")
    assert ">pass</span>" in silu
    for words in ("not measured", "Verdicts", "Speed", "Certificates"):
        assert words not in gelu, "nothing is shown that was not measured"
    assert "7.00 ± " in silu, "autograd beside ours, with an interval"
    assert "<h4>float32, 64, cpu, torch " in silu, "and on which machine"
    assert "<h4>float32, 64, cpu, huge pages, torch " in silu
    assert "65,536" in silu, "a certificate, and proved verdicts"
    assert "mine.py" in silu
    assert "exp overflows" in silu or "fail" in silu
    assert "x = torch.tensor([6.25] * 64, dtype=torch.bfloat16)" in silu, "a finding to paste"


def test_says_which_file_is_not_what_it_should_be(measured: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    for option, words in (
        ("--verdicts", "JSON of gradref verify"),
        ("--checked", "JSON of gradref check"),
        ("--benchmarks", "JSON of gradref bench"),
    ):
        result = CliRunner().invoke(app, ["report", option, str(tmp_path / "x.json")])
        assert result.exit_code == 2
        assert words in " ".join(result.output.replace("│", "").split())


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    """The page, which must not put anything on the console, nor ask for anything."""
    problems: list[str] = []
    with browser.new_page() as page:
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: r.url.startswith("file:") or problems.append(r.url))
        page.goto(path.as_uri())
        yield page
    assert problems == []


def test_the_first_screen_tells_the_result(page: Any) -> None:
    """The failures of kernels, then a matrix, every row of which leads to its operation."""
    for width, height in ((1400, 900), (390, 800)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("scrollTo(0, 0)")
        for what in (
            page.get_by_text(re.compile("failures? of your kernels")),
            page.get_by_role("table"),
        ):
            assert what.first.bounding_box()["y"] < height
    rows = page.locator(".matrix tbody tr")
    assert rows.count() == COUNT
    assert rows.first.inner_text().split()[0] == "silu", "what failed comes first"
    assert "mine.py f" in page.locator(".matrix thead").inner_text()
    failure = page.locator(".yours details").first
    failure.locator("summary").click()
    assert "import activations" in failure.inner_text()
    assert not page.locator("article#gelu svg").first.is_visible()
    rows.get_by_role("link", name="gelu", exact=True).click()
    assert page.locator("article#gelu svg").first.is_visible()


def test_a_check_writes_the_same_page(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WRONG)
    found = check_subject(str(tmp_path / "mine.py"), None, ["float32"], Options("link"))
    files.write_html(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<article") == 1
    assert "of your kernels" in page
    assert "exp overflows" in page


def shown(page: Any) -> list[str]:
    names: list[str] = page.locator("article:visible").evaluate_all("all => all.map(a => a.id)")
    return names


def test_searches(page: Any) -> None:
    assert len(shown(page)) == COUNT
    page.keyboard.press("/")
    page.keyboard.type("log_softmax")
    assert shown(page) == ["log_softmax"]
    assert page.locator("nav a:visible").all_inner_texts() == ["log_softmax"]
    assert page.get_by_role("status").inner_text() == f"1 of {COUNT}"
    page.get_by_role("searchbox").fill("nonesuch")
    assert shown(page) == []
    assert page.get_by_text("No operation is like that").is_visible()


def test_filters(page: Any) -> None:
    page.get_by_label("Kind").select_option("rowwise")
    assert shown(page) == sorted(r.name for r in operations() if r.kind == "rowwise")
    page.get_by_label("Kind").select_option("")
    page.get_by_label("torch is wrong").check()
    assert "silu" in shown(page)
    assert "gelu" not in shown(page)
    page.get_by_label("torch is wrong").uncheck()
    page.get_by_label("something failed").check()
    assert shown(page) == ["silu"], "whose kernel is wrong"


def test_draws(page: Any) -> None:
    page.locator("article#silu .card > summary").click()
    lines = page.locator("article#silu svg .line")
    assert lines.count() == 3 + 3 * 2, "f, f′, f″; the errors of ours and torch's"
    for line in lines.all():
        assert line.evaluate("line => line.getTotalLength()") > 100
        assert line.evaluate("line => getComputedStyle(line).stroke") != "none"
    assert page.locator("svg[role=img] > title").count() == page.locator("svg").count()
    assert page.locator("article#silu math").first.bounding_box()["height"] > 10


def test_is_dark_where_it_is_dark(page: Any) -> None:
    def brightness() -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    page.emulate_media(color_scheme="dark")
    assert brightness() < 60
    page.get_by_label("Light or dark").click()
    assert brightness() > 200


def test_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("article#gelu .card > summary").click()
    width = page.locator("article#gelu svg").first.bounding_box()["width"]
    assert 280 < width <= 360


def test_contrast(page: Any) -> None:
    """At least 4.5, as WCAG 2 asks for text, light and dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for selector in (".tools label", "nav a", ".badges span", ".pass", "figcaption", "tspan"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)


def contrast(page: Any, selector: str) -> float:
    element = page.locator(selector).first
    style = "e => getComputedStyle(e)"
    ink = element.evaluate(f"e => ({style})(e).{'fill' if selector == 'tspan' else 'color'}")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lighter, darker = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
