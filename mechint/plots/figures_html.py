"""Figures as parts of a web page that opens without a network."""

from typing import cast

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

_CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}


def plotly_javascript() -> str:
    """Return the whole of plotly.js, to be written into a page once."""
    return get_plotlyjs()


def fragment(figure: go.Figure, name: str) -> str:
    """Return the HTML of one figure without plotly.js.

    Args:
        figure: what to show.
        name: becomes the element's id, so that the same figure gives the same page.
    """
    return to_html(figure, full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=f"figure-{name}")


def page(figure: go.Figure, name: str, *, script: str = "plotly.min.js") -> str:
    """Return a page with one figure, which loads plotly.js from the file `script` beside it."""
    return to_html(figure, full_html=True, include_plotlyjs=cast(bool, script), config=_CONFIG, div_id=f"figure-{name}")


def pages(figures: dict[str, go.Figure]) -> dict[str, str]:
    """Return the files of a folder of figures, text by file name: a page each, and plotly.js once."""
    return {f"{name}.html": page(figure, name) for name, figure in figures.items()} | {
        "plotly.min.js": plotly_javascript()
    }
