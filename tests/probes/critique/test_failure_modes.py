"""Fifteen ways in which a critique vector can be something else: none passes, as shown here or in the tests named.

1 to 6 and 11 are of the data, 7 to 10 of the vector, 12 to 15 of the evaluation.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mechint.errors import ConfigError, PromptError
from mechint.positions import prompt
from mechint.probes.critique.causal_summary import beaten
from mechint.probes.critique.recording import Place, record_twins
from mechint.probes.critique.settings import CritiqueExperimentSettings
from mechint.prompts.reasoning import MinimalPair, Pairs, StepSolution, audit_steps, f1_locate, first_false_step, twins
from mechint.sites import Site
from mechint.steering.arms import Arms
from mechint.steering.parts import add
from mechint.vectors.fit import fit
from mechint.vectors.vector import SteeringVector
from tests.families import tiny
from tests.probes.critique.toy import token_twins
from tests.prompts.toy import bytes_like_gpt2

SITE = Site("resid_post", 1)
TWINS = token_twins(12)

# 1. Another prompt or template on one side:
# test_injection.py::test_the_true_literal_is_true_the_wrong_one_never_and_all_else_is_the_same
# test_twins.py::test_twins_are_the_same_tokens_outside_the_literal
# test_word_problems.py::test_by_default_every_run_has_the_same_question_and_no_problem_is_in_two_parts

# 2. Sign, size and last digit of the errors:
# test_injection.py::test_nothing_about_a_deranged_literal_tells_whether_it_is_wrong
# test_baselines.py::test_where_wrong_literals_are_those_of_others_their_tokens_tell_nothing
# test_geometry.py::test_balancing_signs_takes_out_what_follows_the_sign

# 3. Length and the index of a step:
# test_audits.py::test_length_alone_is_measured_and_is_one_half_where_lengths_are_equal
# test_audits.py::test_the_index_is_compared_with_earlier_steps_only
# test_reading.py::test_the_bar_is_the_best_of_chance_embedding_and_surface

# 4. Refusals, and answers that are given away:
# test_audits.py::test_each_trace_is_a_pair_or_left_out_for_what_is_wrong_with_it
# test_audits.py::test_the_audit_of_known_traces_counts_what_is_in_them

# 5. Twins in two folds:
# test_reading.py::test_twins_in_two_folds_would_be_seen
# test_scores.py::test_no_fold_cuts_a_problem_and_every_row_is_asked_once


def test_6_a_literal_of_more_tokens_which_would_shift_all_places_behind_it_is_no_twin() -> None:
    same, longer = (
        MinimalPair(wrong, "p", "How many?", "So ", wrong, "9,999", ".", "10000 - 1", "-")
        for wrong in ("9,989", "10,000")
    )
    found = twins(Pairs("x", (same, longer)), bytes_like_gpt2())

    assert [twin.pair for twin in found] == [same]
    assert found.apart == {"10,000": "the two literals have different numbers of tokens"}
    with pytest.raises(PromptError, match="Give as many of both"):
        replace(TWINS, wrong=((*TWINS.wrong[0], 7), *TWINS.wrong[1:]))


# 7. Nothing but surprise at the digit:
# test_scores.py::test_scores_that_follow_a_covariate_alone_tell_nothing_without_it
# test_recording.py::test_the_embedding_of_the_stub_is_the_same_in_both_to_the_last_bit_and_what_is_carried_is_not

# 8. A bias towards the label:
# test_causal.py::test_what_moves_both_sides_alike_is_called_a_bias
# test_causal.py::test_the_true_side_stands_beside_the_wrong_one_in_every_arm_and_at_every_dose
# test_signal_detection.py::test_the_matched_hit_rate_allows_no_more_false_alarms_than_it_says

# 9. A few massive dimensions (the first token is below):
# test_geometry.py::test_a_massive_dimension_is_seen_in_the_activations_and_only_in_a_vector_that_follows_it


@pytest.mark.parametrize("at", ["result", "stub", "stub_last"])
def test_9_a_massive_first_token_moves_neither_the_vector_nor_its_unit(at: Place) -> None:
    model = tiny("llama")
    massive = SteeringVector({SITE: torch.ones(32)}, {}, "massive", "x")
    plain = record_twins(model, TWINS, SITE, at, progress=False)
    with model.apply(add(massive, 1000.0, unit="raw", where=prompt(0))):
        sunk = record_twins(model, TWINS, SITE, at, progress=False)
        stream = model.run([TWINS.true[0]], read=[SITE])[SITE][0].norm(dim=-1)

    assert float(stream[0]) > 100 * float(stream[1:].max())
    assert sunk.norms == plain.norms
    assert torch.equal(fit(sunk, folds=0)[SITE], fit(plain, folds=0)[SITE])


# 10. The last layer before or after the norm:
# test_recording.py::test_the_last_block_is_read_before_the_final_norm
# test_parts.py::test_the_last_block_is_read_before_the_final_norm_so_that_it_can_be_added_back


def test_11_wrong_solutions_labelled_right_cost_whoever_sees_them_and_can_be_left_out() -> None:
    right, wrong = ("2 + 2 = 4", "4 + 3 = 7"), ("2 + 2 = 4", "4 + 3 = 8")
    sound, noise = [StepSolution(right, None, True)] * 44, [StepSolution(wrong, None, False)] * 18
    rows = [StepSolution(wrong, 1, False)] * 40 + sound + noise
    cleaned = [row for row in rows if row.mistake is not None or row.answer_right]

    def locate(solutions: list[StepSolution]) -> tuple[float, float]:
        seen = [first_false_step(row.steps) for row in solutions]
        score = f1_locate([-1 if at is None else at for at in seen], [row.mistake for row in solutions], n_resamples=99)
        return score.acc1.value, score.acc2.value

    assert locate(rows) == (1, pytest.approx(44 / 62))
    assert locate(cleaned) == (1, 1)
    assert audit_steps(rows, "x")["no mistake, wrong answer"].count == len(rows) - len(cleaned)
    assert "Score those with a right answer apart" in str(audit_steps(rows, "x"))
    assert "Label noise" not in str(audit_steps(cleaned, "x"))


# 12. Layer and dose chosen on the test:
# test_causal.py::test_problems_that_were_fitted_or_chosen_on_are_not_reported_on
# test_reading.py::test_the_layer_is_chosen_without_the_test
# test_pipeline.py::test_the_layer_is_chosen_on_other_problems_than_those_that_are_reported


def test_13_one_random_direction_is_no_control_since_in_few_dimensions_it_may_lie_along_the_vector() -> None:
    recorded = record_twins(tiny("llama"), TWINS, SITE, progress=False)
    vector = fit(recorded, folds=0)
    cosines = [vector.cosine(Arms(vector, recorded).make("random", draw))[SITE] for draw in range(50)]

    # In d dimensions 1/sqrt(d) is the standard deviation: 0.18 in 32.
    assert torch.tensor(cosines).square().mean().sqrt() == pytest.approx(32**-0.5, rel=0.3)
    assert min(map(abs, cosines)) < 0.05 < 0.25 < max(map(abs, cosines))
    # Not even the smallest p that n draws can give, 1 / (1 + n), is small enough before the 49th.
    assert [n for n in range(1, 60) if beaten("random", 1 / (1 + n))] == list(range(49, 60))
    with pytest.raises(ConfigError, match=r"random = 1: .* no corrected p could come to 0\.02\. Draw 49 or more"):
        CritiqueExperimentSettings(random=1)


# 14. The baseline computed in another way than what is steered:
# test_measures.py::test_dose_0_changes_no_bit_and_a_vector_undoes_its_opposite
# test_pipeline.py::test_dose_0_is_the_run_without_steering_and_only_others_change
# test_reading.py::test_data_that_share_a_problem_or_are_of_two_models_are_refused
# test_bias.py::test_a_bias_in_plain_transformers_is_the_plan_and_taken_out_again_it_leaves_nothing

# 15. Doses that mean another thing at each layer:
# test_causal.py::test_doses_are_also_told_in_units_of_the_stream
# test_vector.py::test_a_dose_in_norm_units_does_not_depend_on_how_long_the_vector_is


def test_every_mode_is_here_and_what_is_named_for_it_is_there() -> None:
    own = Path(__file__).read_text(encoding="utf-8")
    modes = re.findall(r"^(?:# (\d+)\. |def test_(\d+)_)", own, re.MULTILINE)
    named = re.findall(r"^# (test_\w+\.py::test_\w+)$", own, re.MULTILINE)
    there = {
        f"{path.name}::{name}"
        for path in Path(__file__).parents[2].rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert sorted({int(comment or test) for comment, test in modes}) == list(range(1, 16))
    assert len(named) > 15
    assert [name for name in named if name not in there] == []
