"""The command line: carelab run, demo, figures, report, data."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

import carelab
from carelab.lab.folders import check_writable, checkout
from carelab.lab.parameters import parse_value, read_parameters
from carelab.lab.reporting import write_report
from carelab.lab.runs import Run, RunError, run_notebook
from carelab.lab.sweeps import Outcome, read_profile, run_tasks

__all__ = ["main"]

_INTERRUPTED = 130
_FOLDER = click.Path(file_okay=False, path_type=Path)


class _Group(click.Group):
    """Errors a user can mend become one line; only --debug shows where they were raised."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted: nothing of this run was kept.", err=True)
            ctx.exit(_INTERRUPTED)
        except (ValueError, OSError, ImportError, RunError) as error:
            if ctx.params.get("debug"):
                raise
            raise click.ClickException(str(error)) from None


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the neurons guilty of a misbehaviour, and repair just those.",
)
@click.version_option(carelab.__version__, prog_name="carelab")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """The command `carelab`; its help is shown by `carelab --help`.

    Args:
        debug: show the traceback of an error.

    Example:
        >>> from click.testing import CliRunner
        >>> from carelab.lab.command_line import main
        >>> CliRunner().invoke(main, ["--version"]).output.split()[:2]
        ['carelab,', 'version']
    """
    # What papermill logs of a failing run is said again, in one line, by the error.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option(
    "-p",
    "--parameter",
    "settings",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter of the notebook; the value is YAML.",
)
@click.option("--out", type=_FOLDER, help="Folder of the results; .runs in the checkout if absent.")
def run(notebook: Path, settings: tuple[tuple[str, str], ...], out: Path | None) -> None:
    """Run NOTEBOOK, a path or the name of a notebook of the checkout."""
    path = _find(notebook)
    declared = {parameter.name: parameter for parameter in read_parameters(path)}
    parameters = {
        name: parse_value(declared[name], text) if name in declared else text
        for name, text in settings
    }
    folder = out.absolute() if out else checkout() / ".runs"
    _show(run_notebook(path, parameters, folder, progress=_on_terminal()))


@main.command()
@click.option("--out", type=_FOLDER, help="Folder of the results; .runs/demo if absent.")
def demo(out: Path | None) -> None:
    """Find and repair guilty neurons on embedded data: no download, a few minutes."""
    folder = check_writable(out.absolute() if out else checkout() / ".runs" / "demo")
    tasks = read_profile(checkout() / "notebooks" / "demo.yml")
    for number, task in enumerate(tasks, start=1):
        words = ", ".join(f"{name}={value}" for name, value in task.parameters.items())
        click.echo(f"[{number}/{len(tasks)}] {task.notebook.stem} {words}".rstrip())
        _show(run_notebook(task.notebook, task.parameters, folder, progress=_on_terminal()))
    click.echo(f"Report: {write_report(folder, folder / 'report.html')}")


@main.command()
@click.argument("notebooks", nargs=-1)
@click.option("--out", type=_FOLDER, help="Folder of the figures; figures/ if absent.")
def figures(notebooks: tuple[str, ...], out: Path | None) -> None:
    """Recompute the committed figures, of all notebooks or of those named; done runs are kept."""
    tasks = read_profile(checkout() / "notebooks" / "sweeps.yml")
    known = {task.notebook.stem: None for task in tasks}
    wanted = [Path(name).stem if name.endswith(".ipynb") else name for name in notebooks]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"notebooks: got {unknown[0]!r}; allowed: {', '.join(known) or 'none'}")
    outcomes = run_tasks(
        [task for task in tasks if not wanted or task.notebook.stem in wanted],
        figures=out.absolute() if out else checkout() / "figures",
        runs=checkout() / ".runs",
        progress=_on_terminal(),
        report=_show_outcome,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise RunError(f"{len(failed)} of {len(outcomes)} runs failed")


@main.command()
@click.option("--figures", type=_FOLDER, help="Folder of the result files; figures/ if absent.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page to write; .runs/report.html if absent.",
)
def report(figures: Path | None, out: Path | None) -> None:
    """Write one page, readable offline, of all results in a folder."""
    folder = figures.absolute() if figures else checkout() / "figures"
    page = out.absolute() if out else checkout() / ".runs" / "report.html"
    click.echo(write_report(folder, page))


@main.group()
def data() -> None:
    """List, download and check the data sets."""


@data.command(name="list")
def list_() -> None:
    """Show every data set and published network, and where it is found now."""
    rows = [
        (entry.name, entry.found, _size(entry.size), entry.licence, entry.description)
        for entry in carelab.data.catalogue()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]))


@data.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch(names: tuple[str, ...]) -> None:
    """Download what NAME needs into the cache, each file checked against its checksum."""
    for name in names:
        paths = carelab.data.fetch(name, progress=_on_terminal())
        for path in paths:
            click.echo(path)
        if not paths:
            click.echo(f"{name} is embedded and needs no file")


@data.command()
def check() -> None:
    """Check every file that is here against its checksum."""
    statuses = carelab.data.check()
    for status in statuses:
        click.echo(f"{status.status:<14}  {status.name}: {status.path}  {status.detail}".rstrip())
    if any(status.status == "wrong checksum" for status in statuses):
        raise ValueError("data: a file has the wrong checksum; delete or replace it")


def _find(notebook: Path) -> Path:
    """The notebook as a path from here, or by its name from the checkout's folder."""
    if notebook.is_file() or len(notebook.parts) > 1:
        return notebook
    own = checkout() / "notebooks" / notebook.with_suffix(".ipynb")
    return own if own.is_file() else notebook


def _show(done: Run) -> None:
    for path in (*done.files, done.executed):
        click.echo(path)
    click.echo(f"{done.notebook} took {done.seconds:.0f} s", err=True)


def _show_outcome(outcome: Outcome) -> None:
    click.echo(f"{outcome.status:<6}  {outcome.message or outcome.name}")


def _size(size: int) -> str:
    if not size:
        return "-"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _on_terminal() -> bool:
    return sys.stderr.isatty()
