"""Whether the numbers of a sentence stand in the data it was made from."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

SOURCED = re.compile(
    r'<(div|tr|p)(?: class="scroll")? data-source="([^"]+)">(.*?)</\1>', flags=re.DOTALL
)


def sourced(page: str) -> list[tuple[str, str]]:
    """What a report says with its source: cards, findings, titles of figures; the text without the
    name of the source.
    """
    said = []
    for _, source, content in SOURCED.findall(page):
        title = re.search(r'alt="(.*?)\. Shown: ', content, flags=re.DOTALL)
        text = re.sub("<[^>]+>", " ", title[1] if title else content)
        said.append((source, unescape(text).replace(source, "")))
    return said


def untraceable(text: str, content: dict[str, Any], pointer: str) -> list[str]:
    """Numbers of a sentence that do not stand, rounded as there, in a row of `scores.json`, of what
    it says below.
    """
    row: Any = content
    for part in pointer.removeprefix("/").split("/"):
        row = row[int(part)] if isinstance(row, list) else row[part]
    known: list[float] = []

    def gather(node: Any) -> None:
        if isinstance(node, dict | list):
            for below in node.values() if isinstance(node, dict) else node:
                gather(below)
        elif isinstance(node, int | float):
            known.append(float(node))

    gather(row)
    missing = []
    for match in re.finditer(r"[+-]?\d[\d,]*(?:\.\d+)?", text.replace("95 % interval", "")):
        number = match[0].rstrip(",").replace(",", "")
        digits = len(number.partition(".")[2])
        signed = "+" if number[0] in "+-" else ""  # "fell by" and "rose by" say the sign in words
        shown = {
            f"{scale * (value if signed else abs(value)):{signed}.{digits}f}"
            for value in known
            for scale in (1, 100)
        }
        missing += [] if number in shown else [match[0]]
    return missing
