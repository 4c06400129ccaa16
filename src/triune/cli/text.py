"""What `triune generate` and `triune chat` share: choosing the model, the options of an answer, and showing an
answer.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triune.api.answers import Answer, Options
from triune.api.engine import Engine, TextStream, checkpoint_in
from triune.cli.output import progress_bar
from triune.core.cache import cache_folder
from triune.core.errors import NotFoundError, UnavailableError
from triune.core.printable import UNPRINTABLE
from triune.zoo.progress import Outcome, RichProgress
from triune.zoo.repository import RECIPES, build_repository
from triune.zoo.smollm2 import RECIPE

MODEL_HELP = (
    f"A GGUF file, a directory of Hugging Face's form, a model's folder in a repository, or {RECIPE.name}, which is "
    "downloaded."
)

MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="The most tokens of an answer; what is left of the context, if not given.")
]
Temperature = Annotated[float, typer.Option(help="0 always takes the most probable token.")]
TopP = Annotated[float, typer.Option(help="Keep the most probable tokens that reach this sum.")]
TopK = Annotated[int, typer.Option(help="Keep so many of the most probable tokens; 0 keeps all.")]
Seed = Annotated[int | None, typer.Option(help="Makes the choice of tokens repeatable.")]
AdapterName = Annotated[
    str | None,
    typer.Option(help="A LoRA adapter of the model's folder 'adapters', or a folder as PEFT saves it."),
]
DraftName = Annotated[
    str | None,
    typer.Option("--draft", help="A small model with the same vocabulary that guesses tokens: no answer changes."),
]
UnitName = Annotated[str | None, typer.Option(help="The unit to run on; the fastest, if not given.")]


def open_engine(
    model: str, unit: str | None, adapter: str | None = None, draft: str | None = None
) -> tuple[Engine, str | None]:
    """Load the model and, if there is one, its draft model. Returns the engine, and the name of the LoRA adapter or
    None.

    Raises:
        NotFoundError: there is no such file, folder or model.
    """
    path = _find(model)
    folder = None if adapter is None else Path(adapter)
    given: dict[str, Path] = {}
    if folder is not None and folder.is_dir():
        adapter = folder.resolve().name
        given[adapter] = folder
    with progress_bar() as progress:
        progress.add_task(f"loading {path.name}", total=None)
        return Engine(path, unit, adapters=given, draft=None if draft is None else _find(draft)), adapter


def options_of(max_tokens: int | None, temperature: float, top_p: float, top_k: int, seed: int | None) -> Options:
    """The options of an answer."""
    return Options(max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)


def show(stream: TextStream) -> Answer:
    """Print the pieces of an answer as they arrive, without control characters except line breaks and tabs."""
    for text in stream:
        sys.stdout.write(UNPRINTABLE.sub(lambda found: found.group() if found.group() in "\n\t" else "", text))
        sys.stdout.flush()
    sys.stdout.write("\n")
    assert stream.answer is not None
    return stream.answer


def tell_rate(answer: Answer, engine: Engine, console: Console) -> None:
    """Print how fast an answer came: "37 tokens, 41.2 a second, the first after 0.12 s; on cpu (openvino, bf16)". If
    the joules are known, the tokens per joule follow: "; 3.1 tokens a joule (measured)".
    """
    placement = engine.placement
    usage = answer.usage
    after_first = (usage.total_ns - usage.first_token_ns) / 1e9
    rate = f"{(usage.num_tokens - 1) / after_first:.1f} a second, " if usage.num_tokens > 1 and after_first > 0 else ""
    console.print(
        f"{usage.num_tokens} token{'s' if usage.num_tokens != 1 else ''}, {rate}the first after "
        f"{usage.first_token_ns / 1e9:.2f} s; on {placement.unit.value} ({placement.runtime}, {placement.precision})"
        f"{_per_joule(answer, engine)}",
        style="dim",
        highlight=False,
    )


def _per_joule(answer: Answer, engine: Engine) -> str:
    energy = engine.energy(answer)
    if not energy.get("joules"):
        return ""
    return f"; {answer.usage.num_tokens / energy['joules']:.3g} tokens a joule ({energy['kind']})"


def _find(model: str) -> Path:
    path = checkpoint_in(Path(model))
    if path.exists():
        return path
    if model not in RECIPES or RECIPES[model].backend != RECIPE.backend:
        raise NotFoundError(f"'{model}' is no file and no folder; give one, or '{RECIPE.name}'")
    folder = cache_folder() / "models"
    with RichProgress(Console(stderr=True)) as progress:
        (built,) = build_repository(folder, models=[model], progress=progress)
    if built.outcome is Outcome.FAILED:
        raise UnavailableError(built.reason)
    return folder / model / "1" / "model.gguf"
