"""The report of a run: one self-contained page, made from tables and manifest alone.

Everything that comes from a model, a file or a user is escaped by the template (`<bos>` is a token, not a tag). The
page holds plotly.js once and loads nothing.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from mechint.experiment.cells import Shown, shown
from mechint.experiment.columns import meaning, title
from mechint.experiment.expectations import compare_expectations
from mechint.experiment.files import write_atomic
from mechint.experiment.guides import guide
from mechint.experiment.leading import LEADING, ORDER
from mechint.experiment.manifest import Manifest
from mechint.experiment.saved import read_back
from mechint.results import Findings

FILE, TOKENS_FILE = "report.html", "tokens.html"
TOKENS = "tokens"
"""Name of the table that the token explorer shows."""
TOP_ROWS, EXAMPLES = 15, 8
_COMMANDS = (
    ("Measure again", "mechint run experiment.toml --out ../again"),
    ("Check tables, versions and numbers", "mechint verify . --remeasure 3"),
    ("Draw figures and report again", "mechint plot ."),
)
"""To be given in the folder of results."""


def write_report(folder: Path, findings: Findings, manifest: Manifest) -> Path:
    """Write figures and report into the folder, and return the report's path.

    Raises:
        OutputError: they cannot be written.
    """
    from mechint.plots import figures, figures_html

    drawn = figures.draw(findings.kind, findings.tables) if findings.kind in figures.FIGURES else {}
    for name, text in (figures_html.pages(drawn) if drawn else {}).items():
        write_atomic(folder / "figures" / name, text)
    if explorer := tokens_page(findings, manifest):
        write_atomic(folder / TOKENS_FILE, explorer)
    fragments = {name: figures_html.fragment(figure, name) for name, figure in drawn.items()}
    script = figures_html.plotly_javascript() if drawn else ""
    write_atomic(folder / FILE, render(findings, manifest, fragments, script))
    return folder / FILE


def tokens_page(findings: Findings, manifest: Manifest) -> str:
    """Return the token explorer, where the findings hold what it shows; nothing otherwise."""
    tokens = findings.tables.get(TOKENS)
    if tokens is None or tokens.empty or "attention" not in tokens:
        return ""
    from mechint.plots import token_explorer

    about = f"{manifest['experiment']['model']} · {manifest['data']['name']} · {manifest['created']}"
    return token_explorer.page(tokens, manifest["experiment"]["question"], about=about)


def render(findings: Findings, manifest: Manifest, fragments: Mapping[str, str], script: str) -> str:
    """Return the page.

    Args:
        findings: tables, verdict and notes.
        manifest: of the run.
        fragments: the HTML of the figures by name.
        script: plotly.js.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    source = files("mechint.experiment").joinpath("report.html.j2").read_text(encoding="utf-8")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    return template.render(
        **_words(findings, manifest),
        **_tables(findings, manifest),
        figures=[
            {"name": name, "html": Markup(html), "caption": caption, "number": number}
            for number, (name, html, caption) in enumerate(_captioned(findings.kind, fragments), start=1)
        ],
        script=Markup(script),
    )


def _words(findings: Findings, manifest: Manifest) -> dict[str, Any]:
    experiment = manifest["experiment"]
    return {
        "question": experiment["question"],
        "verdict": [line for line in findings.verdict.splitlines() if line.strip()],
        "guide": guide(findings.kind),
        "notes": list(findings.notes),
        "not_run_here": experiment.get("not_run_here", ""),
        "model": _model_facts(manifest["model"]),
        "data": _data_facts(manifest, findings.tables.get("prompts")),
        "run": _run_facts(manifest),
        "packages": manifest["environment"]["packages"],
        "settings": experiment.get("settings", {}),
        "commands": _COMMANDS,
        "model_name": experiment["model"],
        "created": manifest["created"],
        "status": manifest["status"],
    }


def main_table(findings: Findings, rows: int | None = None) -> Shown:
    """Return the main table as it is shown: its leading columns, what was looked for first."""
    main = _ordered(findings)
    return shown(main if rows is None else main.head(rows), LEADING.get(findings.kind))


def _ordered(findings: Findings) -> pd.DataFrame:
    main, order = findings.to_frame(), ORDER.get(findings.kind)
    if order is None or order not in main:
        return main
    return main.iloc[(-main[order].to_numpy(dtype=float)).argsort(kind="stable")]


def _tables(findings: Findings, manifest: Manifest) -> dict[str, Any]:
    tables = dict(findings.tables)
    name, main, order = next(iter(tables)), _ordered(findings), ORDER.get(findings.kind)
    prompts, compared = tables.get("prompts"), compare_expectations(read_back(manifest), tables)
    flags = main["suppresses"].tolist() if "suppresses" in main else [False] * len(main)
    return {
        "main_name": name,
        "main": main_table(findings, TOP_ROWS),
        "rest": main_table(findings) if len(main) > TOP_ROWS else None,
        "n_rows": len(main),
        "n_top": TOP_ROWS,
        "marked": [bool(flag is True or str(flag) == "True") for flag in flags],
        "order": title(order) if order is not None and order in main else None,
        "criteria": _some(tables.get("criteria")),
        "evidence": _evidence(tables.get("evidence")),
        "tokens_file": TOKENS_FILE if "attention" in tables.get(TOKENS, ()) else None,
        "examples": shown(prompts.head(EXAMPLES)) if prompts is not None and not prompts.empty else None,
        "expected": _some(compared),
        "definitions": _definitions(tables, findings.kind),
        "files": [(f"{table}.parquet", len(frame)) for table, frame in tables.items()],
    }


def _some(table: pd.DataFrame | None) -> Shown | None:
    return None if table is None or table.empty else shown(table)


def _evidence(table: pd.DataFrame | None) -> list[tuple[str, Shown]]:
    """Return the lines of evidence, a table for each head."""
    if table is None or table.empty:
        return []
    columns = ["question", "measure", "unit", "value", "control_value", "control", "n"]
    return [(str(label), shown(own, columns)) for label, own in table.groupby("label", sort=False)]


def _captioned(kind: str, fragments: Mapping[str, str]) -> list[tuple[str, str, str]]:
    from mechint.plots.captions import CAPTIONS

    captions = CAPTIONS.get(kind, {})
    return [(name, html, captions.get(name, "")) for name, html in fragments.items()]


def _definitions(tables: Mapping[str, pd.DataFrame], kind: str) -> list[tuple[str, str, str, str]]:
    """Return name, unit, meaning and tables of every column that there is."""
    found: dict[str, list[str]] = {}
    for name, frame in tables.items():
        for column in frame.columns:
            found.setdefault(str(column), []).append(name)
    rows: list[tuple[str, str, str, str]] = []
    for column, places in found.items():
        base = column.removesuffix("_low").removesuffix("_high")
        if base != column and base in found:
            continue
        unit, text = meaning(column, kind) or ("", "")
        rows.append((column, unit, text, ", ".join(places)))
    return rows


def _model_facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts, source = model.get("facts", {}), model.get("source", {})
    rows = [("Model", str(model["spec"]))]
    rows += [("Where from", str(source[key])) for key in ("description", "note", "licence") if source.get(key)]
    if facts:
        names = (("family", "Architecture"), ("n_layers", "Layers"), ("n_heads", "Heads a layer"),
                 ("d_model", "Width of the residual stream"), ("d_vocab", "Vocabulary"))  # fmt: skip
        rows += [(name, str(facts[key])) for key, name in names if key in facts]
    for section in ("agreement", "placement", "fingerprint"):
        rows += [(f"{section.capitalize()}: {key}", str(value)) for key, value in model.get(section, {}).items()]
    return rows


def _data_facts(manifest: Manifest, prompts: pd.DataFrame | None) -> list[tuple[str, str]]:
    data = manifest["data"]
    rows = [("Prompts", f"{data['n']} ({data['name']})"), ("Hash of the prompts", data["hash"])]
    if prompts is None or prompts.empty:
        return rows
    total = len(prompts)
    if "target_position" in prompts:
        without = sum(bool(pd.isna(place)) for place in prompts["target_position"])
        rows.append(("Target occurs earlier in the prompt", f"in {total - without} of {total}; not in {without}"))
    if "correct" in prompts:
        right = sum(str(flag) == "True" for flag in prompts["correct"])
        rows.append(("Model prefers the target to the distractor", f"in {right} of {total}"))
    return rows


def _run_facts(manifest: Manifest) -> list[tuple[str, str]]:
    here, git = manifest["environment"], manifest.get("git")
    rows = [
        ("Started", manifest["created"]),
        ("Finished", str(manifest.get("finished"))),
        ("Measuring took", f"{manifest.get('wall_seconds', 0):.0f} s in {len(manifest['sessions'])} session(s)"),
        ("Peak memory", f"{manifest.get('peak_memory_bytes', 0) / 2**20:.0f} MiB"),
        ("Experiment id", manifest["uid"]),
        ("Command", manifest["command"]),
        ("Python, platform", f"{here['python']}, {here['platform']} {here['machine']}, {here['cpu_count']} processors"),
        ("PyTorch threads", str(here["torch_threads"])),
    ]
    if git is not None:
        rows.append(("Git commit", git["commit"] + (", with uncommitted changes" if git["dirty"] else "")))
    rows += [(f"Receipts: {name}", f"{count:,}") for name, count in manifest.get("receipts", {}).items()]
    return rows
