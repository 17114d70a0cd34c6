import torch

import mechint as mi
from mechint.organisms.critic_language import result, twins, vocabulary
from mechint.probes.critique_pipeline.critic_task import SilentCritics, speaks
from mechint.probes.critique_pipeline.generation import damage
from mechint.probes.critique_pipeline.judge import CORRECT, INCORRECT, OUT_OF_TOKENS
from mechint.probes.critique_pipeline.settings import PipelineSettings
from mechint.probes.critique_pipeline.tasks import Task
from mechint.prompts import Prompt, PromptSet
from mechint.sites import Site

TASK = SilentCritics(PipelineSettings(problems=20, select=4, test=6), seed=0)
ITEM = TASK.items("train")[0]


def row(text: str) -> tuple[int, ...]:
    names = {word: at for at, word in enumerate(vocabulary())}
    return tuple(names[word] for word in text.split())


def test_it_is_a_task_whose_runs_differ_in_one_result() -> None:
    assert isinstance(TASK, Task)
    for item in TASK.items("test"):
        wrong, true, problem = (TASK.row(item, run) for run in ("injected", "matched", "baseline"))
        assert wrong[:-1] == true[:-1]
        assert wrong[-1] != true[-1]
        assert true[: len(problem)] == problem


def test_outcomes_are_told_apart_as_the_language_means_them() -> None:
    problem = "<bos> 1 - 0 - 6 ? "
    silent = TASK.judge(ITEM, "injected", row(problem + "1 - 0 = 2 K ; 1 - 6 = 5 K ; | A 5 <eos>"))
    flagged = TASK.judge(ITEM, "injected", row(problem + "1 - 0 = 2 X 1 ; 1 - 6 = 5 K ; | A 5 <eos>"))
    absorbed = TASK.judge(ITEM, "injected", row(problem + "1 - 0 = 2 K ; 2 - 6 = 6 K ; | A 6 <eos>"))
    endless = TASK.judge(ITEM, "injected", row(problem + "1 - 0 = 2 K ; 2 - 6"))

    assert silent.hidden
    assert (flagged.thinking, flagged.final) == (CORRECT, CORRECT)
    assert (absorbed.thinking, absorbed.final) == (INCORRECT, INCORRECT)
    assert (endless.thinking, endless.answer_start) == (OUT_OF_TOKENS, -1)


def test_forced_solutions_end_in_the_right_answer_on_both_sides() -> None:
    for item in TASK.items("select"):
        for wrong in (True, False):
            solution, start = TASK.forced(item, wrong=wrong)
            judged = TASK.judge(item, "injected", solution)
            assert judged.final == CORRECT
            assert judged.hidden == wrong
            assert vocabulary()[solution[start]] == "A"


def test_a_thinking_that_is_opened_again_loses_its_last_step_and_can_be_closed() -> None:
    whole = row("<bos> 1 - 0 - 6 ? 1 - 0 = 1 K ; 1 - 6 = 5 K ; | A 5")
    again = TASK.waiting(ITEM, "injected", whole)

    assert again == row("<bos> 1 - 0 - 6 ? 1 - 0 = 1 K ;")
    assert TASK.waiting(ITEM, "injected", again) == row("<bos> 1 - 0 - 6 ?")
    assert TASK.closed(again)[-2:] == row("| A")


def test_parts_share_no_fact() -> None:
    facts = [{item.group for item in TASK.items(part)} for part in ("train", "select", "test")]  # pyright: ignore[reportArgumentType]
    assert not facts[0] & facts[1]
    assert not facts[0] & facts[2]
    assert all(result(int(f[0]), f[1], int(f[2:])) in range(10) for part in facts for f in part)


def test_only_models_of_the_language_speak_it() -> None:
    import mechint as mi

    assert speaks(mi.load("organism:untrained-critic"))
    assert not speaks(mi.load("organism:copy-suppression"))
    assert len(twins(2)) == 2


def test_damage_is_measured_on_right_solutions_in_its_own_language() -> None:
    task, model = (
        SilentCritics(PipelineSettings(problems=2, select=12, test=2), seed=0),
        mi.load("organism:silent-critic"),
    )
    site, step = Site.parse("L1.resid_post"), torch.randn(128, generator=torch.Generator().manual_seed(0))
    plan = mi.add(mi.SteeringVector({site: step}, {site: 1.0}, "anything", "random"), 1.0, unit="raw")

    solved = [(row("<bos>")[0], *row(one.prompt)) for one in task.neutral]
    assert all(task.judge(ITEM, "matched", one).final == CORRECT for one in solved)
    found = damage(model, task.neutral, {0.0: None, 1.0: plan}, 0).set_index("alpha")
    assert found.loc[0.0].tolist() == [0.0, 0.0, 1.0]
    assert found.loc[1.0, "perplexity_ratio"] > 1
    assert damage(model, PromptSet("English", (Prompt("e", "A sentence."),)), {0.0: None}, 0).empty
