"""Make the picture of the token explorer, with Chromium.

    python docs/picture.py

Writes `docs/img/explorer.png`: the static copy that notebook 2 shows of a text, with a new token
opened. The vocabulary is that of the CPU profile. The picture has the counts of tokens, so the
alternative texts in `README.md` and `docs/index.md` leave them out.
"""

from pathlib import Path

from playwright.sync_api import sync_playwright

import langadapt_utils as la
from langadapt_utils.models import fetch_model, load_tokenizer
from langadapt_utils.vocabulary.views import explore_html

PICTURE = Path(__file__).parent / "img" / "explorer.png"
SENTENCES = {
    "hu": "A szigeten egyetlen autó sincs, a posta mégis minden reggel pontosan megérkezik. "
    "A levelek kompon jönnek, aztán egy kézikocsi viszi tovább őket a házakhoz.",
    "en": "There is not a single car on the island, yet the post arrives on time every morning. "
    "The letters come by ferry, and then a handcart takes them on to the houses.",
}
STYLE = """
body{font:16px/1.5 'DejaVu Sans',sans-serif;margin:8px 24px;color:#111;background:#fff}
table{border-collapse:collapse;margin:0 0 18px}td,th{padding:3px 0;border-bottom:1px solid #ddd}
"""


def explorer() -> str:
    """Return the explorer's static copy for the base and the adapted tokenizer, as a page."""
    recipe = la.Recipe.profile("cpu", language="hu")
    base = load_tokenizer(fetch_model(recipe.base))
    train = la.load_corpus(recipe.corpus, "hu").train
    own, others = train["hu"]["text"], {"en": train["en"]["text"]}
    change = la.extend_vocabulary(base, own, others=others, **recipe.vocabulary.arguments())
    facts = {"base": la.TokenFacts(base), "adapted": la.TokenFacts(change.tokenizer, change)}
    shown = explore_html(facts, SENTENCES["hu"], language="hu", english=SENTENCES["en"])
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{shown}"


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(
            viewport={"width": 800, "height": 372}, device_scale_factor=1.5, color_scheme="light"
        )
        page.set_content(explorer())
        # A longer new token in the first line of the page, whose facts fit below it.
        page.locator("details.la-token", has_text="new").nth(3).locator("summary").click()
        page.screenshot(path=PICTURE)


if __name__ == "__main__":
    main()
