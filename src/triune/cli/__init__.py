"""The command line. Each command is a file here."""

import fcntl
import os
import sys
import tempfile
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from triune.cli.commands import Commands
from triune.cli.output import escaped_lines
from triune.core.disk import disk_error
from triune.core.errors import TriuneError
from triune.core.version import VERSION

app = typer.Typer(
    name="triune",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"triune {VERSION}")
        raise typer.Exit


@app.callback()
def triune(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """An inference server for Apple silicon that speaks Triton's protocols and uses every compute unit."""


def main() -> None:
    """Run the command line. An error is printed on standard error as one message, and the exit code is 1.

    For an unexpected error, set the environment variable TRIUNE_TRACEBACK=1 to print the traceback.
    """
    _open_standard_descriptors()
    # Turn off ONNX Runtime's telemetry, which would also leave a temporary file.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        app()
    except TriuneError as error:
        _tell(str(error))
    # Print an unexpected error as a message, too: its traceback would not help the user.
    except Exception as error:
        if os.environ.get("TRIUNE_TRACEBACK"):
            raise
        if (found := disk_error(error)) is not None:
            name = "a file" if found.filename is None else f"'{found.filename}'"
            _tell(
                f"{name} cannot be written: {found.strerror}; make room where the command writes and in "
                f"'{tempfile.gettempdir()}' (TMPDIR), or name another place"
            )
        text = " ".join(str(error).split())
        _tell(
            f"Triune fails ({type(error).__name__}: {text}), which is a fault of its own: please report it, with what "
            "TRIUNE_TRACEBACK=1 in the environment shows"
        )


def _tell(what: str) -> NoReturn:
    Console(stderr=True).print(f"[bold red]error:[/] {escaped_lines(what)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def _open_standard_descriptors() -> None:
    """Open the null device as standard input, output or error if the caller closed it.

    Otherwise the next file or socket would get its number, 0 to 2, and receive what libraries print. The event loop's
    library ends the process when it closes such a descriptor. A shell script that starts the server may itself have
    been opened as one of them, for reading only. And Python has no stream for a descriptor that was closed.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            # `os.open` takes the lowest free descriptor number, which is `descriptor`: the smaller ones are open by
            # now.
            os.open(os.devnull, os.O_RDWR)
        else:
            if mode == "w" and access == os.O_RDONLY:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
