"""Where sites are among the modules of a transformers model, and visits to them by plain hooks.

A place is `(path, end, columns, n_heads)`, as `nnsight_trace` reads it.
"""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mechint.errors import SiteError
from mechint.interventions import Intervention
from mechint.model.nnsight_trace import put, shown
from mechint.model.roles import Roles
from mechint.model.steered import Write
from mechint.positions import TokenBatch
from mechint.sites import Site

Place = tuple[str, str, Tensor | None, int | None]
Visit = Callable[[Tensor], Tensor | None]


def find_places(roles: Roles, paths: Mapping[nn.Module, str], n_heads: int) -> dict[str, Place]:
    """Return where each site is, by its TransformerLens name, which the rest of the package uses."""
    outside = {Site("embed"): roles.embed, Site("final_norm"): roles.ln_final}
    if roles.pos_embed is not None:
        outside[Site("pos_embed")] = roles.pos_embed
    found: dict[Site, Place] = {site: (paths[module], "output", None, None) for site, module in outside.items()}
    for layer, block in enumerate(roles.blocks):
        whole, attention = paths[block.original_component], paths[block.attn.original_component]
        inside: dict[str, Place] = {
            "resid_pre": (whole, "input", None, None),
            "scores": (attention, "scores", None, None),
            "pattern": (attention, "pattern", None, None),
            "z": (paths[block.attn.o], "input", None, n_heads),
            "attn_out": (paths[block.ln1_post or block.attn.o], "output", None, None),
            "mlp_post": (paths[block.mlp.out], "input", None, None),
            "mlp_out": (paths[block.ln2_post or block.mlp.original_component], "output", None, None),
            "resid_post": (whole, "output", None, None),
        }
        for name, part in block.attn.projections.items():
            inside[name] = (paths[part.linear], "output", part.columns, part.n_heads)
        if not roles.parallel:
            inside["resid_mid"] = (paths[block.ln2 or block.mlp.original_component], "input", None, None)
        found |= {Site(name, layer): place for name, place in inside.items()}
    return {site.transformer_lens_name: place for site, place in found.items()}


def as_bridge_config(hf_model: Any, roles: Roles) -> SimpleNamespace:
    """Return what `read_facts` reads off a bridge, from the configuration of transformers."""
    config, n_heads = hf_model.config, hf_model.config.num_attention_heads
    return SimpleNamespace(
        architecture=type(hf_model).__name__,
        n_layers=len(roles.blocks),
        n_heads=n_heads,
        n_key_value_heads=getattr(config, "num_key_value_heads", None),
        d_model=config.hidden_size,
        d_head=getattr(config, "head_dim", None) or config.hidden_size // n_heads,
        d_vocab=config.vocab_size,
        n_ctx=config.max_position_embeddings,
        positional_embedding_type="rotary" if roles.pos_embed is None else "standard",
    )


def index_of(columns: Tensor | None) -> Any:
    """Return what takes columns [batch, at] out of [batch, pos, ...]; everything for None."""
    return ... if columns is None else (torch.arange(len(columns))[:, None], columns)


def writes_by_place(write: Write, batch: TokenBatch) -> dict[str, list[tuple[Any, ...]]]:
    """Return what is to be rewritten at each place, as `nnsight_trace.rewriting` takes it."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for text, given in write.items():
        site = Site.parse(text)
        head_axis = site.head_axis if site.per_head else None
        axis = site.position_axis - (site.head is not None and site.head_axis < site.position_axis)
        here = found.setdefault(site.transformer_lens_name, [])
        for intervention in [given] if isinstance(given, Intervention) else given:
            tokens = intervention.where.mask(batch)
            here.append((intervention.rewrite, tokens, site.head, head_axis, axis, site.component == "scores"))
    return found


def hook(hf_model: nn.Module, name: str, place: Place, visit: Visit) -> Any:
    """Pay a visit in a pass that no trace surrounds; returns the handle that ends it.

    Raises:
        SiteError: the place is inside an attention function, which only a trace can see.
    """
    path, end, columns, n_heads = place
    module = hf_model.get_submodule(path)

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        del module, args
        new = visit(shown(output, columns, n_heads))
        return None if new is None else put(output, columns, n_heads, new)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del module
        given = args[0] if args else kwargs["hidden_states"]
        new = visit(shown(given, columns, n_heads))
        if new is None:
            return None
        new = put(given, columns, n_heads, new)
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    if end == "output":
        return module.register_forward_hook(after)
    if end == "input":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    raise SiteError(
        f"{Site.parse(name)} cannot be rewritten in a pass that somebody else starts: nnsight sees it inside its own "
        "traces alone. Generate with this package, or write z instead."
    )
