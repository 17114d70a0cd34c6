from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechint.capture.activations import Activations, estimate, record
from mechint.capture.passes import TOKENS_A_BUCKET, _buckets
from mechint.errors import ConfigError, OutputError, PositionError, PromptError, SiteError
from mechint.positions import everywhere, generated, prompt, tokens
from mechint.prompts import Prompt, PromptSet, contrast
from mechint.sites import Site
from tests.families import FAMILIES, tiny

SITES = ["L2.resid_pre", "L0.mlp_post", "L1H2.z", "L1.attn_out"]
TEXTS = [" ".join(f"w{4 + (7 * i + j) % 46}" for j in range(n)) for i, n in enumerate([3, 17, 1, 30, 8, 17, 2, 25])]


def alone(family: str, text: str, site: str) -> torch.Tensor:
    """One text by itself, unpadded, through the whole model: [pos, width]."""
    return tiny(family).run([tiny(family).tokenize(text)], read=[site])[site][0]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_recorded_is_what_each_text_gives_alone(family: str) -> None:
    recorded = record(tiny(family), TEXTS, SITES)

    assert recorded.sites == tuple(sorted(map(Site.parse, SITES)))
    for site in SITES:
        expected = torch.stack([alone(family, text, site)[-1] for text in TEXTS])
        assert torch.allclose(recorded.single(site), expected, atol=1e-4)


def test_several_positions_come_in_the_order_of_the_text() -> None:
    recorded = record(tiny("gemma3"), TEXTS, "L2.resid_post", prompt(-1) | prompt(0))

    assert recorded["L2.resid_post"].shape == (8, 2, 32)
    for i, text in enumerate(TEXTS):
        assert torch.allclose(recorded["L2.resid_post"][i], alone("gemma3", text, "L2.resid_post")[[0, -1]], atol=1e-4)
    assert recorded.offsets is not None
    assert recorded.offsets.tolist() == [[0, len(text.split())] for text in TEXTS]
    with pytest.raises(PositionError, match="2 positions"):
        recorded.single("L2.resid_post")


def test_pooling_takes_the_mean_or_the_last_of_what_is_selected() -> None:
    model, site = tiny("gpt2"), "L1.resid_post"
    mean = record(model, TEXTS, site, everywhere - prompt(0), pooled="mean")
    last = record(model, TEXTS, site, everywhere, pooled="last")

    for i, text in enumerate(TEXTS):
        h = alone("gpt2", text, site)
        assert torch.allclose(mean.single(site)[i], h[1:].mean(0), atol=1e-4)
        assert torch.allclose(last.single(site)[i], h[-1], atol=1e-4)
    assert mean.offsets is None
    assert mean.at == "mean of (everywhere - prompt(0))"


def test_the_unit_of_dose_is_the_median_over_all_tokens_but_the_first() -> None:
    site = Site.parse("L1.resid_post")
    norms = torch.cat([alone("gemma3", text, str(site))[1:].norm(dim=-1) for text in TEXTS])

    assert record(tiny("gemma3"), TEXTS, site).norms[site] == pytest.approx(float(norms.median()), rel=1e-5)


def test_texts_of_one_token_have_no_unit_of_dose() -> None:
    assert record(tiny("gemma3"), ["<bos>"], "L1.resid_post").norms == {}


def test_blocks_after_the_last_site_do_not_run() -> None:
    model = tiny("gemma3")
    ran: list[int] = []
    blocks = model.hf_model.base_model.layers
    handles = [block.register_forward_pre_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(blocks)]
    try:
        record(model, TEXTS, ["L2.resid_post", "L0.mlp_out"])
    finally:
        for handle in handles:
            handle.remove()

    assert set(ran) == {0, 1, 2}


@given(st.lists(st.integers(1, 900), min_size=1, max_size=80))
def test_buckets_hold_every_text_once_and_little_padding(lengths: list[int]) -> None:
    buckets = _buckets(lengths)

    assert sorted(row for bucket in buckets for row in bucket) == list(range(len(lengths)))
    for bucket in buckets:
        assert bucket
        assert len(bucket) == 1 or len(bucket) * max(lengths[row] for row in bucket) <= TOKENS_A_BUCKET


def test_contrast_data_keep_pairs_labels_and_groups() -> None:
    pairs = contrast(TEXTS[:3], TEXTS[3:6], groups=["a", "b", "a"])
    recorded = record(tiny("gemma3"), pairs, "L1.resid_post")

    assert recorded.ids == (*pairs.ids, *pairs.ids)
    assert recorded.labels == (1, 1, 1, 0, 0, 0)
    assert recorded.groups == ("a", "b", "a") * 2
    assert recorded.data == {"name": "contrast", "hash": pairs.content_hash}
    split = pairs.split(train=0.5, test=0.5)
    kept = recorded.pick(split.train.ids)
    assert set(kept.groups) == set(split.train.groups)
    assert torch.equal(kept["L1.resid_post"], record(tiny("gemma3"), split.train, "L1.resid_post")["L1.resid_post"])


def test_prompts_keep_ids_and_clusters() -> None:
    prompts = PromptSet("demo", (Prompt("one", "w5 w6", cluster="c"), Prompt("two", "w7")))
    recorded = record(tiny("gemma3"), prompts, "L1.resid_post")

    assert (recorded.ids, recorded.groups, recorded.labels) == (("one", "two"), ("c", "two"), None)


def test_equal_texts_share_a_group_whatever_list_they_are_in() -> None:
    one, two = (record(tiny("gemma3"), texts, "L0.mlp_out") for texts in (["w5", "w6"], ["w7", "w5"]))

    assert set(one.groups) & set(two.groups) == {one.groups[0]}


class UnusedError(Exception):
    """A model was run."""


@pytest.fixture
def never_run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*_: Any, **__: Any) -> None:
        raise UnusedError

    monkeypatch.setattr(type(tiny("gemma3")), "run", run)
    return tiny("gemma3")


def test_everything_that_can_be_refused_is_refused_before_the_model_runs(never_run: Any) -> None:
    with pytest.raises(UnusedError):
        record(never_run, TEXTS, "L1.resid_post")
    with pytest.raises(SiteError, match="has blocks L0 to L5"):
        record(never_run, TEXTS, "L6.resid_post")
    with pytest.raises(SiteError, match=r"Name heads, such as L1H0\.z"):
        record(never_run, TEXTS, "L1.z")
    with pytest.raises(SiteError, match="no vector a token"):
        record(never_run, TEXTS, "L1H0.pattern")
    with pytest.raises(SiteError, match="No site"):
        record(never_run, TEXTS, [])
    with pytest.raises(PositionError, match="matches nothing in 8 of 8 texts"):
        record(never_run, TEXTS, "L1.resid_post", generated())
    with pytest.raises(PositionError, match="matches nothing in 6 of 8 texts"):
        record(never_run, TEXTS, "L1.resid_post", prompt(20))
    with pytest.raises(PositionError, match="pooled='mean'"):
        record(never_run, TEXTS, "L1.resid_post", everywhere)
    with pytest.raises(PromptError, match="no texts"):
        record(never_run, [], "L1.resid_post")
    with pytest.raises(PromptError, match="reads at most 64"):
        record(never_run, ["w5 " * 70], "L1.resid_post")
    with pytest.raises(ConfigError, match="8 texts x 1 positions x 1 sites"):
        record(never_run, TEXTS, "L1.resid_post", most_bytes=1000)


def test_the_estimate_is_the_size_of_what_is_recorded(never_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    size = estimate(never_run, TEXTS, SITES, prompt(slice(-2, None)))
    monkeypatch.undo()
    recorded = record(tiny("gemma3"), TEXTS, SITES, prompt(slice(-2, None)))

    assert size.bytes == sum(4 * values.numel() for values in recorded.values.values())
    assert (size.texts, size.vectors) == (8, 8 * 2 * 4)
    assert size.tokens == sum(len(text.split()) + 1 for text in TEXTS)


def test_tokens_may_be_chosen_by_what_they_are() -> None:
    texts = ["w5 w9 w6", "w9 w7 w8 w5"]
    recorded = record(tiny("gemma3"), texts, "L1.resid_post", tokens({9}))

    assert recorded.offsets is not None
    assert recorded.offsets.tolist() == [[2], [1]]


@pytest.mark.parametrize("labelled", [True, False])
def test_saved_activations_come_back_whole(tmp_path: Path, labelled: bool) -> None:
    texts = contrast(TEXTS[:3], TEXTS[3:6]) if labelled else TEXTS
    recorded = record(tiny("gemma3"), texts, SITES)
    back = Activations.load(recorded.save(tmp_path / "acts"))

    assert all(torch.equal(back[site], recorded[site]) for site in SITES)
    assert back.offsets is not None
    assert torch.equal(back.offsets, torch.as_tensor(recorded.offsets))
    for name in ("sites", "ids", "groups", "labels", "texts", "at", "norms", "model", "data"):
        assert getattr(back, name) == getattr(recorded, name)
    with pytest.raises(OutputError, match="not empty"):
        recorded.save(tmp_path / "acts")


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    recorded = record(tiny("gemma3"), TEXTS, "L0.mlp_out")
    folder, other = recorded.save(tmp_path / "a"), recorded.pick(recorded.ids[:2]).save(tmp_path / "b")
    (folder / "rows.parquet").write_bytes((other / "rows.parquet").read_bytes())
    with pytest.raises(OutputError, match="another number"):
        Activations.load(folder)
    (folder / "rows.parquet").write_bytes(b"no table")
    with pytest.raises(OutputError, match="damaged"):
        Activations.load(folder)
    (folder / "rows.parquet").unlink()
    with pytest.raises(OutputError, match="missing"):
        Activations.load(folder)


def test_what_was_not_recorded_is_not_there() -> None:
    recorded = record(tiny("gemma3"), TEXTS, "L0.mlp_out")
    with pytest.raises(SiteError, match=r"Recorded: L0\.mlp_out"):
        _ = recorded["L1.mlp_out"]
    with pytest.raises(PromptError, match="None of the 8"):
        recorded.pick(["nobody"])
