"""What the battery says of organisms is what they are; and what each gate is there for."""

from typing import Any

import pandas as pd
import pytest

from mechint.errors import ConfigError, SiteError
from mechint.experiment.columns import meaning
from mechint.experiment.leading import LEADING
from mechint.organisms import load
from mechint.organisms.introspection_kinds import KINDS
from mechint.organisms.introspection_material import Invented
from mechint.organisms.introspective import build
from mechint.plots.figures import FIGURES
from mechint.probes.introspection.battery import Battery
from mechint.probes.introspection.cells import Cells
from mechint.probes.introspection.experiment import introspection
from mechint.probes.introspection.organism_summary import mutation_table, random_table, verdicts_table
from mechint.probes.introspection.organism_truth import TRUTH, kind_of
from mechint.probes.introspection.organisms import IntrospectionOnOrganisms
from mechint.probes.introspection.settings import IntrospectionOrganismSettings
from mechint.probes.introspection.text_baseline import text_only
from mechint.results import Findings
from mechint.sites import Site

FIRST = "organism:introspection-reader"
OTHERS = tuple(f"organism:introspection-{kind}" for kind in TRUTH if kind != "reader")


@pytest.fixture(scope="module")
def analysis() -> IntrospectionOnOrganisms:
    """The organisms of one seed, about six texts, and two networks of random numbers."""
    settings = IntrospectionOrganismSettings(models=OTHERS, random_networks=2, random_carriers=4)
    return IntrospectionOnOrganisms(load(FIRST), Invented(6), settings)


@pytest.fixture(scope="module")
def raw(analysis: IntrospectionOnOrganisms) -> dict[str, pd.DataFrame]:
    """All rows of it."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for unit in analysis.units():
        parts.setdefault(unit.table, []).append(analysis.measure(unit))
    return {table: pd.concat(rows, ignore_index=True) for table, rows in parts.items()}


def test_every_verdict_is_the_truth(raw: dict[str, pd.DataFrame]):
    verdicts = verdicts_table(raw["gates"])
    wrong: Any = verdicts[~verdicts["matches"]]
    assert wrong.empty, wrong[["model", "claim", "level", "expected", "sentence"]].to_string()
    assert set(KINDS) | {"untrained"} == set(TRUTH)


@pytest.mark.parametrize(
    ("gate", "fooled"),
    [
        ("validity", "untrained"),
        ("G2", "yes-biased"),
        ("G3", "any-perturbation"),
        ("G4", "source-blind"),
        ("G5", "output-head"),
        ("G6", "reader (weak)"),
    ],
)
def test_without_a_gate_its_objection_is_taken_for_more_than_it_is(
    raw: dict[str, pd.DataFrame], gate: str, fooled: str
):
    mutation: Any = mutation_table(raw["gates"], verdicts_table(raw["gates"]))
    who = mutation[(mutation["without"] == gate) & mutation["claims_too_much"]]["model"]
    assert set(who) == {f"organism:introspection-{fooled}"}


@pytest.mark.parametrize(("kind", "least", "most"), [("surface", 0.95, 1.0), ("reader", 0.0, 0.55)])
def test_the_words_of_a_text_tell_the_surface_organism_and_nothing_of_the_reader(kind: str, least: float, most: float):
    material = Invented(16)
    battery = Battery(build(kind), material, Site("resid_post", 1), 1.0, hold=False)
    accuracy = float(text_only(Cells(battery.ask("detect")), material)["accuracy"].iloc[0])
    assert least <= accuracy <= most


def test_the_reader_finds_more_the_more_there_is_and_random_directions_never(raw: dict[str, pd.DataFrame]):
    doses: Any = raw["doses"].sort_values("dose")
    assert doses["said_yes_concept"].is_monotonic_increasing
    assert doses["said_yes_concept"].iloc[-1] > 0.5
    assert float(doses["said_yes_random"].max()) <= 0.05


def test_random_numbers_get_no_evidence(raw: dict[str, pd.DataFrame]):
    rows = random_table(raw["random"])
    told: Any = rows[(rows["what"] == "verdict") & (rows["which"] == "evidence")]
    assert float(told["share"].max()) == 0.0


def test_a_text_only_reader_gets_no_twin_right():
    battery = Battery(build("surface"), Invented(4), Site("resid_post", 1), 1.0)
    cells = Cells(battery.ask("detect"))
    both = cells.said("detect", "concept", "yes") * cells.said("detect", "none", "no")
    assert both.sum() == 0


def test_the_same_seed_gives_the_same_answers():
    asked = [
        Battery(build("reader"), Invented(2), Site("resid_post", 1), 1.0, seed=seed).ask("detect") for seed in (0, 0, 1)
    ]
    pd.testing.assert_frame_equal(asked[0], asked[1])
    assert not asked[0].equals(asked[2])  # other random directions


def explained(found: Findings) -> None:
    """Every column has a meaning, leading ones are there, and every figure is drawn."""
    unknown = {
        column for frame in found.tables.values() for column in frame if meaning(str(column), found.kind) is None
    }
    assert not unknown
    assert set(LEADING[found.kind]) <= set(found.to_frame())
    assert set(found.figures()) == set(FIGURES[found.kind])


def test_the_findings_on_organisms_explain_themselves(analysis: IntrospectionOnOrganisms, raw: dict[str, pd.DataFrame]):
    found = analysis.conclude(raw)
    explained(found)
    assert found.verdict.startswith("27 of 27 verdicts match the truth.")


def test_one_model_is_asked_and_judged_the_same_way():
    found = introspection(load(FIRST), Invented(4), layers=(1,), doses=(1.0,), progress=False)
    assert set(found.to_frame()["level"]) == {"evidence"}
    assert "not a representation of having that state" in found.verdict
    assert "introspects" not in found.verdict.lower()
    drawn = found.figures()
    assert {"gates", "unrelated", "development"} <= set(drawn)


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ConfigError, match="doses"):
        introspection(load(FIRST), Invented(4), doses=(0.0,))
    with pytest.raises(SiteError, match="blocks"):
        introspection(load(FIRST), Invented(4), layers=(9,))
    with pytest.raises(KeyError, match="truth"):
        kind_of("gemma3-270m")
