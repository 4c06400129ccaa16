"""The servables that the suites try, each with requests that it answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from support.hand import POISON, Doubler
from support.listening import listening_servable, sound_of
from support.scripted import EOS, VOCAB, ScriptedDecoder, byte_tokenizer
from support.steps import Shelf, fp32, graph, on_shelf, step, table_model
from support.table_servable import TableServable
from triune.backends.encoder.runner import EncoderRunner
from triune.config.encoder import COUNT_OUTPUT, EMBEDDING_OUTPUT
from triune.config.policy import BatchingPolicy
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Servable
from triune.core.statistics import ModelStatistics
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.encoder import TextEncoder
from triune.engine.encoder_servable import EncoderServable
from triune.engine.encoder_steps import StepSize
from triune.engine.engine import Engine
from triune.engine.generation import Placement
from triune.engine.replicas.rates import Rates
from triune.engine.replicas.replica import Replica
from triune.engine.servable import TextServable
from triune.engine.text.side import TextSide
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.response_cache import CachedServable, ResponseCache
from triune.scheduling.runner import TensorRunner
from triune.scheduling.worker import InlineWorker, ThreadWorker

_PLACEMENT = Placement(Unit.CPU, "scripted", "fp32", "the test wants it")


@dataclass(frozen=True)
class Subject:
    """A servable, and its requests. Each asks with a value from 1 to 9, which its answer tells.

    Attributes:
        make: makes the servable; called on the event loop.
        inputs: the inputs that ask with a value.
        poison: inputs whose request fails, and no other.
        value_of: the value that a request's responses answer.
        is_decoupled: whether a request may have any number of responses.
    """

    make: Callable[[], Servable]
    inputs: Callable[[int], Mapping[str, Array]]
    poison: Mapping[str, Array]
    value_of: Callable[[Sequence[InferenceResponse]], float]
    is_decoupled: bool = False

    def call(self, value: int) -> Call:
        return _call(self.inputs(value), str(value))

    def poisoned(self) -> Call:
        return _call(self.poison, "poison")


def _call(inputs: Mapping[str, Array], request_id: str) -> Call:
    return Call(InferenceRequest("doubler", dict(inputs), id=request_id), inputs, 1)


async def responses_of(servable: Servable, call: Call) -> list[InferenceResponse]:
    """All responses to a request."""
    return [each async for each in servable.stream(call)]


# Tensor models: y = 2x.


def row(value: float, size: int = 4) -> Mapping[str, Array]:
    return {"x": np.full((1, size), value, np.float32)}


def half_of(responses: Sequence[InferenceResponse]) -> float:
    (response,) = responses
    (value,) = set(response.outputs["y"].ravel().tolist())
    return value / 2


def double(call: Call) -> InferenceResponse:
    x = call.inputs["x"]
    if POISON in x:
        raise InvalidArgumentError("input 'x' holds poison")
    return InferenceResponse("doubler", 1, {"y": x * 2}, call.request.id)


def table() -> Servable:
    return TableServable(double)


def dispatcher(*, is_inline: bool) -> Servable:
    clock = MonotonicClock()
    worker = (
        InlineWorker(TensorRunner(Doubler())) if is_inline else ThreadWorker(TensorRunner(Doubler(), clock), "doubler")
    )
    policy = BatchingPolicy(max_batch_size=8, is_dynamic=True)
    return Dispatcher("doubler", 1, policy, ["y"], [worker], ModelStatistics(), clock)


def cached(inner: Servable, *, is_ordered: bool = False) -> Servable:
    return CachedServable(inner, ResponseCache(1 << 20), MonotonicClock(), is_ordered=is_ordered)


def ensemble(inner: Servable, *, max_under_way: int = 0) -> Servable:
    """A copy, then what `inner` answers."""
    copy = table_model("copy", fp32("x"), fp32("y"), lambda inputs: {"y": inputs["x"]})
    doubler = on_shelf("doubler", fp32("x"), fp32("y"), inner)
    steps = [step(0, "copy", {"x": "x"}, {"y": "copied"}), step(1, "doubler", {"x": "copied"}, {"y": "y"})]
    return graph(Shelf(copy, doubler), steps, fp32("x"), fp32("y"), name="doubler", max_under_way=max_under_way)


TENSOR_SERVABLES: Mapping[str, Callable[[], Servable]] = {
    "table": table,
    "dispatcher, inline": lambda: dispatcher(is_inline=True),
    "dispatcher, thread": lambda: dispatcher(is_inline=False),
    "cache around a table": lambda: cached(table()),
    "cache in order": lambda: cached(table(), is_ordered=True),
    "cache around a dispatcher": lambda: cached(dispatcher(is_inline=False)),
    "ensemble of tables": lambda: ensemble(table()),
    "ensemble of dispatchers": lambda: ensemble(dispatcher(is_inline=False)),
    "ensemble with an inline one": lambda: ensemble(dispatcher(is_inline=True)),
    "ensemble, one at a time": lambda: ensemble(table(), max_under_way=1),
    "ensemble of ensembles": lambda: ensemble(ensemble(table())),
    "cache around an ensemble": lambda: cached(ensemble(table())),
}


# Text models: the digits that follow a prompt's length.


def text_model() -> Servable:
    clock, decoder = MonotonicClock(), ScriptedDecoder(lambda position: ord("0") + position % 10)
    engine = Engine(
        [Replica(EngineCore(decoder, VOCAB, clock), _PLACEMENT, Rates(512))],
        TextSide.of(byte_tokenizer(), None, VOCAB),
        clock,
        name="doubler",
        close_decoder=decoder.close,
    )
    return TextServable(engine, "doubler", 1)


def _prompt(text: bytes, *, is_streamed: bool) -> Mapping[str, Array]:
    return {
        "text_input": np.array([text], np.object_),
        "stream": np.array([is_streamed]),
        "exclude_input_in_output": np.array([True]),
    }


def _first_digit(responses: Sequence[InferenceResponse]) -> float:
    text = b"".join(cast("bytes", each.outputs["text_output"][0]) for each in responses).decode()
    assert text == "".join(str((int(text[0]) + place) % 10) for place in range(len(text)))
    assert len(text) == 16
    return int(text[0])


def _generating(*, is_streamed: bool) -> Subject:
    return Subject(
        text_model,
        lambda value: _prompt(b"a" * value, is_streamed=is_streamed),
        _prompt(b"\0", is_streamed=is_streamed),
        _first_digit,
        is_decoupled=True,
    )


# Encoders: the length of a text.


class LengthEncoder:
    """An `Executable` in the packed form: a text's embedding is the number of its tokens."""

    unit = Unit.CPU
    precision = "fp32"
    is_steady = True
    signature = Signature(
        (TensorSpec("lengths", DataType.INT64, (-1,)),), (TensorSpec("sentence_embedding", DataType.FP32, (-1, 1)),)
    )

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        return {name: inputs["lengths"].astype(np.float32)[:, np.newaxis] for name in outputs}

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


def encoder() -> Servable:
    clock = MonotonicClock()
    texts = TextEncoder(byte_tokenizer(), 64, EOS, "sentence_embedding", 1)
    steps = StepSize([Unit.CPU])
    worker = ThreadWorker(EncoderRunner(LengthEncoder(), texts, EMBEDDING_OUTPUT, steps, clock), "doubler")
    policy = BatchingPolicy(max_batch_size=64, is_dynamic=True, is_fair=True)
    outputs = (EMBEDDING_OUTPUT, COUNT_OUTPUT)
    computing = Dispatcher(
        "doubler", 1, policy, outputs, [worker], ModelStatistics(), clock, max_elements=steps.num_tokens
    )
    return EncoderServable(computing, texts, steps, _PLACEMENT, EMBEDDING_OUTPUT, "doubler", 1)


def _texts(*texts: bytes) -> Mapping[str, Array]:
    return {"text_input": np.array(texts, np.object_)}


def _length(responses: Sequence[InferenceResponse]) -> float:
    (response,) = responses
    (value,) = set(response.outputs[EMBEDDING_OUTPUT].ravel().tolist())
    assert set(response.outputs[COUNT_OUTPUT].tolist()) == {value}
    return value


# Speech: for how long something is heard.


def _heard(responses: Sequence[InferenceResponse]) -> float:
    (response,) = responses
    return int(response.outputs["text_output"][0])


SUBJECTS: Mapping[str, Subject] = {
    **{name: Subject(make, row, row(POISON), half_of) for name, make in TENSOR_SERVABLES.items()},
    "text model": _generating(is_streamed=False),
    "text model, streamed": _generating(is_streamed=True),
    "encoder": Subject(encoder, lambda value: _texts(b"a" * value), _texts(b""), _length),
    "speech": Subject(
        lambda: listening_servable("doubler"),
        lambda value: {"samples": sound_of(value)},
        {"audio": np.array([b"no audio file"], np.object_)},
        _heard,
    ),
    "encoder, two texts": Subject(encoder, lambda value: _texts(*[b"a" * value] * 2), _texts(b"a", b""), _length),
}
