"""The notebooks as a person uses them: a real JupyterLab, a real browser, every control moved.

Screenshots go to build/screenshots.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from langadapt_utils.workspace import NOTEBOOKS

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = ROOT / "build" / "screenshots"
SECONDS = 1_200  # for a notebook, on a machine that computes other things beside it
ANSWER_SECONDS = 60
ERROR = '.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]'
expect.set_options(timeout=ANSWER_SECONDS * 1_000)
TYPED = ("Szia, árvíztűrő világ!", "ภาษาที่มีวรรณยุกต์", "🙂👩‍👩‍👧 <b>&")
pytestmark = [
    pytest.mark.base,
    pytest.mark.browser,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs it"),
]
# Texts of outputs whose contrast with what is behind them is below WCAG AA.
PALE = """outputs => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const level = colour => {
    const [r, g, b] = parts(colour).map(part => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    if (!element) return "rgb(255, 255, 255)";
    const colour = getComputedStyle(element).backgroundColor;
    return (parts(colour)[3] ?? 1) > 0.5 ? colour : ground(element.parentElement);
  };
  const hasText = element =>
    [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  const isShown = element =>
    element.checkVisibility() && !["STYLE", "SCRIPT"].includes(element.tagName);
  const isPale = element => {
    const colours = [getComputedStyle(element).color, ground(element)];
    const [low, high] = colours.map(level).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05) < 4.5;
  };
  return outputs.flatMap(output => [...output.querySelectorAll("*")])
    .filter(element => hasText(element) && isShown(element) && isPale(element))
    .map(element => `${element.tagName}.${element.className}: ${element.textContent.slice(0, 40)}`);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the notebooks with the smoke profile set as a reader would set it."""
    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS.values():
        content = nbformat.read(ROOT / "notebooks" / name, as_version=4)
        cell = next(cell for cell in content.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = cell.source.replace('profile: str = "cpu"', 'profile: str = "smoke"')
        cell.source = cell.source.replace('run_dir: str = ""', f'run_dir: str = "{folder / "run"}"')
        nbformat.write(content, folder / name)
    return folder


@pytest.fixture(scope="module")
def lab(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that keeps all cells on the page."""
    settings = tmp_path_factory.mktemp("settings")
    tracker = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    options = ["--no-browser", "--allow-root", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(settings / "config"),
    }
    with (settings / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, f"--IdentityProvider.token={token}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}")
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(address: str) -> None:
    for _ in range(120):
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"JupyterLab does not answer at {address}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
        ]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=options)


def run_all(page: Page) -> None:
    """Run all cells once the kernel is there, and wait until the last one is done."""
    page.wait_for_selector(
        '.jp-Notebook-ExecutionIndicator[data-status="idle"]', state="attached", timeout=60_000
    )
    prompts: list[str] = []
    for second in range(SECONDS):
        # Nothing runs yet or was run. A second order while cells wait would leave them waiting.
        if second % 15 == 0 and not any(re.search(r"[\d*]", prompt) for prompt in prompts):
            if page.locator("dialog").count():  # asks for a kernel that is being started
                page.keyboard.press("Escape")
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(1_000)
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        if page.locator(ERROR).count() or all(
            re.fullmatch(r"\[\d+\]:", prompt.strip()) for prompt in prompts
        ):
            return
    raise TimeoutError(f"cells still run after {SECONDS} s: {prompts}")


@pytest.mark.parametrize("name", NOTEBOOKS.values())
def test_a_notebook_runs_and_its_controls_answer(name: str, lab: str, browser: Browser) -> None:
    page, said = browser.new_page(viewport={"width": 1400, "height": 1000}), []
    page.on(
        "console", lambda message: said.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(lab.format(name))
    run_all(page)
    errors = page.locator(ERROR)
    assert errors.count() == 0, errors.first.inner_text()
    boxes = page.locator(".jp-OutputArea-output .widget-vbox")
    for number in range(boxes.count()):
        move(boxes.nth(number))
        SHOTS.mkdir(parents=True, exist_ok=True)
        boxes.nth(number).screenshot(path=SHOTS / f"{Path(name).stem}-{number}.png")
    expected = {"01": 2, "02": 3, "03": 1, "04": 1, "05": 1}[name[:2]]
    assert boxes.count() == expected
    copies = page.locator("[id^=la-static-]")
    assert copies.count() == expected
    for copy in copies.all():
        expect(copy).to_be_hidden()
    page.screenshot(path=SHOTS / f"{Path(name).stem}.png")
    assert page.locator(".jp-OutputArea-output").evaluate_all(PALE) == []
    assert not [
        text for text in said if not re.search("Failed to load resource|extension", text)
    ], said
    page.close()


def differs(answer: Locator, before: str, seconds: int = 10) -> bool:
    """Wait some seconds for another answer."""
    for _ in range(5 * seconds):
        if answer.inner_text() != before:
            return True
        answer.page.wait_for_timeout(200)
    return False


def move(box: Locator) -> None:
    """Use every control of a widget by keyboard, and see its answer change."""
    answer = box.locator(".widget-html-content").last
    talks = box.locator("input[type=checkbox]").count() > 0
    patience = ANSWER_SECONDS if talks else 10  # models write after a prompt
    for prompt in box.locator("input[type=text]").all() if talks else ():
        before = answer.inner_text()
        prompt.fill("A folyó partján")
        prompt.press("Enter")
        assert differs(answer, before, patience) and "characters per second" in answer.inner_text()
    for tick in box.locator("input[type=checkbox]").all():
        before = answer.inner_text()
        tick.check()
        assert differs(answer, before, patience)
    for handle in box.locator(".noUi-handle").all():
        before, changed = answer.inner_text(), False
        handle.focus()
        for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):  # it may be at one of its ends
            handle.press(key)
            changed = changed or differs(answer, before, patience)
        assert changed, "the slider changes nothing"
    for chooser in box.locator("select").all():
        before = answer.inner_text()
        chooser.select_option(index=1)
        expect(answer).not_to_have_text(before, use_inner_text=True)
    for finder in box.locator("input[list]").all():
        before = answer.inner_text()
        finder.fill("Swahili")
        finder.press("Enter")
        assert differs(answer, before) and "Swahili" in answer.inner_text()
    for field in box.locator("textarea").all():
        for text in TYPED:
            before = answer.inner_text()
            field.fill(text)
            expect(answer).not_to_have_text(before, use_inner_text=True)
            shown = answer.inner_text()
            assert box.locator("[role=alert]").count() == 0
            if box.locator(".la-page").count():
                assert f"{len(text):,} characters, {len(text.encode()):,} bytes" in shown
                assert (
                    answer.locator("b", has_text="&").count() == 0
                )  # what was typed is text, not HTML
            else:
                assert "Your text:" in shown
    tokens = box.locator("details.la-token")
    if tokens.count():
        token = tokens.first.locator("summary")
        token.focus()
        token.press("Enter")
        expect(tokens.first.locator("div")).to_be_visible()
        assert "bytes" in tokens.first.locator("div").inner_text()
