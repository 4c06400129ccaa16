"""`triune chat`: a conversation in the terminal, without a server."""

import contextlib
import importlib
import sys
from typing import Annotated

import typer
from rich.console import Console

from triune.api.answers import Message
from triune.cli.output import escaped_lines
from triune.cli.text import (
    MODEL_HELP,
    AdapterName,
    DraftName,
    MaxTokens,
    Seed,
    Temperature,
    TopK,
    TopP,
    UnitName,
    open_engine,
    options_of,
    show,
    tell_rate,
)
from triune.core.errors import TriuneError

_HELP = "/new begins a new conversation, /exit leaves, Ctrl-C stops an answer"


def chat(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.9,
    top_k: TopK = 0,
    seed: Seed = None,
    adapter: AdapterName = None,
    draft: DraftName = None,
    unit: UnitName = None,
) -> None:
    """Talk with a model. Each line that you write is a message."""
    # Importing readline gives `input` a history and line editing. Not every Python has this module.
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")

    console = Console(stderr=True)
    options = options_of(max_tokens, temperature, top_p, top_k, seed)
    start: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    engine, options["adapter"] = open_engine(model, unit, adapter, draft)
    with engine:
        console.print(_HELP, style="dim", highlight=False)
        messages = list(start)
        while (line := _read()) is not None:
            if line == "/exit":
                break
            if line == "/new":
                messages = list(start)
            elif line.startswith("/"):
                console.print(_HELP, style="dim", highlight=False)
            elif line:
                asked: list[Message] = [*messages, {"role": "user", "content": line}]
                try:
                    answer = show(engine.stream_chat(asked, **options))
                except KeyboardInterrupt:
                    sys.stdout.write("\n")
                except TriuneError as error:
                    # Print the error and go on: if the conversation has outgrown the context, the user can begin a new
                    # one.
                    console.print(f"[bold red]error:[/] {escaped_lines(str(error))}", highlight=False, soft_wrap=True)
                else:
                    messages = [*asked, {"role": "assistant", "content": answer.text}]
                    tell_rate(answer, engine, console)


def _read() -> str | None:
    """A line of the user; None at the end of the input."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        return None
