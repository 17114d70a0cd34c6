"""The same prompts continued without and with a plan, and the receipt of what the plan did."""

import html
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechint.model.base import Model
from mechint.steering.generation import Completions, Prompts, generate
from mechint.steering.plan import Plan
from mechint.steering.receipts import Receipt


@dataclass(frozen=True, eq=False, repr=False)
class SideBySide:
    """What a model writes by itself, and what it writes under a plan; both with the same draws."""

    unsteered: Completions
    steered: Completions

    @property
    def receipt(self) -> Receipt:
        """What the plan did."""
        assert self.steered.receipt is not None
        return self.steered.receipt

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each prompt: `prompt`, `unsteered`, `steered`."""
        texts = {"unsteered": self.unsteered.texts, "steered": self.steered.texts}
        return pd.DataFrame({"prompt": [one.prompt for one in self.steered], **texts})

    def __repr__(self) -> str:
        rows = self.to_frame().to_dict("records")
        texts = (f"{row['prompt']}\n  unsteered:{row['unsteered']}\n  steered:{row['steered']}" for row in rows)
        return "\n\n".join([*texts, self.receipt.verdict])

    def _repr_html_(self) -> str:
        table = self.to_frame().style.hide(axis="index").set_properties(**{"text-align": "left"})
        table.format(escape="html")  # a model may write markup
        return f"{table.to_html()}<p>{html.escape(self.receipt.verdict)}</p>"


def side_by_side(model: Model, prompts: Prompts, plan: Plan, **settings: Any) -> SideBySide:
    """Write on from each prompt twice: as the model is, and under a plan.

    Args:
        model: what writes.
        prompts: one text, several, or a prompt set.
        plan: what to change.
        settings: of `generate`, the same for both; draws hang on seed and prompt alone.

    Raises:
        NeverFiredError: a part of the plan that met no token; and what `generate` raises.
    """
    return SideBySide(generate(model, prompts, **settings), generate(model, prompts, plan, **settings))
