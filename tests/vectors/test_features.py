from typing import Any

import pytest
import torch

from mechint.capture.activations import record
from mechint.errors import ConfigError, SiteError
from mechint.vectors.features import sae_feature
from tests.families import tiny


class Metadata:
    """As SAELens' own: what is not there is None."""

    def __init__(self, **given: Any) -> None:
        self.__dict__ |= given

    def __getattr__(self, name: str) -> None:
        return None


class Sae:
    """What a SAELens object shows."""

    def __init__(self, width: int = 32, **metadata: Any) -> None:
        self.cfg = type("Config", (), {"metadata": Metadata(**metadata)})()
        self.W_dec = torch.nn.Parameter(torch.randn(6, width, generator=torch.Generator().manual_seed(0)))


def test_a_feature_writes_its_decoder_row_at_the_hook_of_its_metadata() -> None:
    sae = Sae(hook_name="blocks.1.hook_resid_post", model_name="small")
    vector = sae_feature(sae, 3, tiny("gemma3"), concept="commas")

    assert [str(site) for site in vector.sites] == ["L1.resid_post"]
    assert torch.allclose(vector["L1.resid_post"], sae.W_dec[3].detach() / sae.W_dec[3].detach().norm())
    assert vector.concept == "commas"
    vector.check(tiny("gemma3"))


def test_reference_activations_give_the_unit_of_dose() -> None:
    model = tiny("gemma3")
    reference = record(model, ["w5 w6 w7", "w8 w9"], "L1.resid_post")
    vector = sae_feature(Sae(hook_name="blocks.1.hook_resid_post"), 0, model, reference=reference)

    assert float(vector.step("L1.resid_post", 1.0).norm()) == pytest.approx(reference.norms[vector.sites[0]])


def test_a_transcoder_writes_where_its_output_belongs_and_a_head_where_its_index_says() -> None:
    transcoder = Sae(hook_name="blocks.1.hook_resid_mid", hook_name_out="blocks.1.hook_mlp_out")
    head = Sae(width=16, hook_name="blocks.1.attn.hook_z", hook_head_index=2)

    assert str(sae_feature(transcoder, 0, tiny("gemma3")).sites[0]) == "L1.mlp_out"
    assert str(sae_feature(head, 0, tiny("gemma3")).sites[0]) == "L1H2.z"


@pytest.mark.parametrize(
    ("sae", "why"),
    [
        (Sae(hook_name="blocks.40.hook_resid_post"), "has blocks L0 to L5"),
        (Sae(hook_name="blocks.1.hook_nothing"), "Cannot read"),
        (Sae(), "name no hook"),
        (Sae(width=31, hook_name="blocks.1.hook_resid_post"), "writes 31 numbers"),
        (Sae(hook_name="blocks.1.attn.hook_z"), "one vector for each head"),
    ],
)
def test_an_sae_whose_hook_is_not_in_the_model_is_refused(sae: Any, why: str) -> None:
    with pytest.raises(SiteError, match=why):
        sae_feature(sae, 0, tiny("gemma3"))


def test_a_feature_that_is_not_there_or_writes_nothing_is_refused() -> None:
    sae = Sae(hook_name="blocks.1.hook_resid_post")
    with pytest.raises(ConfigError, match="features 0 to 5"):
        sae_feature(sae, 6)
    with torch.no_grad():
        sae.W_dec[2] = 0
    with pytest.raises(ConfigError, match="writes nothing"):
        sae_feature(sae, 2)
    with pytest.raises(ConfigError, match="no SAE of SAELens"):
        sae_feature(object(), 0)
