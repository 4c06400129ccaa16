"""The command line: one command a file."""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from triune.cli import convert, demo, infer, models, predict, serve, units
from triune.core.errors import TriuneError

app = typer.Typer(
    name="triune",
    help="An inference server for Apple silicon that speaks Triton's protocols and uses every compute unit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("units")(units.units)
app.command("models")(models.models)
app.command("infer")(infer.infer)
app.command("convert")(convert.convert)
app.command("predict")(predict.predict)


def main() -> None:
    """Run the command line. An error that Triune raises on purpose is one line on standard error and exit code 1."""
    try:
        app()
    except TriuneError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
