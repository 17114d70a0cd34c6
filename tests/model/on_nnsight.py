"""Claims about the nnsight backend; `test_nnsight.py` runs them in a process of their own.

Shapes are not checked there: what checks them changes functions, which are sent to a server by their source.
"""

import copy
import linecache
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from nnsight import register
from nnsight.intervention.backends.local import LocalSimulationBackend
from nnsight.schema.request import RequestModel
from nnsight.tracing.util import push

import mechint as mi
from mechint.errors import InterventionError, SiteError, UnsupportedModelError
from mechint.interventions import Intervention, add, project_out, replace, zero
from mechint.model import roles
from mechint.model.base import Logits, Restart, Run
from mechint.model.nnsight import NNsightModel
from mechint.model.transformer_lens import TransformerLensModel
from mechint.positions import TokenBatch, generated, prompt
from mechint.sites import Site
from mechint.steering import parts
from mechint.vectors.vector import SteeringVector
from tests.families import FAMILIES, plain, random_rows, tiny, tokenizer
from tests.model.test_run import EVEN, all_sites, every_family, numbers

SAME: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5}
PADDED = TokenBatch.from_rows([random_rows(1, n, seed=n)[0] for n in (12, 5, 9)], pad_left=True)
LAST = prompt(slice(-3, None))


@pytest.fixture(scope="module")
def bridged() -> dict[str, Any]:
    """The same models behind the bridge, whose patch of Gemma's attention is then in force here as well."""
    return {family: TransformerLensModel(plain(family), tokenizer(), name=f"tiny-{family}") for family in FAMILIES}


def settled(site: Site, width: int) -> Intervention:
    """A rewrite that fits a site."""
    return zero(LAST) if site.component in ("scores", "pattern") else add(numbers(1, width), 0.5, LAST)


def require_same(got: Run, expected: Run) -> None:
    assert got.logits is not None
    assert expected.logits is not None
    torch.testing.assert_close(got.logits, expected.logits, **SAME)
    assert [(f.site, f.intervention, f.tokens) for f in got.receipt] == [
        (f.site, f.intervention, f.tokens) for f in expected.receipt
    ]
    assert [f.relative_change for f in got.receipt] == pytest.approx([f.relative_change for f in expected.receipt])
    assert got.activations.keys() == expected.activations.keys()
    for site, value in expected.activations.items():
        hidden = value < -1e30  # a hidden score is any huge negative number
        torch.testing.assert_close(
            got[site].masked_fill(hidden, 0), value.masked_fill(hidden, 0), msg=lambda m, s=site: f"{s}: {m}", **SAME
        )


@every_family
def test_whatever_is_read_is_what_the_bridge_reads(family: str, bridged: dict[str, Any]) -> None:
    sites = all_sites(bridged[family])

    require_same(
        tiny(family).run(PADDED, read=sites, logits=Logits(at=LAST)),
        bridged[family].run(PADDED, read=sites, logits=Logits(at=LAST)),
    )


@every_family
def test_whatever_is_written_does_what_it_does_behind_the_bridge(family: str, bridged: dict[str, Any]) -> None:
    reference = bridged[family]
    sites = [site for site in all_sites(reference) if site.component not in ("pos_embed", *reference.facts.read_only)]
    clean = reference.run(PADDED, read=sites)
    one_head = [Site(name, 1, 0) for name in ("q", "v", "z")]

    for site in [*sites, *one_head]:
        settings: dict[str, Any] = {
            "write": {site: settled(site, clean[site.whole].shape[-1])},
            "logits": Logits(at=LAST),
        }
        require_same(tiny(family).run(PADDED, **settings), reference.run(PADDED, **settings))


def test_a_model_has_the_facts_that_it_has_behind_the_bridge(bridged: dict[str, Any]) -> None:
    for family, reference in bridged.items():
        seen = {"hidden": None, "read_only": None}
        assert {**vars(tiny(family).facts), **seen} == {**vars(reference.facts), **seen}


def plan_for(model: Any) -> Any:
    site = Site("resid_post", 0)
    vector = SteeringVector({site: numbers(5, model.facts.d_model)}, {site: 1.0}, "noise", "random")
    return parts.add(vector, 3.0, unit="raw", where=generated() | prompt(-1)) + parts.ablate("L1H1")


@pytest.mark.parametrize("family", ["gemma3", "qwen3", "llama", "gpt2", "neox"])
def test_steered_text_is_that_of_the_bridge_token_by_token(family: str, bridged: dict[str, Any]) -> None:
    texts = ["w2 w9 w31 w7 w12 w5 w3 w8 w20 w40", "w4", "w11 w30"]

    def written(model: Any, plan: Any) -> list[tuple[int, ...]]:
        return [one.tokens for one in model.generate(texts, plan, max_new_tokens=8)]

    steered = written(tiny(family), plan_for(tiny(family)))

    assert steered == written(bridged[family], plan_for(bridged[family]))
    assert steered != written(tiny(family), None)


@every_family
def test_reading_on_from_a_past_gives_what_reading_the_whole_gives(family: str) -> None:
    model, past = tiny(family), tiny(family).new_past()
    site, write = "L1.resid_post", {"L0.resid_post": add(numbers(2, 32), where=LAST)}
    whole = model.run(PADDED, read=[site], write=write, logits=Logits())
    start = TokenBatch(PADDED.ids[:, :8], PADDED.real[:, :8], PADDED.prompt_lengths, PADDED.offset[:, :8])

    model.run(start, past=past)
    rest = model.run(PADDED, read=[site], write=write, logits=Logits(), past=past)

    torch.testing.assert_close(rest.logits, whole.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rest[site], whole[site][:, 8:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "neox"])
def test_a_plan_acts_on_the_generation_of_transformers_too(family: str) -> None:
    model = tiny(family)
    row = [0, 9, 31, 7, 12]
    own = model.generate("w9 w31 w7 w12", plan_for(model), max_new_tokens=6)[0].tokens

    with model.apply(plan_for(model)):
        theirs = model.hf_model.generate(torch.tensor([row]), max_new_tokens=6, do_sample=False)

    assert tuple(theirs[0, len(row) :].tolist()) == own


def test_scores_are_not_rewritten_in_passes_of_others_and_that_is_said() -> None:
    class Cutting:
        def writes(self, batch: TokenBatch, start: int) -> dict[Site, list[Intervention]]:
            return {Site("pattern", 0): [zero()]}

    model = tiny("llama")
    with model.steered(Cutting()), pytest.raises(SiteError, match=r"L0.pattern cannot be rewritten in a pass"):
        model.hf_model(torch.tensor(EVEN))


def as_a_server(self: LocalSimulationBackend, tracer: Any) -> None:
    """Run what was unpacked, with this package out of reach. nnsight's own rehearsal runs the original."""
    register("tests")
    blob, place = RequestModel.serialize(tracer), tracer.info.frame.f_code.co_filename
    source, hidden = linecache.cache.get(place), self._hide_local_modules()
    try:
        there = RequestModel.deserialize(blob, self.model._remoteable_persistent_objects())
        there.execute(there.info.code)
    finally:
        self._restore(hidden)
        linecache.cache.pop(place, None)
        if source is not None:
            linecache.cache[place] = source
    push(tracer.info.frame, there.info.frame.f_locals)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Models whose runs are packed, unpacked and then run as on a server."""
    monkeypatch.setattr(LocalSimulationBackend, "__call__", as_a_server)
    return lambda family: NNsightModel(plain(family), tokenizer(), name=f"tiny-{family}", remote="local")


REMOTE = pytest.mark.parametrize("family", ["gemma3", "gpt2", "gptj", "neox"])


@REMOTE
def test_a_run_that_is_packed_reads_and_writes_what_one_here_does(family: str, elsewhere: Callable[[str], Any]) -> None:
    here, there = tiny(family), elsewhere(family)
    sites = all_sites(here, range(1, 2))
    clean = here.run(PADDED, read=sites)
    writes: dict[Site, Any] = {
        site: settled(site, clean[site].shape[-1]) for site in sites if site.component != "resid_mid"
    }
    writes |= {Site("z", 1, 2): [zero(prompt(-1)), add(numbers(3, here.facts.d_head), where=LAST)]}

    together: dict[str, Any] = {"read": sites, "write": writes, "logits": Logits(at=LAST)}
    require_same(there.run(PADDED, **together), here.run(PADDED, **together))
    for site in writes:
        one: dict[str, Any] = {"write": {site: writes[site]}, "logits": Logits()}
        require_same(there.run(PADDED, **one), here.run(PADDED, **one))


def test_a_packed_run_starts_in_the_middle_and_stops_early(elsewhere: Callable[[str], Any]) -> None:
    here, there = tiny("gpt2"), elsewhere("gpt2")
    stream = here.run(EVEN, read=["L1.resid_pre"])["L1.resid_pre"]

    for layer in (0, 1):
        settings: dict[str, Any] = {"from_": Restart(layer, stream), "read": ["L1.z"], "stop_after": "L1.z"}
        assert torch.equal(there.run(EVEN, **settings)["L1.z"], here.run(EVEN, **settings)["L1.z"])


def test_a_packed_run_finds_out_what_went_wrong(elsewhere: Callable[[str], Any]) -> None:
    there = elsewhere("gpt2")

    with pytest.raises(InterventionError, match="made NaN or infinity"):
        there.run(EVEN, write={"L1.mlp_out": replace(torch.full((32,), float("nan")))})
    with pytest.raises(InterventionError, match="width 32"):
        there.run(EVEN, write={"L1.mlp_out": project_out(torch.ones(5))})
    with pytest.raises(UnsupportedModelError, match="A past stays where the model runs"):
        there.run(EVEN, past=there.new_past())
    with pytest.raises(UnsupportedModelError, match="a plan keeps its state"), there.apply(plan_for(there)):
        there.run(EVEN)
    lock = threading.Lock()
    with pytest.raises(InterventionError, match="cannot be packed"):
        there.run(EVEN, write={"L1.z": Intervention("locking", lambda h, _: h * lock.locked())})
    assert torch.equal(there.run(EVEN, read=["L1.z"])["L1.z"], tiny("gpt2").run(EVEN, read=["L1.z"])["L1.z"])


def test_only_a_model_with_an_id_can_be_on_a_server() -> None:
    with pytest.raises(UnsupportedModelError, match="tiny is not known by a Hugging Face id"):
        NNsightModel(plain("gpt2"), tokenizer(), name="tiny", remote=True)


def test_the_users_tokenizer_is_left_as_it_was() -> None:
    own = copy.deepcopy(tokenizer())
    own.eos_token = "w2"
    before = (own.padding_side, own.pad_token)

    NNsightModel(plain("llama"), own, name="tiny")

    assert (own.padding_side, own.pad_token) == before


def test_one_matrix_divided_in_an_unknown_way_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "_FUSED", {})
    model = NNsightModel(plain("gpt2"), tokenizer(), name="tiny")

    assert model.facts.hidden == ("q", "k", "v")
    with pytest.raises(SiteError, match=r"does not show 'q' of tiny"):
        model.run(EVEN, read=["L0.q"])
    with pytest.raises(UnsupportedModelError, match='backend="transformer_lens"'):
        model.projections(0)
    assert model.run(EVEN, read=["L0.z"])["L0.z"].shape == (3, 7, 4, 8)


def test_an_architecture_whose_outputs_are_scaled_before_they_are_added_is_refused() -> None:
    config = transformers.GraniteConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, residual_multiplier=0.5,
    )  # fmt: skip
    scaled = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()

    with pytest.raises(UnsupportedModelError, match="Attention and MLP of L0 do not add up"):
        NNsightModel(scaled, tokenizer(), name="granite")


@pytest.mark.parametrize("analysis", [mi.direct_effects, mi.ablate_heads])
def test_an_analysis_says_the_same_on_both_backends(analysis: Callable[..., Any]) -> None:
    tables = []
    for backend in ("transformer_lens", "nnsight"):
        model = mi.load("organism:copy-suppression", backend=backend)
        tables.append(analysis(model, mi.prompts.ioi(n=4, tokenizer=model.tokenizer)).to_frame())

    ours, theirs = (table.select_dtypes("number") for table in tables)
    assert ours.to_numpy() == pytest.approx(theirs.to_numpy(), rel=1e-4, abs=1e-4, nan_ok=True)


@pytest.mark.real
def test_gemma_computes_and_writes_the_same_on_both_backends() -> None:
    found: list[tuple[Run, str]] = []
    names = ("q", "z", "pattern", "attn_out", "mlp_out", "resid_post")
    for backend in ("transformer_lens", "nnsight"):
        model = mi.load("gemma3-270m", backend=backend)
        row = model.tokenize("When Mary and John went to the store, John gave a drink to")
        sites = [Site(name, layer) for name in names for layer in (5, 17)]
        run = model.run([row], read=sites, write={"L11H3.z": zero()}, logits=Logits())
        found.append((run, model.generate("The capital of France is", max_new_tokens=8)[0].text))

    (expected, text), (got, same) = found
    assert same == text
    require_same(got, expected)
