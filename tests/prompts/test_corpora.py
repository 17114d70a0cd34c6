import re
from pathlib import Path

import pytest

from mechint.errors import PromptError
from mechint.prompts import from_dataset, natural, texts
from mechint.prompts.corpora import _prose


class TestNatural:
    def test_it_is_prose_without_code_or_markup(self) -> None:
        prompts = natural(n=200, seed=3)

        for prompt in prompts:
            assert "::=" not in prompt.prompt
            assert ">>>" not in prompt.prompt
            assert "\n" not in prompt.prompt
            assert "  " not in prompt.prompt
            assert re.search(r"[A-Z]", prompt.prompt)
            assert len(prompt.prompt.split()) >= 30
        assert len({prompt.prompt for prompt in prompts}) == 200
        assert len({prompt.cluster for prompt in prompts}) > 20

    def test_a_paragraph_does_not_depend_on_how_many_there_are(self) -> None:
        assert natural(n=5) == natural(n=50)[:5]
        assert natural(n=5) != natural(n=5, seed=1)

    def test_neighbouring_paragraphs_of_a_chapter_are_joined_to_passages(self) -> None:
        passages, single = natural(n=40, min_words=110, joined=True), {p.prompt for p in natural(n=150)}

        assert all(len(passage.prompt.split()) >= 110 for passage in passages)
        assert any(part in single for passage in passages for part in passage.prompt.split("\n\n"))
        parts = [part for passage in passages for part in passage.prompt.split("\n\n")]
        assert len(set(parts)) == len(parts)
        with pytest.raises(PromptError, match=r"9999 passages were asked for"):
            natural(n=9999, min_words=110, joined=True)

    def test_more_than_there_are_is_refused_with_the_number(self) -> None:
        with pytest.raises(PromptError, match=r"100000 paragraphs were asked for; \d+ have 30 words"):
            natural(n=100_000)
        with pytest.raises(PromptError, match="-1 were asked for"):
            natural(n=-1)

    @pytest.mark.parametrize(
        ("block", "prose"),
        [
            ("An *exception* is\nraised.  It may be **handled** [3].", "An exception is raised. It may be handled."),
            ("The clause’s “suite”.", 'The clause\'s "suite".'),
            ('The operator "*" and "**" multiply.', 'The operator "*" and "**" multiply.'),
            ("   indented = code.", None),
            ("* a list item.", None),
            ("Heading\n*******", None),
            ("+---+\n| a |", None),
            ("[1] A footnote.", None),
            ("An example follows:", None),
            ("a ::= b.", None),
        ],
    )
    def test_markup_is_taken_off_and_everything_else_left_out(self, block: str, prose: str | None) -> None:
        assert _prose(block) == prose


class TestTexts:
    def test_a_file_holds_one_document_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "docs.txt"
        path.write_bytes(b"\xef\xbb\xbffirst one\r\n\r\nsecond one\n")

        assert [(p.id, p.prompt, p.target) for p in texts(path)] == [
            ("line-1", "first one", None),
            ("line-3", "second one", None),
        ]

    def test_a_folder_holds_one_document_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "b.txt").write_text("second\nwith two lines")
        (tmp_path / "a.txt").write_text("first")
        (tmp_path / "c.md").write_text("not a text file")

        assert [(p.id, p.prompt) for p in texts(tmp_path)] == [("a.txt", "first"), ("b.txt", "second\nwith two lines")]

    def test_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PromptError, match="holds no text"):
            texts(tmp_path)
        with pytest.raises(PromptError, match="There is no file"):
            texts(tmp_path / "nowhere.txt")


class TestFromDataset:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        lines = [f'{{"text": "document {k}", "other": {k}}}' for k in range(20)] + ['{"text": " ", "other": 0}'] * 5
        (tmp_path / "train.jsonl").write_text("\n".join(lines))
        return str(tmp_path)

    def test_it_draws_different_texts_and_no_blank_ones(self, folder: str) -> None:
        prompts = from_dataset(folder, n=20)

        assert {p.prompt for p in prompts} == {f"document {k}" for k in range(20)}
        assert from_dataset(folder, n=20, seed=1) != prompts
        assert from_dataset(folder, n=4) == prompts[:4]

    def test_what_is_missing_is_named(self, folder: str) -> None:
        with pytest.raises(PromptError, match=r"has no column 'body'. There are: text, other"):
            from_dataset(folder, column="body", n=1)
        with pytest.raises(PromptError, match="has 20 texts; 21 were asked for"):
            from_dataset(folder, n=21)
        with pytest.raises(PromptError, match=r"\(split 'nope'\) cannot be had"):
            from_dataset(folder, split="nope", n=1)

    def test_without_a_network_the_error_says_what_else_there_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)

        with pytest.raises(PromptError, match=r"'nobody/nothing' .* cannot be had: .*natural needs neither"):
            from_dataset("nobody/nothing", n=1)
