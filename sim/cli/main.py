"""The program `exactmap`: one verb per file, each thin over the Python function of the same name.

Exit codes: 0 done; 1 a bug in exactmap; 2 usage; 3 invalid input; 4 infeasible; 5 a check failed; 6 an
execution failed; 7 an execution hung; 8 hardware or a library is missing; 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

from exactmap import __version__
from exactmap.sim.cli.calibrate import calibrate
from exactmap.sim.cli.catalog import catalog
from exactmap.sim.cli.check import check
from exactmap.sim.cli.cluster import cluster
from exactmap.sim.cli.collective import collective
from exactmap.sim.cli.compare import compare
from exactmap.sim.cli.data import data
from exactmap.sim.cli.doctor import doctor
from exactmap.sim.cli.explain import explain
from exactmap.sim.cli.export import export
from exactmap.sim.cli.map import map as map_ranks
from exactmap.sim.cli.plan import plan
from exactmap.sim.cli.predict import predict
from exactmap.sim.cli.run import run
from exactmap.sim.cli.sample import sample
from exactmap.sim.cli.schedules import schedules
from exactmap.sim.cli.show import show
from exactmap.sim.cli.simulate import simulate
from exactmap.sim.cli.sweep import sweep
from exactmap.sim.cli.traffic import traffic
from exactmap.sim.cli.validate import validate

__all__ = ["app", "main"]

app = typer.Typer(
    name="exactmap",
    help="Plan a giant training run, predict what it costs, run the plan unchanged, and compare.",
    epilog="Start with: exactmap doctor, then exactmap plan scenarios/cpu-host.yaml -o my.plan",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"exactmap {__version__}")
        raise typer.Exit


@app.callback()
def about(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


for command in (
    plan,
    sweep,
    map_ranks,
    export,
    simulate,
    run,
    compare,
    calibrate,
    catalog,
    cluster,
    collective,
    check,
    show,
    schedules,
    data,
    sample,
    traffic,
    predict,
    explain,
    validate,
    doctor,
):
    app.command(name=command.__name__)(command)


def main() -> None:
    """Run the program."""
    app()
