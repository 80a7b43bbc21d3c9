"""Draw the five diagrams of the course: `python docs/diagrams.py` writes them into the package.

`la.diagram("path", stage=2)` shows one in a notebook, where its text takes the colour of the page.
As an image (`<img src="path.svg">`) it follows the light or dark scheme of the reader's system.
Blue stands for English and for what the base has, orange for the target language and what is new;
every colour has a label as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parents[1] / "langadapt_utils" / "display" / "diagrams"
WIDTH = 420  # in the units of the drawing; a phone shows one unit as 0.85 pixel
SHOWN = 560  # the widest that a diagram is shown, in pixels
LABEL, NOTE = 14, 12  # sizes of text
BLUE, ORANGE, GREEN, INK = "#0072B2", "#BD5200", "#008A64", "currentColor"
FONT = "'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
# Of an SVG file that is shown as an image: there is no text around it whose colour it could take.
ALONE = "svg:root{color:#1f2328}@media(prefers-color-scheme:dark){svg:root{color:#e6edf3}}"

STAGES = {
    "fertility": "count tokens",
    "vocabulary": "add tokens",
    "embeddings": "initialise them",
    "training": "train the model",
    "evaluation": "compare",
}
# How SmolLM2-135M spells " szépség": its leaves are bytes, and a merge joins two neighbours. The
# pairs with the number of their merge, those of the base first. The new ones are of a run with
# `--language hu --profile cpu`; the number counts from the first new merge.
BYTES = ("␣", "s", "z", "C3", "A9", "p", "s", "C3", "A9", "g")
BASE_MERGES = [("␣", "s"), ("p", "s"), ("C3", "A9"), ("é", "g")]
NEW_MERGES = {("␣s", "z"): 3, ("␣sz", "é"): 581}


def number(value: float) -> str:
    """Return a coordinate with at most one digit behind the point."""
    return f"{value:.1f}".removesuffix(".0")


def element(name: str, words: str = "", **attributes: object) -> str:
    """Return an element; `stroke_width=2` becomes `stroke-width="2"`, what is None is left out."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            said = number(value) if isinstance(value, float) else str(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(said)}"')
    return f"<{' '.join(parts)}>{escape(words)}</{name}>" if words else f"<{' '.join(parts)}/>"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = LABEL,
    anchor: str = "middle",
    colour: str = INK,
    bold: bool = False,
    muted: bool = False,
    lang: str | None = None,
) -> str:
    """Return a line of text whose middle is at height y."""
    return element(
        "text",
        words,
        x=float(x),
        y=float(y + size * 0.36),
        font_size=size,
        fill=colour,
        text_anchor=anchor,
        font_weight=600 if bold else None,
        fill_opacity=0.75 if muted else None,
        lang=lang,
    )


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    colour: str = INK,
    fill: float = 0.0,
    stroke: float = 1.5,
    radius: float = 4,
    dashed: bool = False,
) -> str:
    """Return a rectangle: `fill` is the opacity of its ground, `stroke` the width of its edge."""
    return element(
        "rect",
        x=float(x),
        y=float(y),
        width=float(width),
        height=float(height),
        rx=radius,
        fill=colour,
        fill_opacity=fill,
        stroke=colour,
        stroke_width=stroke,
        stroke_dasharray="4 3" if dashed else None,
    )


def curve(d: str, *, colour: str = INK, stroke: float = 1.5, pale: bool = False) -> str:
    """Return a line along a path."""
    return element(
        "path",
        d=d,
        fill="none",
        stroke=colour,
        stroke_width=stroke,
        stroke_linecap="round",
        stroke_opacity=0.35 if pale else None,
    )


def arrow(x: float, y: float, to: float, *, colour: str = INK) -> str:
    """Return an arrow to the right."""
    d = f"M{number(x)} {number(y)}H{number(to)}m-5 -4l5 4l-5 4"
    return curve(d, colour=colour)


def key(x: float, y: float, words: str, colour: str, fill: float = 0.25) -> list[str]:
    """Return an entry of a legend: a small box, and what it stands for."""
    return [
        box(x, y - 6, 12, 12, colour=colour, fill=fill, radius=3),
        text(x + 18, y, words, size=NOTE, anchor="start"),
    ]


def svg(name: str, title: str, about: str, height: int, parts: Iterable[str]) -> str:
    """Return a whole file: a title and a description first, which screen readers read."""
    identity = f"la-diagram-{name}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 0 {WIDTH + 4} {height}" '
        f'width="{SHOWN}" height="{round(height * SHOWN / WIDTH)}" '
        f'style="max-width:100%;height:auto" '
        f'font-family="{FONT}" role="img" aria-labelledby="{identity}-title {identity}-desc">'
    )
    names = [
        element("title", title, id=f"{identity}-title"),
        element("desc", about, id=f"{identity}-desc"),
        element("style", ALONE),
    ]
    return "\n".join([head, *names, *parts, "</svg>", ""])


def path(stage: int | None) -> str:
    """The five stages, one for each notebook; the own one is coloured."""
    pitch, y, parts = WIDTH / len(STAGES), 26, []
    centres = [pitch * (i + 0.5) for i in range(len(STAGES))]
    for here, there in pairwise(centres):
        parts.append(arrow(here + 24, y, there - 24))
    for i, (x, (name, does)) in enumerate(zip(centres, STAGES.items(), strict=True), start=1):
        own = i == stage
        colour = ORANGE if own else INK
        parts += [
            box(x - 17, y - 17, 34, 34, colour=colour, fill=1 if own else 0.06, radius=17),
            text(x, y, str(i), size=16, bold=own, colour="#ffffff" if own else INK),
            text(x, y + 34, name, size=13, bold=own),
            text(x, y + 51, does, size=NOTE, muted=True),
        ]
        if own:
            parts.append(curve(f"M{number(x - 30)} {y + 66}h60", colour=ORANGE, stroke=3))
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(STAGES, start=1))
    about = f"Five stages in a row, each feeding the next: {listed}."
    if stage:
        about += f" Stage {stage}, {list(STAGES)[stage - 1]}, is coloured: it is this notebook."
    title = f"The path: stage {stage} of 5" if stage else "The path: five stages"
    return svg(f"path-{stage}" if stage else "path", title, about, 98, parts)


Node = tuple[str, float, int, tuple["Node", ...], int | None]  # text, x, level, children, number


def spelled(new: bool) -> list[Node]:
    """Return the trees that the merges make of the bytes, one for each token."""
    step = WIDTH / len(BYTES)
    nodes: list[Node] = [(b, step * (i + 0.5), 0, (), None) for i, b in enumerate(BYTES)]
    for pair in [*BASE_MERGES, *(NEW_MERGES if new else ())]:
        i = 0
        while i < len(nodes) - 1:
            left, right = nodes[i], nodes[i + 1]
            if (left[0], right[0]) == pair:
                joined = "é" if pair == ("C3", "A9") else left[0] + right[0]
                ends = leaves(left)[0][1], leaves(right)[-1][1]
                level = max(left[2], right[2]) + 1
                merge = NEW_MERGES.get(pair)
                nodes[i : i + 2] = [(joined, sum(ends) / 2, level, (left, right), merge)]
            i += 1
    return nodes


def leaves(node: Node) -> list[Node]:
    """Return the bytes that a node stands on."""
    return [leaf for child in node[3] for leaf in leaves(child)] or [node]


def tree(node: Node, bottom: float, *, token: bool) -> list[str]:
    """Return the boxes of a node and of what is below it; a token has a coloured, filled box."""
    (name, x, level, children, merge), rise = node, 42
    y, parts = bottom - rise * level, []
    for child in children:
        low, high = bottom - rise * child[2] - 11, y + 11
        middle = (low + high) / 2
        ends = [number(value) for value in (child[1], low, middle, x, high)]
        d = "M{0} {1}C{0} {2} {3} {2} {3} {4}".format(*ends)
        parts.append(curve(d, colour=ORANGE if merge else INK, pale=not merge))
        parts += tree(child, bottom, token=False)
    colour = ORANGE if merge else BLUE if token else INK
    width = 16 + 7.5 * len(name)
    look = {"fill": 0.25, "stroke": 2.0} if token else {"fill": 0.0, "stroke": 1.0}
    parts.append(box(x - width / 2, y - 11, width, 22, colour=colour, **look))
    parts.append(text(x, y, name, bold=token, lang="hu" if level else None))
    if merge:
        parts.append(text(x + width / 2 + 6, y, f"new {merge}", size=NOTE, anchor="start"))
    return parts


def merges() -> str:
    """The merge tree of a Hungarian word before and after."""
    parts, tokens = [], []
    for new, top, bottom in ((False, 12, 140), (True, 198, 368)):
        nodes = spelled(new)
        tokens.append([node[0] for node in nodes])
        when = "After: the same merges, then new ones" if new else "Before: merges of the base"
        parts.append(text(0, top, when, anchor="start", bold=True))
        parts.append(text(WIDTH, top, f"{len(nodes)} tokens", anchor="end"))
        for node in nodes:
            parts += tree(node, bottom, token=True)
    parts += [
        *key(0, 414, "token of the base", BLUE),
        *key(150, 414, "new token, with the number of its merge", ORANGE),
        *key(0, 434, "part of a token; the lowest are bytes (␣ is a space)", INK),
    ]
    before, after = (" + ".join(names) for names in tokens)
    joins = ", ".join(f"number {n} joins {a} and {b}" for (a, b), n in NEW_MERGES.items())
    about = (
        f"The Hungarian word szépség (beauty), with the space before it, is ten bytes. The merges "
        f"of SmolLM2 join them to {len(tokens[0])} tokens: {before}. The new merges come after all "
        f"of these: {joins}. {len(tokens[1])} tokens are left: {after}."
    )
    return svg("merges", "Merge tree of szépség before and after", about, 446, parts)


def matrix(x: float, y: float, *, shared: bool = False) -> list[str]:
    """Return a matrix with six rows of base tokens, and two new ones below them."""
    parts, width, row = [], 60, 11
    for i in range(8):
        colour, gap = (ORANGE, 4) if i >= 6 else (BLUE, 0)
        for column in range(4):
            where = x + column * width / 4, y + i * row + gap
            look = {"fill": 0.06 if shared else 0.25, "dashed": shared, "radius": 0}
            parts.append(box(*where, width / 4, row, colour=colour, stroke=1.0, **look))
    return parts


def panel(top: float, *, tied: bool) -> list[str]:
    """Return the way of a token through a model: its matrix, the layers, and the LM head."""
    title = "Tied: one matrix, used twice" if tied else "Untied: two matrices"
    rows = "one new row per token" if tied else "two new rows per token"
    above = top + (42 if tied else 26)  # of the matrices; a bracket joins those that are one
    y, below = above + 46, above + 108
    parts = [
        text(0, top, title, anchor="start", bold=True),
        text(WIDTH, top, rows, size=NOTE, anchor="end", muted=True),
        text(22, y, "id"),
        arrow(38, y, 68),
        *matrix(76, above),
        arrow(144, y, 172),
        box(178, y - 28, 64, 56, fill=0.06),
        text(210, y, "layers"),
        arrow(248, y, 276),
        *matrix(284, above, shared=tied),
        arrow(352, y, 376),
        text(400, y, "logits"),
        text(106, below, "embedding matrix", size=NOTE),
        text(314, below, "LM head", size=NOTE),
    ]
    if tied:
        bracket = f"M106 {above - 6}v-4q0 -8 8 -8H306q8 0 8 8v4"
        parts += [curve(bracket, pale=True), text(210, above - 6, "the same matrix", size=NOTE)]
    return parts


def embeddings() -> str:
    """The embedding matrix and the LM head, growing by rows."""
    parts = [
        *panel(12, tied=True),
        *panel(202, tied=False),
        *key(76, 374, "base tokens", BLUE),
        *key(284, 374, "new tokens", ORANGE),
    ]
    about = (
        "A token id selects a row of the embedding matrix; the layers turn it into a hidden state; "
        "the LM head multiplies this with each of its rows, which gives one logit for each token. "
        "Rows of new tokens are added below those of the base. With tied weights both are one "
        "matrix, and a new token gets one row. Untied, the LM head is a matrix of its own, and a "
        "new token gets a row in each."
    )
    title = "How the embedding matrix and the LM head grow, tied and untied"
    return svg("embeddings", title, about, 386, parts)


DOCUMENTS: Sequence[tuple[int, str]] = ((5, BLUE), (4, ORANGE), (3, GREEN))  # tokens, colour


def packed() -> str:
    """A sequence of three documents, and which tokens see which."""
    cell, left, top, parts = 24, 120, 78, []
    owners = [i for i, (tokens, _) in enumerate(DOCUMENTS) for _ in range(tokens)]
    parts.append(text(left - 12, 44, "position", size=NOTE, anchor="end", muted=True))
    begin = 0
    for i, (tokens, colour) in enumerate(DOCUMENTS, start=1):
        x, y, size = left + begin * cell, top + begin * cell, tokens * cell
        parts.append(text(x + size / 2, 18, f"document {i}", size=13))
        parts.append(text(left - 12, y + size / 2, f"document {i}", size=13, anchor="end"))
        parts.append(box(x + 1.5, y + 1.5, size - 3, size - 3, colour=colour, stroke=0, fill=0.08))
        for position in range(tokens):
            here = x + position * cell
            parts.append(box(here + 1.5, 33, cell - 3, cell - 3, colour=colour, fill=0.25))
            parts.append(text(here + cell / 2, 43.5, str(position), size=NOTE))
        begin += tokens
    for row, owner in enumerate(owners):
        for column, seen in enumerate(owners[: row + 1]):
            x, y = left + column * cell, top + row * cell
            if seen == owner:
                look = {"colour": DOCUMENTS[owner][1], "fill": 1.0, "stroke": 0}
                parts.append(box(x + 1.5, y + 1.5, cell - 3, cell - 3, **look))
            else:
                look = {"fill": 0.4, "stroke": 0, "radius": 2.5}
                parts.append(box(x + cell / 2 - 2.5, y + cell / 2 - 2.5, 5, 5, **look))
    end = top + len(owners) * cell
    parts += [
        text(
            left,
            end + 18,
            "A row is a token; it sees the filled columns.",
            size=NOTE,
            anchor="start",
        ),
        text(
            left,
            end + 36,
            "Dots: earlier, but in another document, so masked.",
            size=NOTE,
            anchor="start",
        ),
    ]
    about = (
        "A sequence of twelve tokens holds three documents of five, four and three tokens. "
        "Positions count from 0 again in each. Below, the attention mask: one row for each token "
        "that looks, one column for each token that may be seen. A token sees itself and the "
        "tokens before it in its own document, so the mask is three triangles on the diagonal. "
        "Tokens of the documents before are masked."
    )
    title = "A packed sequence with three documents and its attention mask"
    return svg("packed", title, about, end + 48, parts)


def pill(x: float, y: float, words: str, colour: str, width: float = 66) -> list[str]:
    """Return the name of a model in a rounded box."""
    return [
        box(x, y - 13, width, 26, colour=colour, fill=0.1 if colour == INK else 0.2, radius=13),
        text(x + width / 2, y, words, size=13),
    ]


def runs() -> str:
    """Base, control and adapted model: what each was trained on, and what is compared."""
    base, control, adapted, middle = 26, 82, 138, 110
    first, size, order = 148, 16, "TTETTTETTTET"
    parts = [
        *pill(0, base, "base", INK),
        curve(f"M66 {base}H348", pale=True),
        text(244, base - 10, "not trained", size=NOTE, muted=True),
        curve(f"M33 {base + 13}V{middle - 12}", pale=True),
        box(0, middle - 12, 92, 24, fill=0.06),
        text(46, middle, "+ new tokens", size=13),
        curve(f"M92 {middle}H104q8 0 8 -8V{control + 8}q0 -8 8 -8H348", pale=True),
        curve(f"M104 {middle}q8 0 8 8V{adapted - 8}q0 8 8 8H348", pale=True),
        *pill(354, base, "base", INK),
        *pill(354, control, "control", BLUE),
        *pill(354, adapted, "adapted", ORANGE),
    ]
    for i, part in enumerate(order):
        x, colour = first + i * size, BLUE if part == "E" else ORANGE
        lanes = (control, adapted) if part == "E" else (adapted,)
        parts += [
            box(x + 1, lane - 8, size - 2, 16, colour=colour, fill=1.0, stroke=0, radius=3)
            for lane in lanes
        ]
    parts += [
        *key(148, adapted + 26, "the language", ORANGE, fill=1),
        *key(254, adapted + 26, "English", BLUE, fill=1),
    ]
    rows = [
        ("adapted", "base", "in the language: what was learned"),
        ("adapted", "base", "in English: what changed overall"),
        ("adapted", "control", "in English: what the language cost"),
    ]
    colours = {"base": INK, "control": BLUE, "adapted": ORANGE}
    for i, (one, other, words) in enumerate(rows):
        y = adapted + 74 + i * 34
        parts += [
            *pill(0, y, one, colours[one]),
            text(80, y, "−", size=LABEL),
            *pill(94, y, other, colours[other]),
            text(172, y, words, size=13, anchor="start"),
        ]
    about = (
        "Three models. The base is not trained. The adapted model gets new tokens and is trained "
        "on sequences of the language and of English in turns. The control starts from the same "
        "model and is trained on the same English sequences alone. Adapted minus base in the "
        "language shows what was learned; adapted minus base in English shows what changed "
        "overall; adapted minus control in English shows what the new language cost English."
    )
    title = "Base, control and adapted model as three runs"
    return svg("runs", title, about, adapted + 74 + 2 * 34 + 18, parts)


def diagrams() -> dict[str, str]:
    """Return the text of each file by its name."""
    files = {"path.svg": path(None)}
    files |= {f"path-{stage}.svg": path(stage) for stage in range(1, len(STAGES) + 1)}
    others = (merges, embeddings, packed, runs)
    return files | {f"{draw.__name__}.svg": draw() for draw in others}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, content in diagrams().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
        print(FOLDER / file_name)
