"""The token explorer: one web page on which a reader points at a token and sees what a head does there.

It takes the table of token details alone (one row a head, document and position), computes nothing, and needs no
network: data, style and script are in the page. Tokens are data and never markup, `</script>` included. After the web
page that goes with McDougall et al. 2023, "Copy Suppression".
"""

import json
import math
from importlib.resources import files
from typing import Any

import pandas as pd

from mechint.errors import OutputError
from mechint.plots.figures_style import BLUE, DIVERGING, GREEN, INK, MUTED, PURPLE, VERMILLION
from mechint.plots.rows import records, where

SHARED = ("token", "next_token", "loss", "predicted")
"""What belongs to a position whichever head is meant."""
OWN = (
    "loss_change",
    "loss_change_kept",
    "kl",
    "attention",
    "suppressed",
    "boosted",
    "predicted_without",
    "in_context",
    "steps",
)
"""What belongs to a head there."""
_LISTS = ("attention", "suppressed", "boosted", "predicted", "predicted_without", "in_context", "steps")
_KEYS = ("label", "document", "position")
_COLOURS = {
    "diverging": [colour for _, colour in DIVERGING],
    "kl": ["#f7f7f7", PURPLE],
    "attention": ["#f7f7f7", GREEN],
    "ink": INK,
    "muted": MUTED,
    "below": BLUE,
    "above": VERMILLION,
}


def page(tokens: pd.DataFrame, title: str, *, about: str = "") -> str:
    """Return the page, as HTML that opens from a file.

    A link may name what to show: `page.html#head=L10H7&document=0&position=12&colour=kl`, the document by its place
    from 0 or by its id.

    Args:
        tokens: one row a head, document and position, every head on every document; the columns `label`, `document`
            and `position`, those of `SHARED` and those of `OWN`, lists as JSON.
        title: the heading.
        about: a line beneath it, such as model, data and what the means were taken over.

    Raises:
        OutputError: columns are missing, there are no rows, or a head lacks some positions.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    source = files("mechint.plots").joinpath("token_explorer.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source)
    return template.render(title=title, about=about, data=Markup(_script_safe(_data(tokens))))


def _data(tokens: pd.DataFrame) -> dict[str, Any]:
    missing = [name for name in (*_KEYS, *SHARED, *OWN) if name not in tokens]
    if missing:
        raise OutputError(f"The table of tokens has no columns {', '.join(missing)}. Expected those of token_details.")
    if tokens.empty:
        raise OutputError("The table of tokens has no rows, so there is nothing to explore.")
    heads, documents = list(dict.fromkeys(tokens["label"])), list(dict.fromkeys(tokens["document"]))
    each = {(head, name): _rows(tokens, head, name) for head in heads for name in documents}
    for (head, name), rows in each.items():
        if [row["position"] for row in rows] != [row["position"] for row in each[heads[0], name]] or not rows:
            raise OutputError(
                f"{head} has not the same positions of document {name!r} as {heads[0]}. Give all of both."
            )
    return {
        "heads": [str(head) for head in heads],
        "documents": [
            {
                "id": str(name),
                "positions": [{"position": row["position"]} | _values(row, SHARED) for row in each[heads[0], name]],
                "heads": [[_values(row, OWN) for row in each[head, name]] for head in heads],
            }
            for name in documents
        ],
        "colours": _COLOURS,
    }


def _rows(tokens: pd.DataFrame, head: str, document: str) -> list[dict[str, Any]]:
    own = where(tokens, (tokens["label"] == head) & (tokens["document"] == document))
    return [row | {"position": int(row["position"])} for row in records(own.sort_values(by="position"))]


def _values(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: json.loads(row[name]) if name in _LISTS else _plain(row[name]) for name in names}


def _plain(value: Any) -> str | float | None:
    """Return what JSON can hold: undefined numbers become null, others keep what anybody reads."""
    if isinstance(value, str):
        return value
    number = float(value)
    return round(number, 5) if math.isfinite(number) else None


def _script_safe(data: dict[str, Any]) -> str:
    r"""Write data so that it can stand in a script element: nothing in it can end the element or begin another.

    Examples:
        >>> _script_safe({"token": "</script>"})
        '{"token":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
