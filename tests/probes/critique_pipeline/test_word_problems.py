"""Word problems: runs share all but the result; the paper's prompts bring the confound back, and say so."""

import json
from dataclasses import replace
from itertools import combinations

import pytest

from mechint.errors import ConfigError, PromptError
from mechint.probes.critique_pipeline.detection_prompts import bbm_question, processbench_question, said
from mechint.probes.critique_pipeline.judge import CORRECT, INCORRECT, OUT_OF_TOKENS
from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.probes.critique_pipeline.tasks import PARTS
from mechint.probes.critique_pipeline.word_problems import WordProblems
from tests.probes.critique_pipeline.toy import byte_llama, bytes_tokenizer

SETTINGS = PipelineSettings(problems=12, select=4, test=4)


def task(**changes):
    return WordProblems(byte_llama(), replace(SETTINGS, **changes), 0)


def text(of, item, run):
    return of.read(of.row(item, run))


def told(of, item, *, thinking="", final=""):
    """A judgement of what a model would have written behind the injected prompt."""
    written = bytes_tokenizer()(f"{thinking}</think>{final}", add_special_tokens=False)["input_ids"]
    row = of.row(item, "injected") + tuple(written)
    return row, of.judge(item, "injected", row)


def answer_of(of, item):
    row, start = of.forced(item, wrong=False)
    return of.read(row[start:]).removeprefix("The final answer is ").removesuffix(".")


def test_the_wrong_and_the_true_beginning_differ_in_one_result_only():
    of = task()
    for item in of.items("train"):
        wrong, true = (of.row(item, run) for run in ("injected", "matched"))
        assert len(wrong) == len(true)
        differing = [at for at, (a, b) in enumerate(zip(wrong, true, strict=True)) if a != b]
        assert all(of.read([row[at]]).isdigit() for row in (wrong, true) for at in differing)
        assert 1 <= len(differing) <= 3
        assert wrong[0] == 0
        assert wrong.count(0) == 1


def test_by_default_every_run_has_the_same_question_and_no_problem_is_in_two_parts():
    of = task()
    for item in of.items("test"):
        assert text(of, item, "injected").startswith(text(of, item, "baseline"))
    groups = [{item.group for item in of.items(part)} for part in PARTS]
    assert not any(a & b for a, b in combinations(groups, 2))


def test_published_prompts_wrap_the_baseline_alone_and_the_notes_say_so():
    of = task(paper_prompts=True)
    item = of.items("train")[0]

    assert text(of, item, "baseline").startswith("Question: ")
    assert not text(of, item, "injected").startswith("Question: ")
    assert any("need not be critique" in note for note in of.notes)
    assert not any("need not be critique" in note for note in task().notes)


def test_the_thinking_is_opened_once_even_by_a_template_that_opens_it(monkeypatch):
    plain = task()
    template = "{% for m in messages %}U:{{ m.content }}{% endfor %}A:<think>\n"
    monkeypatch.setattr(bytes_tokenizer(), "chat_template", template, raising=False)
    of = task()
    item = of.items("train")[0]

    assert text(of, item, "baseline").count("<think>") == 1
    assert text(of, item, "baseline").startswith("U:")
    assert text(of, item, "baseline") != text(plain, item, "baseline").replace("<think>", "")


def test_judgements_of_thinking_and_answer_are_apart():
    of = task()
    item = of.items("train")[0]
    right = answer_of(of, item)

    row, hidden = told(of, item, thinking="So it is -1.", final=f"It is {right}.")
    assert (hidden.thinking, hidden.final, hidden.hidden) == (INCORRECT, CORRECT, True)
    assert of.read(row[hidden.answer_start :]) == f"It is {right}."
    _, corrected = told(of, item, thinking=f"So it is {right}.", final="It is -1.")
    assert (corrected.thinking, corrected.final, corrected.hidden) == (CORRECT, INCORRECT, False)
    prompt = of.row(item, "injected")
    endless = of.judge(item, "injected", prompt)
    assert (endless.thinking, endless.final, endless.answer_start) == (OUT_OF_TOKENS, OUT_OF_TOKENS, -1)
    # Bytes are tokens here: the thinking is all between its beginning and its end.
    begun = len(prompt) - len(of.row(item, "baseline"))
    assert (endless.thinking_tokens, hidden.thinking_tokens) == (begun, begun + len("So it is -1."))


def test_wait_opens_the_thinking_again_and_keeps_it():
    of = task()
    item = of.items("train")[0]
    row, _ = told(of, item, thinking="So it is 5.\n", final="It is 5.")

    again = of.waiting(item, "injected", row)

    assert of.read(again) == text(of, item, "injected") + "So it is 5.\n\nWait"
    assert of.judge(item, "injected", again).final == OUT_OF_TOKENS
    assert of.judge(item, "injected", of.closed(again)).answer_start > 0


def test_a_forced_answer_is_the_same_tokens_on_both_sides():
    of = task()
    for item in of.items("train"):
        (wrong, a), (true, b) = (of.forced(item, wrong=side) for side in (True, False))
        assert a == b
        assert wrong[a:] == true[b:]
        assert wrong != true
        assert of.judge(item, "matched", true).final == CORRECT


def test_questions_hold_a_box_and_no_backspace():
    for question in (bbm_question("2 + 2?", ["It is 5."]), processbench_question("2 + 2?", ["It is 5."])):
        assert r"\boxed{" in question
        assert "\x08" not in question
        assert "It is 5." in question


@pytest.mark.parametrize(
    ("written", "step"),
    [(r"a</think>\boxed{2}", 2), (r"a</think>\boxed{2} or \boxed{-1}", -1), (r"\boxed{2}</think>none", None),
     (r"\boxed{2}", None), (r"a</think>\boxed{-7}", None), (r"a</think>\boxed{x}", None)],
)  # fmt: skip
def test_the_step_is_in_the_last_box_behind_the_thinking(written, step):
    assert said(written, "</think>") == step


def traces(path, rows):
    lines = [json.dumps({"id": at, "question": f"How much is 3 + {at}?", "ground_truth": str(3 + at), "search": search})
             for at, search in enumerate(rows)]  # fmt: skip
    path.write_text("\n".join(lines))
    return str(path)


def test_published_traces_are_used_with_their_own_errors_and_refusals_only_as_published(tmp_path):
    wrong = [f"First, 3 + {at} = {9 + at}.\n\n" for at in range(8)]
    path = traces(tmp_path / "t.jsonl", [*wrong, "Sorry, I can't help with that.\n\n"])
    sizes = {"problems": 4, "select": 2, "test": 3, "traces_train": path}

    of, published = task(**sizes), task(**sizes, paper_prompts=True)

    assert [len(of.items(part)) for part in PARTS] == [4, 2, 2]
    assert [len(published.items(part)) for part in PARTS] == [4, 2, 3]
    item = of.items("train")[1]
    assert text(of, item, "injected").endswith("First, 3 + 1 = 10.\n\n")
    assert text(of, item, "matched").endswith("First, 3 + 1 = 4.\n\n")
    refusal = published.items("test")[-1]
    assert published.forced(refusal, wrong=True) is None
    with pytest.raises(PromptError, match="no true twin"):
        published.row(refusal, "matched")


def test_a_file_with_too_few_traces_is_an_error(tmp_path):
    path = traces(tmp_path / "t.jsonl", ["First, 3 + 0 = 9.\n\n"])
    with pytest.raises(PromptError, match="Expected 2 or more in each"):
        task(traces_train=path)


def test_other_errors_are_other_data():
    assert task().content_hash == task().content_hash != task(rule="digit_swap").content_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alphas": (-1.0, 0.5, 1.0)}, "with 0"),
        ({"alphas": (-1.0, -0.5, 0.0)}, "above it"),
        ({"problems": 1}, "Expected at least 2"),
        ({"layers": (0, 1), "layer": 2}, "among them"),
        ({"think_end": " "}, "ends the"),
        ({"think_close": "\n"}, "holds it"),
        ({"traces_test": "x.jsonl"}, "without traces_train"),
        ({"stack_alphas": (float("inf"),)}, "finite"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **changes)
