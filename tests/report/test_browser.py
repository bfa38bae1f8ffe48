"""The page in a real browser: it opens in silence, asks for nothing, and answers to pointer and keyboard."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from proxytrain.monitor.console import Console
from proxytrain.report import write, write_comparison
from proxytrain.report.facts import collect
from proxytrain.sweep.main import plan, train
from proxytrain.sweep.request import Request

DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync"]
RUN = re.compile(r"\(([0-9a-f]{8})\)")
FADED = """
() => {
  const channel = (v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
  };
  const out = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const e = node.parentElement;
    if (!node.textContent.trim() || !e.checkVisibility() || e.closest("script, legend")) continue;
    const style = getComputedStyle(e), colour = parse(e.closest("svg") ? style.fill : style.color);
    const [low, high] = [light(colour), light(behind(e.closest("figure") ?? e))].sort((a, b) => a - b);
    if ((high + .05) / (low + .05) < 4.5) out.push(`${node.textContent}: ${((high + .05) / (low + .05)).toFixed(2)}`);
  }
  return out;
}
"""
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or whichever is there; its absence fails in CI and skips elsewhere."""
    found = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if not found:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium: apt-get install chromium")
    with sync_playwright() as tools:
        running = tools.chromium.launch(executable_path=found, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def asked(asking: Callable[..., Request], page: str) -> Request:
    """A sweep whose page has every figure: rates are tried, and the target predicted."""
    rates = "{model.width: [16, 24, 32], tokens: 32K, lr: [0.001, 0.004, 0.016, 0.064]}"
    main = "{model.width: [16, 24, 32, 48], tokens: [8K, 16K, 32K], init_seed: [0, 1]}"
    asked = asking("all", f"[{main}, {{model.width: [16, 24], schedule: cosine}}, {rates}]")
    assert train(asked, plan(asked), Console(quiet=True)) == 0
    return asked


@pytest.fixture(scope="module")
def file(asked: Request) -> Path:
    return write(asked, asked.folder / "report.html")


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Open]:
    """Opens the page; at the end nothing may have been complained of or asked for."""
    heard: list[str] = []
    contexts, opened_files = [], []

    def go(what: Path = file, **how) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **how})
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: heard.append(message.text))
        shown.on("pageerror", lambda error: heard.append(str(error)))
        shown.on("request", lambda request: heard.append(request.url))
        shown.goto(what.as_uri())
        opened_files.append(what.as_uri())
        return shown

    yield go
    for context in contexts:
        context.close()
    assert heard == opened_files


def plot(shown: Page, key: str) -> Locator:
    return shown.locator(f"#figure-{key} .plot:visible")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_figure_is_seen_once_and_nothing_is_cut_off(opened: Open, size: dict) -> None:
    shown = opened(viewport=size)
    assert shown.evaluate("document.documentElement.scrollWidth") == size["width"]
    keys = shown.locator("figure").evaluate_all("all => all.map(f => f.id.slice(7))")
    assert {"curves", "fit", "lengths", "outlook", "sensitivity", "optimum"} <= set(keys)
    for key in keys:
        assert plot(shown, key).count() == 1
        assert plot(shown, key).locator("svg").bounding_box()["width"] > 0.85 * min(size["width"] / 2.7, 380)


def test_pointing_at_a_dot_names_its_run_and_final_loss(opened: Open, asked: Request) -> None:
    shown = opened()
    for key in ("curves", "fit", "residuals", "sensitivity"):
        dot = plot(shown, key).locator("[data-hover*='final loss'] use").first
        dot.scroll_into_view_if_needed()
        box = dot.bounding_box()
        shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        said = plot(shown, key).locator(".tip").inner_text()
        found = RUN.search(said)
        assert found, said
        (path,) = asked.store.root.glob(f"runs/{found[1]}*")
        result = asked.store.result(path.name)
        assert result
        assert f"final loss {result.final_loss:.4f}" in said
        shown.mouse.move(2, 2)
        assert not plot(shown, key).locator(".tip").is_visible()


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_pointing_at_a_line_reads_its_value(opened: Open, asked: Request, scale: str) -> None:
    shown = opened()
    shown.locator("#figure-curves").get_by_label(scale).check()
    lines = {line.row.id[:8]: line for line in collect(asked).lines}
    drawing = plot(shown, "curves").locator("svg")
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    read = 0
    for across in np.linspace(0.2, 0.85, 14):
        for down in np.linspace(0.2, 0.85, 14):
            shown.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
            tip = plot(shown, "curves").locator(".tip")
            if not tip.is_visible() or "tokens trained on" not in tip.inner_text():
                continue
            name, tokens, loss = tip.inner_text().splitlines()
            line = lines[RUN.search(name)[1]]
            at = float(tokens.split(": ")[1].rstrip("kM")) * {"k": 1e3, "M": 1e6}.get(tokens[-1], 1.0)
            drawn = np.log if scale == "log" else np.asarray  # lines are straight on the axes that are shown
            there = np.interp(drawn(at), drawn(line.tokens), drawn(line.loss))
            there = np.exp(there) if scale == "log" else there
            assert float(loss.split(": ")[1]) == pytest.approx(there, rel=0.002)
            read += 1
    assert read > 10


def test_the_switch_goes_from_log_to_linear_by_keyboard_too(opened: Open) -> None:
    shown = opened()
    for key in ("curves", "by-schedule", "outlook"):
        assert "log" in plot(shown, key).get_attribute("class").split()
        shown.locator(f"#figure-{key}").get_by_label("log").focus()
        shown.keyboard.press("ArrowRight")
        assert "linear" in plot(shown, key).get_attribute("class").split()


def test_a_click_on_a_heading_sorts_by_number(opened: Open) -> None:
    shown = opened()
    for name, cast in (("final loss", lambda t: float(t.split()[0])), ("tokens", lambda t: int(t.replace(",", "")))):
        head = shown.get_by_role("columnheader", name=name)
        column = head.evaluate("h => h.cellIndex")
        for order, sign in (("ascending", 1), ("descending", -1)):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == order
            cells = shown.locator(f"#runs tbody tr td:nth-child({column + 1})").all_inner_texts()
            values = [sign * cast(t) for t in cells if t]
            assert values == sorted(values)
            assert len(set(values)) > 1
            assert all(cells[: len(values)])  # what is empty comes last


def test_the_keyboard_reaches_every_figure_and_walks_along_its_runs(opened: Open) -> None:
    shown = opened()
    reached = set()
    for _ in range(60):
        shown.keyboard.press("Tab")
        reached.add(shown.evaluate("document.activeElement.closest('figure')?.id"))
    assert {f.get_attribute("id") for f in shown.locator("figure").all()} <= reached
    for key in shown.locator("figure").evaluate_all("all => all.map(f => f.id.slice(7))"):
        here = plot(shown, key)
        here.focus()
        shown.keyboard.press("ArrowDown")
        first = here.locator(".tip").inner_text()
        assert first
        shown.keyboard.press("ArrowDown")
        assert here.locator(".tip").inner_text() != first
        shown.keyboard.press("Escape")
        assert not here.locator(".tip").is_visible()
    here = plot(shown, "outlook")
    here.focus()
    shown.keyboard.press("ArrowDown")
    end = here.locator(".tip").inner_text()
    shown.keyboard.press("ArrowLeft")
    assert here.locator(".tip").inner_text() != end


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(opened: Open, scheme: str) -> None:
    assert opened(color_scheme=scheme).evaluate(FADED) == []


def test_without_scripts_and_on_paper_the_page_is_whole(opened: Open) -> None:
    shown = opened(java_script_enabled=False)
    shown.locator("#figure-curves").get_by_label("linear").check()
    assert "linear" in plot(shown, "curves").get_attribute("class").split()
    assert shown.locator("#runs tbody tr").count() == shown.locator("#runs tbody tr:visible").count() > 30
    shown.emulate_media(media="print")
    assert not shown.locator(".scale:visible").count()
    for key in ("curves", "fit", "lengths"):
        assert plot(shown, key).count() == 1


def test_two_sweeps_side_by_side_open_the_same_way(opened: Open, asked: Request, tmp_path: Path) -> None:
    path = write_comparison(asked.store, ("tiny", asked.name), None, tmp_path / "report.html")
    shown = opened(path, viewport=PHONE)
    assert shown.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    plot(shown, "both").focus()
    shown.keyboard.press("ArrowDown")
    assert "tiny: width" in plot(shown, "both").locator(".tip").inner_text()
    assert shown.evaluate(FADED) == []
