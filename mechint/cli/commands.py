"""The command line: `mechint scan`, `steer`, `run`, `plot`, `verify` and `models`.

Nothing heavy is imported before a command needs it. A mistake of the user's is one message on standard error and
exit code 2; Ctrl-C keeps what was measured, says how to go on, and ends with exit code 130.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mechint
from mechint.cli.printing import aligned, planned, print_columns
from mechint.errors import ConfigError, MechintError

if TYPE_CHECKING:
    from mechint.experiment.config import ExperimentConfig
    from mechint.experiment.registry import AnalysisKind
    from mechint.experiment.runner import Outcome

app = typer.Typer(
    name="mechint",
    help="Find out how a language model works, with controls, intervals and receipts.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_given: ContextVar[Mapping[str, Any]] = ContextVar("_given", default=MappingProxyType({}))
"""What `main` was given, for the commands: Typer has no way to pass it on."""

Out = Annotated[Path | None, typer.Option(help="Folder for the results; by default a new one under results/.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out; measure only what is missing.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and write nothing.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
Folder = Annotated[Path, typer.Argument(help="A folder of results.")]


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """Turn our own errors into one message, and Ctrl-C into the command that goes on."""

    @functools.wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except MechintError as error:
            if options.get("debug"):
                raise
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as stop:
            folder = getattr(stop, "folder", None)
            if folder is None:
                typer.echo("\nInterrupted.", err=True)
            else:
                typer.echo(f"\n{stop} Go on with:\n  {_resume_command(folder)}", err=True)
            raise typer.Exit(130) from stop

    return guarded


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"mechint {mechint.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find out how a language model works, with controls, intervals and receipts."""


@app.command(short_help="Find heads that suppress copies, and who repairs their loss.")
@_told
def scan(
    model: Annotated[str, typer.Option(help="Name, Hugging Face id, folder or GGUF file.")] = "gemma3-270m",
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one JSON object a line; by default two-name sentences.")
    ] = None,
    out: Out = None,
    n: Annotated[int | None, typer.Option(min=1, help="How many prompts; by default 64, or the whole file.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    ablation: Annotated[str, typer.Option(help="What replaces a head's output: mean, zero or resample.")] = "mean",
    top: Annotated[int, typer.Option(min=1, help="Heads whose repair is taken apart.")] = 3,
    resume: Resume = False,
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Find the heads that suppress copies in some prompts, and who repairs their loss."""
    del debug
    from mechint.experiment.config import parse_config

    source = {"kind": "ioi"} if prompts is None else {"kind": "file", "file": str(prompts)}
    given = {
        "question": f"Which heads of {Path(model).name} suppress copies in these prompts, and who repairs their loss?",
        "analysis": "copy_suppression",
        "model": model,
        "seed": seed,
        "prompts": source | ({} if n is None else {"n": n}),
        "settings": {"ablation": ablation, "top": top},
    }
    config = parse_config(given, origin="mechint scan", analyses=_analyses())
    _run(config, out, f"scan-{Path(model).name}", resume=resume, dry_run=dry_run)


@app.command(short_help="Write on from prompts without and with a steering vector.")
@_told
def steer(
    prompts: Annotated[list[str], typer.Argument(help="Texts to write on from, each in quotes.")],
    vector: Annotated[Path, typer.Option(help="A saved vector: .safetensors of mechint, or a .gguf control vector.")],
    model: Annotated[str, typer.Option(help="Name, Hugging Face id, folder or GGUF file.")] = "gemma3-270m",
    dose: Annotated[float | None, typer.Option(help="How much; by default the calibrated dose.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of the dose: norm (default), calibrated, token or raw.")] = None,
    where: Annotated[str, typer.Option(help="Tokens to steer: everywhere, prompt or generated.")] = "everywhere",
    norm: Annotated[str, typer.Option(help="free, or preserve to keep each token's length.")] = "free",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most that is written.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Write the receipt's picture to this HTML file.")] = None,
    debug: Debug = False,
) -> None:
    """Write on from prompts without and with a steering vector, side by side, with the receipt of what it did."""
    del debug
    from mechint.organisms import load
    from mechint.steering.parts import add
    from mechint.steering.side_by_side import side_by_side

    if where not in (choices := ("everywhere", "prompt", "generated")):
        raise ConfigError(f"--where {where} is not known. There are: {', '.join(choices)}.")
    if picture is not None and (picture.exists() or not picture.parent.is_dir()):
        what = "exists" if picture.exists() else "is in a folder that does not"
        raise ConfigError(f"{picture} {what}. Give a new file in a folder that exists: nothing is overwritten.")
    loaded = load(model)
    positions = mechint.everywhere if where == "everywhere" else getattr(mechint, where)()
    plan = add(_vector(vector, loaded), dose, unit=unit, where=positions, norm=norm)
    found = side_by_side(loaded, prompts, plan, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    for row in found.to_frame().to_dict("records"):
        print_columns(row["prompt"], {"unsteered": row["unsteered"], "steered": row["steered"]})
    typer.echo(f"Plan: {plan}\nReceipt: {found.receipt.verdict}")
    if picture is not None:
        found.receipt.plot().write_html(picture)
        typer.echo(f"Picture: {picture}")


@app.command(short_help="Run an experiment file.")
@_told
def run(
    file: Annotated[Path, typer.Argument(help="An experiment file (TOML).")],
    out: Out = None,
    model: Annotated[str | None, typer.Option(help="Use this model instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Use this seed instead of the file's.")] = None,
    engine: Annotated[str, typer.Option(help="Where to run: local.")] = "local",
    resume: Resume = False,
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Run an experiment file."""
    del debug
    from mechint.experiment.config import read_config

    if engine != "local":
        raise ConfigError(f"--engine {engine} is not known. There is: local.")
    config = read_config(file, analyses=_analyses()).override(model=model, seed=seed)
    name = file.resolve().parent.name if file.stem == "experiment" else file.stem
    _run(config, out, name, resume=resume, dry_run=dry_run)


@app.command(short_help="Draw figures and report again; no model is needed.")
@_told
def plot(folder: Folder, debug: Debug = False) -> None:
    """Draw the figures and the report of a run again, from its tables; no model is needed."""
    del debug
    from mechint.experiment.replot import replot

    typer.echo(f"Report: {replot(folder)}")


@app.command(short_help="Check a run's tables, versions and known numbers.")
@_told
def verify(
    folder: Folder,
    remeasure: Annotated[int, typer.Option(min=0, help="Load the model and measure so many units again.")] = 0,
    debug: Debug = False,
) -> None:
    """Check tables, versions and known numbers of a run; exit code 1 if anything critical differs."""
    del debug
    from mechint.experiment.verify import verify as check

    found = check(folder, remeasure=remeasure, **_given.get())
    differing = found.differing()
    typer.echo(f"{len(found.checks) - len(differing)} of {len(found.checks)} checks pass.")
    for row in differing:
        detail = f"recorded {row['recorded']}, found {row['found']}" if row["recorded"] else ""
        words = [f"  {row['severity'] or row['status']}: {row['check']}", detail, row["note"]]
        typer.echo("; ".join(word for word in words if word))
    typer.echo(f"Result: {found.status}")
    if found.status == "failed":
        raise typer.Exit(1)


@app.command(short_help="List the models that need no network.")
@_told
def models(debug: Debug = False) -> None:
    """List the models that need no network."""
    del debug
    from mechint.model import embedded
    from mechint.organisms import ORGANISMS, PREFIX

    for card in embedded.list_models():
        state = "converted already" if card.ready else "converted at the first load, which takes about a minute"
        typer.echo(f"{card.name}\n  {card.description}\n  {card.note}\n  {card.source}; {card.licence}")
        typer.echo(f"  {card.gigabytes} GB in the cache; {state}\n")
    for name, (_, _, description) in ORGANISMS.items():
        typer.echo(f"{PREFIX}{name}\n  {description}\n")
    typer.echo("Besides: a Hugging Face id (needs a network once), a folder, or a GGUF file.")


def main(arguments: Sequence[str] | None = None, **given: Any) -> None:
    """Run the command line, and end the process.

    Args:
        arguments: the words after `mechint`; by default those of the process.
        given: other `analyses`, `load_model` or `make_prompts`, as of `runner.run`.
    """
    token = _given.set(given)
    try:
        app(None if arguments is None else list(arguments))
    finally:
        _given.reset(token)


def _analyses() -> "Mapping[str, AnalysisKind]":
    from mechint.experiment.registry import ANALYSES

    return _given.get().get("analyses", ANALYSES)


def _vector(path: Path, model: Any) -> Any:
    """Read a vector of ours, or a control vector of llama.cpp."""
    from mechint.vectors.gguf import import_gguf
    from mechint.vectors.vector import SteeringVector

    return import_gguf(path, model) if path.suffix == ".gguf" else SteeringVector.load(path)


def _run(config: "ExperimentConfig", out: Path | None, name: str, *, resume: bool, dry_run: bool) -> None:
    from mechint.experiment import runner

    if resume and out is None:
        raise ConfigError("--resume needs --out: the folder of the run to go on with.")
    folder = _fresh(name) if out is None else out
    if not dry_run:  # which writes nothing
        typer.echo(f"Results: {folder}", err=True)
    outcome = runner.run(config, folder, resume=resume, dry_run=dry_run, argv=sys.argv, **_given.get())
    if dry_run:
        for line in planned(outcome.plan):
            typer.echo(line)
        return
    _show(outcome)


def _show(outcome: "Outcome") -> None:
    """Print the verdict, the top of the main table, and where the report is."""
    from mechint.experiment.report import main_table

    if outcome.findings is None:
        return
    typer.echo(f"\n{outcome.findings.verdict}\n")
    typer.echo(aligned(main_table(outcome.findings, 5)))
    typer.echo(f"\nReport: {outcome.folder / 'report.html'}")


def _fresh(name: str) -> Path:
    """Return a folder under results/ that does not exist yet."""
    base = Path("results") / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    choices = (base if count == 1 else base.with_name(f"{base.name}-{count}") for count in range(1, 1000))
    return next(folder for folder in choices if not folder.exists())


def _resume_command(folder: Path) -> str:
    quoted = [f'"{word}"' if " " in word else word for word in (str(folder / "experiment.toml"), str(folder))]
    return f"mechint run {quoted[0]} --out {quoted[1]} --resume"
