"""Recorded activations: values at sites and positions of many texts, with what they are of."""

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.capture.passes import Passes, Pooled, Sites
from mechint.capture.storage import read_tensors, write_tensors
from mechint.capture.texts import AnyTexts
from mechint.errors import ConfigError, OutputError, PositionError, PromptError, SiteError
from mechint.model.base import Model
from mechint.positions import Positions, prompt
from mechint.sites import Site

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # annotations are checked under pytest, and pandas is not loaded for them

LAST = prompt(-1)
MOST_BYTES = 4 * 2**30
"""What `record` keeps in memory at most, unless told otherwise."""
KIND, FORMAT = "activations", 1


@dataclass(frozen=True)
class RecordingSize:
    """How large a recording would be."""

    texts: int
    tokens: int
    vectors: int
    """Texts x positions x sites."""
    bytes: int

    def __str__(self) -> str:
        return f"{self.texts} texts, {self.tokens} tokens, {self.vectors} vectors, {self.bytes / 2**20:.1f} MiB"


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """What stood at some sites, at some positions of each text; float32 on the CPU."""

    values: Mapping[Site, Float[Tensor, "prompt at width"]]
    """In forward order."""
    ids: tuple[str, ...]
    """One for each text; the two texts of a pair have one id."""
    groups: tuple[str, ...]
    labels: tuple[int, ...] | None
    """1 for positive and 0 for negative texts, None where there are no sides."""
    texts: tuple[str, ...]
    offsets: Int[Tensor, "prompt at"] | None
    """Which tokens, counted from the first of each text; None where they were averaged."""
    at: str
    """How the positions were chosen."""
    norms: Mapping[Site, float]
    """Median |h| over all tokens but the first of each text; without sites where no text has a second token."""
    model: Mapping[str, str]
    """Name, hash of the weights, and width."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Name and hash of the texts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", dict(sorted(self.values.items())))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.ids)

    def __repr__(self) -> str:
        sites = ", ".join(map(str, self.sites))
        sides = "" if self.labels is None else f" ({sum(self.labels)} positive)"
        return f"Activations: {len(self)} texts{sides} of {self.data.get('name')!r} at {self.at}, {sites}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where was recorded, in forward order."""
        return tuple(self.values)

    def __getitem__(self, site: str | Site) -> Float[Tensor, "prompt at width"]:
        """Return what was recorded at a site.

        Raises:
            SiteError: nothing was.
        """
        site = Site.parse(site)
        if site not in self.values:
            raise SiteError(f"{site} was not recorded. Recorded: {', '.join(map(str, self.sites))}.")
        return self.values[site]

    def single(self, site: str | Site) -> Float[Tensor, "prompt width"]:
        """Return what was recorded at a site, where one position of each text was.

        Raises:
            PositionError: several positions were recorded.
        """
        values = self[site]
        if values.shape[1] != 1:
            raise PositionError(f"{values.shape[1]} positions of each text were recorded ({self.at}), not one.")
        return values[:, 0]

    @property
    def first_position(self) -> "Activations":
        """The first of the recorded positions alone, so that there is one vector a text."""
        offsets = None if self.offsets is None else self.offsets[:, :1]
        return replace(self, values={site: values[:, :1] for site, values in self.values.items()}, offsets=offsets)

    def pick(self, ids: Collection[str]) -> "Activations":
        """Return the texts with these ids, in the order in which they were recorded.

        Raises:
            PromptError: none has.
        """
        wanted = set(ids)
        return self.rows([i for i, one in enumerate(self.ids) if one in wanted])

    def rows(self, which: Collection[int]) -> "Activations":
        """Return the texts at these places.

        Raises:
            PromptError: there are none.
        """
        if not which:
            raise PromptError(f"None of the {len(self)} recorded texts was picked. Give ids that were recorded.")
        chosen = list(which)
        return replace(
            self,
            values={site: values[chosen] for site, values in self.values.items()},
            ids=tuple(self.ids[i] for i in chosen),
            groups=tuple(self.groups[i] for i in chosen),
            labels=None if self.labels is None else tuple(self.labels[i] for i in chosen),
            texts=tuple(self.texts[i] for i in chosen),
            offsets=None if self.offsets is None else self.offsets[chosen],
        )

    def to_frame(self) -> DataFrame:
        """Return one row a text: `id`, `group`, `label` (if there are sides) and `text`."""
        import pandas as pd

        columns: dict[str, Any] = {"id": self.ids, "group": self.groups, "text": self.texts}
        return pd.DataFrame(columns if self.labels is None else {**columns, "label": self.labels})

    def save(self, folder: str | Path) -> Path:
        """Write `activations.safetensors` and `rows.parquet` into a new or empty folder, and return the folder.

        Raises:
            OutputError: the folder holds something, or cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder} exists and is not empty. Give another folder: nothing is overwritten.")
        tensors = {str(site): values for site, values in self.values.items()}
        if self.offsets is not None:
            tensors["offsets"] = self.offsets
        header = {"kind": KIND, "format": FORMAT, "at": self.at, "model": dict(self.model), "data": dict(self.data)}
        header["norms"] = {str(site): norm for site, norm in self.norms.items()}
        buffer = io.BytesIO()
        self.to_frame().to_parquet(buffer, index=False)
        write_tensors(folder / "activations.safetensors", tensors, header)
        (folder / "rows.parquet").write_bytes(buffer.getvalue())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Activations":
        """Read what `save` wrote.

        Raises:
            OutputError: something is missing or damaged, or does not belong together.
        """
        import pandas as pd

        folder = Path(folder)
        tensors, header = read_tensors(folder / "activations.safetensors", KIND, (FORMAT,))
        try:
            rows = pd.read_parquet(folder / "rows.parquet")
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise OutputError(f"{folder / 'rows.parquet'} is missing or damaged ({error}). Record again.") from error
        offsets = tensors.pop("offsets", None)
        if any(len(values) != len(rows) for values in tensors.values()):
            raise OutputError(f"{folder}: rows.parquet has {len(rows)} rows, the tensors another number. Record again.")
        return cls(
            values={Site.parse(name): values for name, values in tensors.items()},
            ids=tuple(rows["id"]),
            groups=tuple(rows["group"]),
            labels=tuple(int(label) for label in rows["label"]) if "label" in rows else None,
            texts=tuple(rows["text"]),
            offsets=offsets,
            at=header["at"],
            norms={Site.parse(name): norm for name, norm in header["norms"].items()},
            model=header["model"],
            data=header["data"],
        )


def estimate(
    model: Model, texts: AnyTexts, sites: Sites, at: Positions = LAST, *, pooled: Pooled = None
) -> RecordingSize:
    """Return how large a recording would be, without running the model; arguments and errors as in `record`."""
    plan = Passes.plan(model, texts, sites, at, pooled)
    return RecordingSize(len(plan.tokens), plan.n_tokens, len(plan.tokens) * plan.n_at * len(plan.sites), plan.n_bytes)


def record(
    model: Model,
    texts: AnyTexts,
    sites: Sites,
    at: Positions = LAST,
    *,
    pooled: Pooled = None,
    most_bytes: int = MOST_BYTES,
    progress: bool | None = None,
) -> Activations:
    """Run a model on texts and keep what stands at some sites.

    Args:
        model: to be read.
        texts: prompts, contrast data, or plain texts.
        sites: one or several, each with one vector a token (of heads: one head).
        at: which tokens of each text; equally many in all, unless pooled.
        pooled: `"mean"` or `"last"` of the selected tokens of each text; None keeps them all.
        most_bytes: refuse to keep more than this.
        progress: show a progress bar on standard error; by default only in a terminal.

    Raises:
        SiteError: the model has no such site, or it holds more than one vector a token.
        PositionError: the positions match nothing in a text, or not equally much in all without pooling.
        PromptError: no texts, or one that the model cannot read.
        ConfigError: the recording would be too large.
    """
    plan = Passes.plan(model, texts, sites, at, pooled)
    if plan.n_bytes > most_bytes:
        raise ConfigError(
            f"{len(plan.tokens)} texts x {plan.n_at} positions x {len(plan.sites)} sites are "
            f"{plan.n_bytes / 2**30:.3g} GiB; the limit is {most_bytes / 2**30:.3g} GiB. Record fewer positions or "
            "sites, pooled='mean', or means and covariances with record_moments; or raise most_bytes."
        )
    values = {
        site: torch.empty(len(plan.tokens), plan.n_at, width)
        for site, width in zip(plan.sites, plan.widths, strict=True)
    }
    norms: dict[Site, list[Tensor]] = {site: [] for site in plan.sites}
    for bucket in plan.run(progress):
        for site in plan.sites:
            values[site][bucket.rows] = bucket.values[site]
            norms[site].append(bucket.norms[site])
    return Activations(
        values,
        plan.texts.ids,
        plan.texts.groups,
        plan.texts.labels,
        plan.texts.texts,
        None if pooled == "mean" else torch.tensor(plan.selected),
        plan.where,
        median_norms(norms),
        identity(model),
        plan.data,
    )


def median_norms(norms: Mapping[Site, list[Tensor]]) -> dict[Site, float]:
    """Return the median of token norms that came in pieces; without sites where there are none."""
    joined = {site: torch.cat(pieces) for site, pieces in norms.items()}
    return {site: float(one.median()) for site, one in joined.items() if one.numel()}


def identity(model: Model) -> dict[str, str]:
    """Return what a vector remembers of its model: name, hash of the weights, width."""
    facts = model.facts
    return {"name": facts.name, "weights": model.fingerprint["weights"], "d_model": str(facts.d_model)}
