import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from mechint.experiment.columns import COLUMNS
from mechint.experiment.leading import LEADING
from mechint.experiment.manifest import start_manifest
from mechint.experiment.report import render, write_report
from mechint.results import Findings
from tests.experiment.toy import ToyModel, ToyPrompts, experiment
from tests.plots import fake

CRITERIA = pd.DataFrame({"criterion": ["effect"], "threshold": ["x < 0 & y > 0"], "meaning": ["It lowers <it>."]})
PROMPTS = pd.DataFrame(
    {
        "id": ["a", "b"],
        "prompt": ["<bos>When </script><img src=x>", "And"],
        "target": [" Mary", " to"],
        "target_position": [2.0, float("nan")],
        "correct": [True, False],
    }
)


def _manifest():
    config = experiment(question="Does <b>bold</b> & </title> survive?")
    manifest = start_manifest(config, model=ToyModel(), prompts=ToyPrompts(), argv=["mechint"])
    return manifest | {"status": "complete"}


def _findings(**changes):
    tables = fake.tables() | {"prompts": PROMPTS, "criteria": CRITERIA} | changes
    return Findings("copy_suppression", tables, "It is <nothing> & less.\nTruly.", ("2 < 3 prompts.",))


class _Tags(HTMLParser):
    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder, _findings(), _manifest()).read_text(encoding="utf-8"), folder


def test_everything_given_is_shown_as_it_is_and_never_as_markup(page):
    parser = _Tags()
    parser.feed(page[0])
    text = " ".join(parser.text)

    assert parser.open == []
    for words in (
        "Does <b>bold</b> & </title> survive?",
        "It is <nothing> & less.",
        "2 < 3 prompts.",
        "x < 0 & y > 0",
        "<bos>When </script><img src=x>",
        "<toy> & co",
    ):
        assert words in text
    assert not [tag for tag, _ in parser.seen if tag in ("b", "img", "bos", "nothing")]


def test_the_page_loads_nothing_from_anywhere_and_holds_plotly_once(page):
    parser = _Tags()
    parser.feed(page[0])

    assert not [attrs for _, attrs in parser.seen if "src" in attrs or str(attrs.get("href", "#"))[0] != "#"]
    assert len(re.findall(r"\* plotly\.js v", page[0])) == 1


def test_every_figure_has_a_page_of_its_own_and_a_caption_for_those_who_cannot_see_it(page):
    text, folder = page
    parser = _Tags()
    parser.feed(text)
    labels = [attrs["aria-label"] for tag, attrs in parser.seen if tag == "figure"]

    assert len(labels) == 8
    assert all(len(label) > 40 for label in labels)
    assert len(list((folder / "figures").glob("*.html"))) == 8


def test_the_head_that_suppresses_most_comes_first_and_the_one_that_copies_most_last(page):
    text = page[0]

    places = [text.index(f'data-order="{label}"') for label in ("L2H1", "L0H0", "L0H3")]
    assert places == sorted(places)
    assert "<small>[0.750, 0.900]</small>" in text


def test_it_says_for_how_many_prompts_the_target_does_not_occur(page):
    assert "in 1 of 2; not in 1" in page[0]


def test_every_column_of_the_scan_is_explained():
    names = {str(name) for frame in [*fake.tables().values(), PROMPTS, CRITERIA] for name in frame}
    bare = {name for name in names if not name.endswith(("_low", "_high", "_p"))}

    assert bare - set(COLUMNS) == set()
    assert set(LEADING["copy_suppression"]) - set(COLUMNS) == set()


def test_an_unfinished_run_says_so():
    assert "not complete" in render(_findings(), _manifest() | {"status": "failed"}, {}, "")


def test_findings_of_one_empty_table_still_make_a_page():
    empty = Findings("copy_suppression", {"heads": fake.heads().head(0)}, "No prompts.")

    assert "No prompts." in render(empty, _manifest(), {}, "")


def test_the_same_run_gives_the_same_page(page):
    folder = page[1]

    again = write_report(folder, _findings(), _manifest()).read_text(encoding="utf-8")
    assert re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "", again) == re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "", page[0])
