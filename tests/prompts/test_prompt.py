import subprocess
import sys

import pytest

from mechint.errors import PromptError
from mechint.prompts import Prompt, PromptSet


def three() -> PromptSet:
    return PromptSet("three", tuple(Prompt(name, f"text {name}", f" {name}") for name in "abc"))


def test_a_set_is_a_sequence_and_its_slices_are_sets() -> None:
    prompts = three()

    assert [prompt.id for prompt in prompts] == ["a", "b", "c"]
    assert prompts[-1].id == "c"
    assert prompts[1:] == PromptSet("three", prompts.prompts[1:])
    assert prompts[0] in prompts


def test_ids_are_unique() -> None:
    with pytest.raises(PromptError, match="twice in 'x': a"):
        PromptSet("x", (Prompt("a", "1"), Prompt("b", "2"), Prompt("a", "3")))


def test_the_hash_is_of_the_content_in_order_and_not_of_the_name() -> None:
    prompts = three()

    assert prompts.content_hash == PromptSet("other", prompts.prompts).content_hash
    assert prompts.content_hash != prompts[::-1].content_hash
    assert prompts.content_hash != prompts[:2].content_hash
    assert len({PromptSet("x", (Prompt("a", "1", **{k: " z"}),)).content_hash for k in ("target", "cluster")}) == 2


def test_the_frame_has_a_row_a_prompt_and_its_columns_even_when_empty() -> None:
    frame = three().to_frame()

    assert frame["target"].tolist() == [" a", " b", " c"]
    assert three()[:0].to_frame().columns.tolist() == frame.columns.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " \n"}, "'prompt' is blank"),
        ({"target": ""}, "'target' is blank"),
        ({"id": ""}, "'id' is blank"),
        ({"counterfactual": " "}, "'counterfactual' is blank.*leave it out"),
        ({"distractor": " b"}, "a distractor and no target"),
        ({"target": " b", "distractor": " b"}, "target and distractor are both ' b'"),
        ({"counterfactual": "text"}, "counterfactual is the prompt itself"),
        ({"prompt": "half \ud800"}, "lone surrogate"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Prompt(**{"id": "x", "prompt": "text", **fields})


def test_a_target_may_be_white_space_because_a_line_break_is_a_token() -> None:
    assert Prompt("x", "Answer:", "\n").target == "\n"


def test_importing_prompts_and_statistics_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'pandas', 'scipy', 'statsmodels', 'datasets', 'pyarrow'}"
    code = f"import sys, mechint.prompts, mechint.statistics; print(sorted({heavy} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"
