"""Where a version's LoRA adapters are found, and which of them answers."""

import asyncio
import shutil
from pathlib import Path

import pytest

from support.text_models import write_adapter, write_text_model
from triune.backends.attempt import Attempt
from triune.backends.transformer.adapters import MAX_ADAPTERS
from triune.backends.transformer.backend import TransformerBackend
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.servable import ServedTextModel, TextServable
from triune.runtimes.machine import this_machine
from triune.scheduling.models import Models

pytest.importorskip("openvino")

NO_MODELS: Models = None  # type: ignore[assignment]
UNIT = 'parameters { key: "units" value { string_value: "cpu" } }\n'


def named(text: str) -> str:
    return f"parameters {{ key: \"adapters\" value {{ string_value: '{text}' }} }}\n"


def source(folder: Path, config: str = "") -> Source:
    write_text_model(folder / "1")
    (folder / "config.pbtxt").write_text(UNIT + config)
    return read_source("m", folder, stamp(folder), supports=lambda _: TransformerBackend.supports)


def served(given: Source) -> TextServable:
    """To be called on the event loop."""
    backend = TransformerBackend(this_machine(), MonotonicClock())
    servable = backend.assemble(backend.build(given, 1, None, Attempt()), NO_MODELS)
    assert isinstance(servable, TextServable)
    return servable


async def answer(model: ServedTextModel, adapter: str | None = None) -> tuple[int, ...]:
    request = Generation("hello", SamplingParameters(temperature=0), 12, is_end_ignored=True, adapter=adapter)
    return tuple([token async for delta in model.generate(request) for token in delta.tokens])


async def test_adapters_are_found_beside_the_weights_and_by_the_config(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_adapter(folder / "1" / "adapters" / "poet", 1)
    write_adapter(folder / "shared" / "two", 2, rank=3)
    servable = served(source(folder, named('{"lawyer": "shared/two"}')))
    model = servable.model
    assert model.adapters == ["poet", "lawyer"]
    apart = [await answer(model, name) for name in (None, "poet", "lawyer")]
    assert len(set(apart)) == 3
    together = await asyncio.gather(*[answer(model, name) for name in (None, "poet", "lawyer", None, "poet")])
    assert together == [*apart, *apart[:2]]
    with pytest.raises(InvalidArgumentError, match="the LoRA adapter 'pirate' is unknown; this model has poet, lawyer"):
        await answer(model, "pirate")
    await servable.close()


async def test_a_model_without_adapters_names_none(tmp_path: Path) -> None:
    servable = served(source(tmp_path / "m"))
    assert servable.model.adapters == []
    with pytest.raises(InvalidArgumentError, match="'poet' is unknown; this model has none"):
        await answer(servable.model, "poet")
    await servable.close()


def test_the_table_of_models_names_them(tmp_path: Path) -> None:
    write_adapter(tmp_path / "m" / "1" / "adapters" / "poet")
    build = TransformerBackend(this_machine(), MonotonicClock()).build(source(tmp_path / "m"), 1, None, Attempt())
    assert ", adapters poet) in " in str(build)
    build.close()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (named("{"), InvalidArgumentError, "parameter 'adapters' is not JSON"),
        (named("[1]"), InvalidArgumentError, "must be a JSON object of names and folders"),
        (named('{"a": 1}'), InvalidArgumentError, "must be a JSON object of names and folders"),
        (named('{"a": "/etc"}'), InvalidArgumentError, "folder of adapter 'a' '/etc' must be a path that stays within"),
        (named('{"a": "../other"}'), InvalidArgumentError, "must be a path that stays within"),
        (named('{"a": "none"}'), NotFoundError, "adapter 'a': there is no folder"),
        (named('{"poet": "shared"}'), InvalidArgumentError, "are both the adapter 'poet' of version 1"),
        (named('{"a b": "1/adapters/poet"}'), InvalidArgumentError, "an adapter is called 'a b'"),
        (named('{"a": "1"}'), NotFoundError, "there is no adapter_config.json"),
        (
            named(str({f"a{number}": "1/adapters/poet" for number in range(MAX_ADAPTERS)}).replace("'", '"')),
            InvalidArgumentError,
            "has 65 adapters; the limit is 64",
        ),
    ],
)
def test_wrong_adapters_are_errors_of_the_version(
    tmp_path: Path, config: str, error: type[TriuneError], message: str
) -> None:
    folder = tmp_path / "m"
    write_adapter(folder / "1" / "adapters" / "poet")
    write_adapter(folder / "shared")
    with pytest.raises(error, match=message):
        TransformerBackend(this_machine(), MonotonicClock()).build(source(folder, config), 1, None, Attempt())


def test_a_broken_adapter_is_an_error_of_the_version(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    adapter = write_adapter(folder / "1" / "adapters" / "poet", use_dora=True)
    backend = TransformerBackend(this_machine(), MonotonicClock())
    with pytest.raises(UnsupportedError, match="adapter 'poet'/adapter_config.json: use_dora is True"):
        backend.build(source(folder), 1, None, Attempt())
    shutil.rmtree(adapter)
    backend.build(source(folder), 1, None, Attempt()).close()
