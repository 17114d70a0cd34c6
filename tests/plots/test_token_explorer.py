"""The explorer holds every token as data, loads nothing, and shows what the table says."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from mechint.errors import OutputError
from mechint.plots.figures_style import visible
from mechint.plots.token_explorer import OWN, SHARED, page

TOKENS = ["<bos>", " Mary", "</script>", "\n\n", "<!--", " a\"'&", "\u2028", "{{ x }}", "東京", "", "▁the", "&lt;"]
HEADS, DOCUMENTS = ["L10H7", "L11H10"], ["moby-3", "</select>"]
CHROMIUM = shutil.which("chromium")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def table() -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for h, head in enumerate(HEADS):
        for k, document in enumerate(DOCUMENTS):
            for d, token in enumerate(TOKENS):
                last = d == len(TOKENS) - 1
                rows.append(
                    {"label": head, "document": document, "position": d, "token": token}
                    | {"next_token": "" if last else TOKENS[d + 1], "loss": float("nan") if last else 2.0 + d}
                    | {"loss_change": float("nan") if last else -0.5 if (h, k, d) == (1, 1, 3) else 0.01 * d}
                    | {"loss_change_kept": float("nan"), "kl": 0.125 * d}
                    | {"attention": json.dumps([[d, 0.75], [0, 0.25]]), "suppressed": json.dumps([[" Mary", -1.5]])}
                    | {"boosted": json.dumps([["</script>", 0.5]]), "predicted": json.dumps([["東京", 0.5]])}
                    | {"predicted_without": json.dumps([["<b>", 0.75]])}
                    | {"in_context": json.dumps([[" Mary", 1, 3.25]])}
                    | {"steps": json.dumps({"predicted": [" Mary"], "attended": [], "suppressed": [], "same": []})}
                )
    return pd.DataFrame(rows)


class Tags(HTMLParser):
    """Collects elements, their attributes, and the text in the element called data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.data = ""
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        self._in_data = ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        self.data += data if self._in_data else ""

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False


def test_every_token_is_data_and_none_is_markup() -> None:
    text = page(table(), "<Title> & co")
    tags = Tags(text)
    data = json.loads(tags.data)

    assert [place["token"] for place in data["documents"][0]["positions"]] == TOKENS
    assert [document["id"] for document in data["documents"]] == DOCUMENTS
    assert tags.names.count("script") == text.count("</script>") == 2
    assert set(tags.names).isdisjoint({"bos", "b", "mary"})
    assert not set("<>&\u2028\u2029") & set(tags.data)
    assert "<h1>&lt;Title&gt; &amp; co</h1>" in text


def test_the_page_loads_nothing() -> None:
    text = page(table(), "Title", about="gpt2")

    assert {name for name, _ in Tags(text).attributes}.isdisjoint({"src", "href", "srcset", "action"})
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest|import\(|WebSocket", text)


def test_the_page_holds_every_number_and_no_nan() -> None:
    tokens = table()
    data = json.loads(Tags(page(tokens, "Title")).data)

    for h, head in enumerate(HEADS):
        for k, document in enumerate(DOCUMENTS):
            rows = tokens[(tokens["label"] == head) & (tokens["document"] == document)].to_dict("records")
            for row, shared, own in zip(
                rows, data["documents"][k]["positions"], data["documents"][k]["heads"][h], strict=True
            ):
                assert set(shared) == {"position", *SHARED}
                assert set(own) == set(OWN)
                for name, value in (shared | own).items():
                    expected = json.loads(str(row[name])) if isinstance(value, list | dict) else row[name]
                    assert value == expected or (value is None and pd.isna(expected))


def test_the_same_table_gives_the_same_page_in_whatever_order_its_positions_come() -> None:
    first, tokens = page(table(), "Title"), table()
    assert page(tokens, "Title") == first
    shuffled = pd.concat([rows[::-1] for _, rows in tokens.groupby(["label", "document"], sort=False)])
    assert page(shuffled, "Title") == first


def test_a_table_that_cannot_be_explored_is_an_error_that_says_why() -> None:
    tokens = table()
    with pytest.raises(OutputError, match="no columns kl, steps"):
        page(tokens.drop(columns=["kl", "steps"]), "Title")
    with pytest.raises(OutputError, match="no rows"):
        page(tokens.head(0), "Title")
    with pytest.raises(OutputError, match="L11H10 has not the same positions of document '</select>'"):
        page(tokens.iloc[:-1], "Title")
    with pytest.raises(OutputError, match="L11H10 has not the same positions"):
        page(tokens[(tokens["label"] == "L10H7") | (tokens["document"] == "moby-3")], "Title")


def in_browser(folder: Path, fragment: str = "") -> str:
    """The page as a browser has it after its script has run."""
    file = folder / "page.html"
    file.write_text(page(table(), "Title"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    run = subprocess.run(
        [*command, "--dump-dom", f"file://{file}{fragment}"], capture_output=True, check=True, timeout=120
    )
    return run.stdout.decode()


def text_of(dom: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", dom))


@in_a_browser
def test_the_page_opens_at_the_largest_loss_change_and_shows_every_token(tmp_path: Path) -> None:
    dom = in_browser(tmp_path)
    shown = re.findall(r'<button type="button" data-at="\d+".*?>(.*?)</button>', dom)

    assert [re.sub("<[^>]*>", "", token) for token in shown] == [visible(token) for token in TOKENS]
    details = text_of(dom[dom.index('<section id="details"') : dom.index("<script")])
    assert "L11H10 at position 3, ↵↵ before <!--" in details
    assert "lowers the loss of <!-- by 0.500 nats: it does harm here" in details
    assert "</script>" in details[details.index("pushes these up") :]
    assert "only copy suppression" not in details


@in_a_browser
def test_a_link_names_head_document_position_and_colour_and_what_is_not_there_is_said(tmp_path: Path) -> None:
    dom = in_browser(tmp_path, "#head=L10H7&document=moby-3&position=11&colour=kl&colours=1")
    assert "L10H7 at position 11, &amp;lt;" in re.sub(r"<[^>]*>", "", dom)
    assert "there is no next token" in dom
    assert "How far the prediction moves without the head (KL), nats" in text_of(dom)

    dom = in_browser(tmp_path, "#head=L99H9&document=0")
    assert "The link asks for head L99H9, which this page has not." in dom
    assert "L10H7 at position 10" in text_of(dom)
