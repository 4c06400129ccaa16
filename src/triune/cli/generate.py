"""`triune generate`: continue a text, without a server."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from triune.cli.output import print_json
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


def generate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from standard input.")],
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer.")] = None,
    adapter: AdapterName = None,
    draft: DraftName = None,
    unit: UnitName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print text, tokens and times as JSON, at the end.")] = False,
) -> None:
    """Continue a text, and print the tokens per second."""
    text = sys.stdin.read() if prompt == "-" else prompt
    options = options_of(max_tokens, temperature, top_p, top_k, seed)
    options["stop"] = tuple(stop or ())
    engine, options["adapter"] = open_engine(model, unit, adapter, draft)
    with engine:
        if not as_json:
            answer = show(engine.stream(text, **options))
            tell_rate(answer, engine, Console(stderr=True))
            return
        answer = engine.generate(text, **options)
        usage, placement, energy = answer.usage, engine.placement, engine.energy(answer)
    print_json(
        {
            "text": answer.text,
            "tokens": list(answer.tokens),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": usage.num_prompt_tokens,
            "first_token_ms": usage.first_token_ns / 1e6,
            "total_ms": usage.total_ns / 1e6,
            "unit": placement.unit.value,
            "runtime": placement.runtime,
            "precision": placement.precision,
            "energy": dict(energy),
        }
    )
