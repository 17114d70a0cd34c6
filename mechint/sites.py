"""Sites: named places in the network, such as `L10H7.z` or `L9.resid_post`.

A site is a component, usually of a block, sometimes of one head. Text and object are two forms of one thing
(`Site.parse(str(site)) == site`), sites sort in the order in which a forward pass meets them, and TransformerLens
hook names such as `blocks.9.hook_resid_post` are read too. Heads are query heads; keys and values are shared among
query heads in many models, so one key/value head is written `L3KV0.v`.
"""

import re
from dataclasses import dataclass
from functools import total_ordering

from mechint.errors import SiteError

# Component -> (axes of its activation, its TransformerLens name within the block). Listed in forward order.
_BLOCK: dict[str, tuple[str, str]] = {
    "resid_pre": ("batch pos d_model", "hook_resid_pre"),
    "q": ("batch pos head d_head", "attn.hook_q"),
    "k": ("batch pos kv_head d_head", "attn.hook_k"),
    "v": ("batch pos kv_head d_head", "attn.hook_v"),
    "scores": ("batch head query key", "attn.hook_attn_scores"),
    "pattern": ("batch head query key", "attn.hook_pattern"),
    "z": ("batch pos head d_head", "attn.hook_z"),
    "attn_out": ("batch pos d_model", "hook_attn_out"),
    "resid_mid": ("batch pos d_model", "hook_resid_mid"),
    "mlp_post": ("batch pos d_mlp", "mlp.hook_post"),
    "mlp_out": ("batch pos d_model", "hook_mlp_out"),
    "resid_post": ("batch pos d_model", "hook_resid_post"),
}
_BEFORE: dict[str, tuple[str, str]] = {
    "embed": ("batch pos d_model", "hook_embed"),
    "pos_embed": ("batch pos d_model", "hook_pos_embed"),
}
_AFTER: dict[str, tuple[str, str]] = {"final_norm": ("batch pos d_model", "ln_final.hook_out")}

_ORDER = {name: i for i, name in enumerate([*_BEFORE, *_BLOCK, *_AFTER])}
_BY_TL_NAME = {tl: name for name, (_, tl) in _BLOCK.items()}
_BY_TL_NAME_OUTSIDE = {tl: name for name, (_, tl) in (_BEFORE | _AFTER).items()}
_BY_TL_NAME_OUTSIDE["ln_final.hook_normalized"] = "final_norm"

_TEXT = re.compile(r"L(?P<layer>\d+)(?:(?P<kind>H|KV)(?P<head>\d+))?\.(?P<component>\w+)")
_TL = re.compile(r"blocks\.(?P<layer>\d+)\.(?P<name>[\w.]+)")

_EXPECTED = (
    "Expected a block, perhaps a head, and a component, such as 'L9.resid_post', 'L10H7.z' or 'L3KV0.v'; or one of "
    f"{', '.join([*_BEFORE, *_AFTER])}. Components of a block: {', '.join(_BLOCK)}."
)


@total_ordering
@dataclass(frozen=True)
class Site:
    """A place in the network.

    Examples:
        >>> Site.parse("L10H7.z")
        Site('L10H7.z')
        >>> Site.parse("blocks.9.hook_resid_post") == Site("resid_post", layer=9)
        True
        >>> sorted([Site.parse("L2.resid_pre"), Site.parse("final_norm"), Site.parse("L1.z")])
        [Site('L1.z'), Site('L2.resid_pre'), Site('final_norm')]
    """

    component: str
    """What is there: `resid_pre`, `z`, `mlp_out`, …"""
    layer: int | None = None
    """Its block, from 0; None for `embed`, `pos_embed` and `final_norm`."""
    head: int | None = None
    """One query head (one key/value head for `k` and `v`); None for all of them."""

    def __post_init__(self) -> None:
        """Refuse a combination that no model has."""
        inside = self.component in _BLOCK
        if not inside and self.component not in _BEFORE and self.component not in _AFTER:
            raise SiteError(f"{self.component!r} is not a component. {_EXPECTED}")
        if (self.layer or 0) < 0 or (self.head or 0) < 0:
            raise SiteError(f"{self.component!r}: got block {self.layer} and head {self.head}. Both count from 0.")
        if inside == (self.layer is None):
            where = "needs a block, as in 'L3." if inside else "belongs to no block: write '"
            raise SiteError(f"{self.component!r} {where}{self.component}'.")
        if self.head is not None and not self.per_head:
            raise SiteError(f"{self.component!r} has no heads: write 'L{self.layer}.{self.component}'.")

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """Read `L10H7.z`, `final_norm` or a TransformerLens name; a Site is returned as it is.

        Raises:
            SiteError: the text is none of these.
        """
        if isinstance(text, Site):
            return text
        if text in _BEFORE or text in _AFTER:
            return cls(text)
        if text in _BY_TL_NAME_OUTSIDE:
            return cls(_BY_TL_NAME_OUTSIDE[text])
        if (match := _TL.fullmatch(text)) and match["name"] in _BY_TL_NAME:
            return cls(_BY_TL_NAME[match["name"]], int(match["layer"]))
        match = _TEXT.fullmatch(text)
        if match is None or match["component"] not in _BLOCK:
            raise SiteError(f"Cannot read {text!r} as a site. {_EXPECTED}")
        head = None if match["head"] is None else int(match["head"])
        site = cls(match["component"], int(match["layer"]), head)
        if head is not None and (match["kind"] == "KV") != site.of_kv_head:
            right = f"L{site.layer}{'KV' if site.of_kv_head else 'H'}{head}.{site.component}"
            owner = "key/value heads" if site.of_kv_head else "query heads"
            raise SiteError(f"Cannot read {text!r}: {site.component!r} belongs to {owner}. Write {right!r}.")
        return site

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of the whole activation, before a head is picked."""
        return tuple((_BLOCK | _BEFORE | _AFTER)[self.component][0].split())

    @property
    def per_head(self) -> bool:
        """Whether the activation has one entry a head."""
        return "head" in self.axes or self.of_kv_head

    @property
    def of_kv_head(self) -> bool:
        """Whether its heads are key/value heads."""
        return "kv_head" in self.axes

    @property
    def head_axis(self) -> int:
        """Which axis counts heads."""
        return self.axes.index("kv_head" if self.of_kv_head else "head")

    @property
    def position_axis(self) -> int:
        """Which axis counts token positions; for scores and patterns, the positions attended from."""
        return self.axes.index("query" if "query" in self.axes else "pos")

    @property
    def transformer_lens_name(self) -> str:
        """The name of this site's hook in TransformerLens."""
        tl_name = (_BLOCK | _BEFORE | _AFTER)[self.component][1]
        return tl_name if self.layer is None else f"blocks.{self.layer}.{tl_name}"

    @property
    def whole(self) -> "Site":
        """This site with all its heads."""
        return Site(self.component, self.layer)

    def __str__(self) -> str:
        if self.layer is None:
            return self.component
        head = "" if self.head is None else f"{'KV' if self.of_kv_head else 'H'}{self.head}"
        return f"L{self.layer}{head}.{self.component}"

    def __repr__(self) -> str:
        return f"Site({str(self)!r})"

    def _key(self) -> tuple[float, int, int]:
        outside = -1.0 if self.component in _BEFORE else float("inf")
        layer = outside if self.layer is None else float(self.layer)
        return layer, _ORDER[self.component], -1 if self.head is None else self.head

    def __lt__(self, other: "Site") -> bool:
        return self._key() < other._key()


def head_label(layer: int, head: int) -> str:
    """Write a head the way the field does.

    Examples:
        >>> head_label(10, 7)
        'L10H7'
    """
    return f"L{layer}H{head}"


def parse_head(text: str) -> tuple[int, int]:
    """Read `L10H7`, or the papers' `10.7`, as (layer, head).

    Examples:
        >>> parse_head("L10H7"), parse_head("10.7")
        ((10, 7), (10, 7))

    Raises:
        SiteError: the text is neither.
    """
    match = re.fullmatch(r"L(\d+)H(\d+)|(\d+)\.(\d+)", text.strip())
    if match is None:
        raise SiteError(
            f"Cannot read {text!r} as a head. Expected a layer and a query head, such as 'L10H7' or '10.7'."
        )
    layer, head = (group for group in match.groups() if group is not None)
    return int(layer), int(head)
