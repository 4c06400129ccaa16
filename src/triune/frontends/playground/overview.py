"""Data of the models for the page: states, units, counts, and which part of the page can use each model."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from triune.core.datatypes import DataType
from triune.core.statistics import ModelStatistics
from triune.engine.encoder_servable import EncoderServable
from triune.engine.servable import TextServable
from triune.engine.speech.servable import SpeechServable
from triune.frontends.playground.machine import PageMachine, describe_machine
from triune.frontends.playground.places import joules, places
from triune.protos.model_config_pb2 import ModelInput
from triune.repository.model import IndexEntry
from triune.scheduling.models import LoadedVersion

Json: TypeAlias = dict[str, Any]

_MODELS_AT_ONCE: Final = 50
_NS: Final = 1e9
_COLOURS: Final = 3


class PlaygroundModels(Protocol):
    """The part of the server that the page uses."""

    @property
    def name(self) -> str:
        """The server's name, as in its metadata."""
        ...

    @property
    def version(self) -> str:
        """Triune's version."""
        ...

    def last_index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        """The models of the repository, as of its last scan."""
        ...

    def statistics(self, name: str = "", version: int | None = None) -> Sequence[LoadedVersion]:
        """The loaded versions: of all models, of the model `name`, or one `version` of it."""
        ...


async def overview(models: PlaygroundModels, machine: PageMachine | None = None) -> Json:
    """Describe every version of every model, and the machine. With thousands of models, the event loop runs other work
    in between.
    """
    loaded = {(each.config.name, each.version): each for each in models.statistics()}
    lines: list[Json] = []
    for number, entry in enumerate(models.last_index(), 1):
        line: Json = {
            "name": entry.name,
            "version": entry.version,
            "state": entry.state.value if entry.state else None,
            "reason": entry.reason,
        }
        if entry.version is not None and (version := loaded.get((entry.name, entry.version))):
            line |= _loaded(version)
        lines.append(line)
        if number % _MODELS_AT_ONCE == 0:
            await asyncio.sleep(0)
    document: Json = {"server": {"name": models.name, "version": models.version}, "models": lines}
    return document if machine is None else {**document, "machine": describe_machine(machine, loaded.values())}


def _loaded(version: LoadedVersion) -> Json:
    counted = version.statistics
    image = image_input(version)
    line: Json = {
        "kinds": [*_text_kinds(version), *(["images"] if image else [])],
        "units": _units(version, counted),
        "placement": places(version),
        "requests": counted.success.count,
        "failures": {reason.value: count for reason, count in counted.failures.items() if count},
        "inferences": counted.num_inferences,
        "executions": counted.num_executions,
        "waiting": counted.num_waiting,
        "pending": counted.num_pending,
        "request_seconds": counted.success.total_ns / _NS,
    }
    if image:
        line["image"] = image
    if isinstance(version.servable, TextServable):
        tokens, state = version.servable.model.counters, version.servable.model.state
        line |= {
            "prompt_tokens": tokens.num_prompt_tokens,
            "cached_tokens": tokens.num_cached_tokens,
            "tokens": tokens.num_tokens,
            "running": state.num_running,
            "context_tokens": version.servable.model.context_tokens,
        }
    return line


def _text_kinds(version: LoadedVersion) -> list[str]:
    match version.servable:
        case TextServable() as text:
            return ["chat"] if text.model.can_chat else ["text"]
        case EncoderServable() as encoder if encoder.is_embedding:
            return ["embeddings"]
        case SpeechServable():
            return ["speech"]
        case _:
            return []


def _units(version: LoadedVersion, counted: ModelStatistics) -> list[Json]:
    """The units of the model in its order of preference, with the counts of each."""
    return [
        {
            "unit": unit.value,
            "precision": precision,
            "is_emulated": unit in version.emulated,
            "inferences": counted.unit_inferences.get(unit, 0),
            "busy_seconds": counted.unit_busy_ns.get(unit, 0) / _NS,
            "error": verdict.largest if (verdict := counted.verdicts.get(unit)) is not None else None,
            "energy": joules(version, unit),
        }
        for unit, precision in version.precisions.items()
    ]


def image_input(version: LoadedVersion) -> Mapping[str, Any] | None:
    """The input format of a model that classifies images; None for any other model.

    Such a model has one input, FP32 of three colours, whose config names its layout, and one output with labels.
    """
    config = version.config
    if config.is_decoupled or len(config.inputs) != 1:
        return None
    (tensor,) = config.inputs.values()
    outputs = [each.name for each in config.outputs.values() if each.labels]
    if tensor.datatype is not DataType.FP32 or len(tensor.dims) != _COLOURS or len(outputs) != 1:
        return None
    match next((each.format for each in config.message.input if each.name == tensor.name), None):
        case ModelInput.FORMAT_NCHW:
            layout, (colours, height, width) = "NCHW", tensor.dims
        case ModelInput.FORMAT_NHWC:
            layout, (height, width, colours) = "NHWC", tensor.dims
        case _:
            return None
    if colours != _COLOURS or height < 1 or width < 1:
        return None
    shape = [1, *tensor.dims] if config.batching.max_batch_size else [*tensor.dims]
    return {
        "input": tensor.name,
        "shape": shape,
        "layout": layout,
        "height": height,
        "width": width,
        "output": outputs[0],
    }
