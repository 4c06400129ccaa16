"""The backends that the suite tries, each with a model of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.ensembles import chain, write_ensemble
from support.repositories import WARM_UP, Bench, affine, write_model
from support.steps import Shelf, fp32, table_model
from support.table_backend import TableBackend
from triune.backends.attempt import Attempt
from triune.backends.backend import Backend, Build
from triune.backends.encoder.backend import EncoderBackend
from triune.backends.ensemble import EnsembleBackend
from triune.backends.tensor.backend import TensorBackend
from triune.backends.transformer.backend import TransformerBackend
from triune.config.configure import Source, read_source
from triune.config.model_config import ModelConfig
from triune.config.placement import Recipe
from triune.config.stamps import stamp
from triune.config.transformer import ADDITIONAL_OUTPUTS, flag_of
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array
from triune.core.decoder import DecoderExecutable, DecoderStep
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Servable
from triune.graph.held import HeldModel
from triune.runtimes.machine import Machine, this_machine

Part = tuple[str, int | None]


TEXT_CONTRADICTIONS = {
    "datatype": ("STRING", "INT64"),
    "shape": ("dims:", "dims: 5 dims:"),
    "name": ("text_input", "text"),
}


class Watched(dict[Part, ModelConfig]):
    """The configs of an ensemble's models; calls `on_read` when one is read."""

    on_read: Callable[[], None] = staticmethod(lambda: None)

    def __getitem__(self, key: Part) -> ModelConfig:
        self.on_read()
        return super().__getitem__(key)


def _row(value: float) -> Mapping[str, Array]:
    return {"x": np.full((1, 4), value, np.float32)}


def _half(responses: Sequence[InferenceResponse]) -> float:
    (response,) = responses
    return float(response.outputs["y"][0, 0]) / 2


@dataclass(frozen=True)
class Kind:
    """A backend, and model 'm' of it: y = 2x for rows of four FP32 elements, if nothing else is said.

    Attributes:
        backend: the backend.
        loads: tells what its runtimes have loaded.
        num_open: how much of that is not closed.
        config: the text of its config.
        folder: the model's folder, with version 1.
        parts: the configs of the models that it needs.
        models: those models.
        needs: what `needs` has to return.
        when_building: has a function called within each build.
        ask: a request with a value.
        value_of: the value that a request's responses answer.
        tensors: dims of the inputs, and of the outputs.
        contradictions: of an input: its datatype, shape and name, each with a wrong one.
    """

    backend: Backend[Any]
    loads: Callable[[], Sequence[object]]
    num_open: Callable[[], int]
    config: str
    folder: Path
    parts: Mapping[Part, ModelConfig]
    models: Shelf
    needs: Mapping[str, frozenset[int | None]]
    when_building: Callable[[Callable[[], None]], None]
    ask: Callable[[int], Mapping[str, Array]] = _row
    value_of: Callable[[Sequence[InferenceResponse]], float] = _half
    tensors: tuple[Mapping[str, list[int]], Mapping[str, list[int]]] = ({"x": [4]}, {"y": [4]})
    input: str = 'input { name: "x" data_type: TYPE_FP32 dims: 4 }'
    contradictions: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {"datatype": ("FP32", "INT64"), "shape": ("dims: 4", "dims: 5"), "name": ('"x"', '"z"')}
    )

    def call(self, value: int) -> Call:
        inputs = self.ask(value)
        return Call(InferenceRequest("m", dict(inputs), id=str(value)), inputs, 1)

    async def answer(self, servable: Servable, value: int) -> float:
        responses = [each async for each in servable.stream(self.call(value))]
        assert {each.id for each in responses} == {str(value)}
        assert [each.is_final for each in responses] == [False] * (len(responses) - 1) + [True]
        return self.value_of(responses)

    async def answers(self, servable: Servable) -> list[float]:
        return await asyncio.gather(*(self.answer(servable, value) for value in (1, 2, 3)))

    def source(self, config: str | None = None) -> Source:
        (self.folder / "config.pbtxt").write_text(self.config if config is None else config)
        source = read_source("m", self.folder, stamp(self.folder), supports=lambda _: self.backend.supports)
        return replace(source, parts=self.parts)

    def build(self, source: Source | None = None, previous: Build | None = None) -> Build:
        return self.backend.build(source or self.source(), 1, previous, Attempt())


def double(call: Call) -> InferenceResponse:
    return InferenceResponse("m", 1, {"y": call.inputs["x"] * 2}, call.request.id)


def table(root: Path) -> Kind:
    bench = Bench()
    backend = TableBackend(bench, double)

    def when_building(work: Callable[[], None]) -> None:
        backend.on_build = work

    folder = write_model(root, "m", v1=affine())
    return of_bench(bench, backend, "max_batch_size: 8", folder, when_building)


def tensor(root: Path, config: str = "") -> Kind:
    bench = Bench()

    def when_building(work: Callable[[], None]) -> None:
        if WARM_UP in config:
            bench.onnxruntime.on_run = work
        else:
            bench.onnxruntime.on_load = lambda _: work()

    backend = TensorBackend(bench.machine, MonotonicClock())
    folder = write_model(root, "m", v1=affine())
    return of_bench(bench, backend, f"max_batch_size: 8 {config}", folder, when_building)


def ensemble(root: Path) -> Kind:
    doubler = table_model("doubler", fp32("x", dims=(4,)), fp32("y", dims=(4,)), lambda inputs: {"y": inputs["x"] * 2})
    parts = Watched({("doubler", None): doubler.config})

    def when_building(work: Callable[[], None]) -> None:
        parts.on_read = work

    folder = write_ensemble(root, "m", chain("doubler"))
    needs = {"doubler": frozenset({None})}
    backend = EnsembleBackend(MonotonicClock())
    return Kind(backend, list, int, chain("doubler"), folder, parts, Shelf(doubler), needs, when_building)


def encoder(root: Path) -> Kind:
    """Its answers tell how many tokens a text has, which are bytes."""
    pytest.importorskip("tokenizers")
    from support.encoder_models import WIDTH, write_encoder_model

    bench = Bench()

    def when_building(work: Callable[[], None]) -> None:
        bench.onnxruntime.on_load = lambda _: work()

    def length(responses: Sequence[InferenceResponse]) -> float:
        (response,) = responses
        assert response.outputs["embedding"].shape == (1, WIDTH)
        return response.outputs["num_tokens"][0]

    write_encoder_model(root / "m" / "1", pooling="mean")
    return of_bench(
        bench,
        EncoderBackend(bench.machine, MonotonicClock()),
        'backend: "encoder"',
        root / "m",
        when_building,
        ask=lambda value: {"text_input": np.array([b"a" * value], np.object_)},
        value_of=length,
        tensors=({"text_input": [-1]}, {"embedding": [-1, WIDTH], "num_tokens": [-1]}),
        input='input { name: "text_input" data_type: TYPE_STRING dims: -1 }',
        contradictions=TEXT_CONTRADICTIONS,
    )


def transformer(root: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Its answers begin with the prompt."""
    for library in ("tokenizers", "openvino"):
        pytest.importorskip(library)
    from support.text_models import write_text_model
    from triune.backends.transformer import build as building
    from triune.runtimes.decoders import load_decoder

    loads: list[DecoderExecutable] = []
    closed: list[DecoderExecutable] = []
    works: list[Callable[[], None]] = []

    def load(model: HeldModel, **options: Any) -> DecoderExecutable:
        decoder = load_decoder("openvino")(model, **options)
        loads.append(decoder)
        close, run = decoder.close, decoder.run
        decoder.close = lambda: (closed.append(decoder), close())  # type: ignore[method-assign]

        def run_after_work(step: DecoderStep) -> Array:
            for work in works:
                work()
            return run(step)

        decoder.run = run_after_work  # type: ignore[method-assign]
        return decoder

    def prompt_of(responses: Sequence[InferenceResponse]) -> float:
        (response,) = responses
        return float(response.outputs["text_output"][0][:1])

    monkeypatch.setattr(building, "load_decoder", lambda _: load)
    write_text_model(root / "m" / "1")
    inputs = {"text_input": [1], "stream": [1], "sampling_parameters": [1], "exclude_input_in_output": [1]}
    inputs |= {flag_of(name): [1] for name in ADDITIONAL_OUTPUTS}
    outputs = {"text_output": [-1]} | {name: [size] for name, (_, size) in ADDITIONAL_OUTPUTS.items()}
    return Kind(
        TransformerBackend(this_machine(), MonotonicClock()),
        lambda: loads,
        lambda: len(loads) - len(closed),
        'backend: "transformer" parameters { key: "units" value { string_value: "cpu" } }',
        root / "m",
        {},
        Shelf(),
        {},
        works.append,
        ask=lambda value: {"text_input": np.array([str(value).encode()], np.object_)},
        value_of=prompt_of,
        tensors=(inputs, outputs),
        input='input { name: "text_input" data_type: TYPE_STRING dims: 1 }',
        contradictions=TEXT_CONTRADICTIONS,
    )


def speech(root: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Its answers tell for how long something is heard. Weights are read and written as graphs, but not compiled."""
    for library in ("tokenizers", "openvino", "soundfile", "soxr"):
        pytest.importorskip(library)
    from support.listening import ListeningDecoder, LoudFrames, sound_of, write_listening_checkpoint
    from triune.backends.speech import build as building
    from triune.backends.speech.backend import SpeechBackend

    loads: list[ListeningDecoder | LoudFrames] = []
    works: list[Callable[[], None]] = []

    def load(model: HeldModel, **options: Any) -> ListeningDecoder:
        decoder = ListeningDecoder()
        loads.append(decoder)
        return decoder

    def compile_graph(graph: HeldModel, recipe: Recipe, machine: Machine) -> LoudFrames:
        for work in works:
            work()
        frames = LoudFrames()
        loads.append(frames)
        return frames

    def heard(responses: Sequence[InferenceResponse]) -> float:
        (response,) = responses
        return int(response.outputs["text_output"][0])

    monkeypatch.setattr(building, "load_decoder", lambda _: load)
    monkeypatch.setattr(building, "compile_held", compile_graph)
    write_listening_checkpoint(root / "m" / "1")
    inputs = {"audio": [1], "samples": [-1], "language": [1], "task": [1], "prompt": [1]}
    return Kind(
        SpeechBackend(this_machine(), MonotonicClock()),
        lambda: loads,
        lambda: sum(not each.is_closed for each in loads),
        'backend: "speech" parameters { key: "units" value { string_value: "cpu" } }',
        root / "m",
        {},
        Shelf(),
        {},
        works.append,
        ask=lambda value: {"samples": sound_of(value)},
        value_of=heard,
        tensors=(inputs, {"text_output": [1]}),
        input='input { name: "audio" data_type: TYPE_STRING dims: 1 }',
        contradictions={
            "datatype": ("STRING", "INT64"),
            "shape": ("dims:", "dims: 5 dims:"),
            "name": ("audio", "sound"),
        },
    )


def of_bench(
    bench: Bench,
    backend: Backend[Any],
    config: str,
    folder: Path,
    when_building: Callable[[Callable[[], None]], None],
    **more: Any,
) -> Kind:
    loads, num_open = lambda: bench.onnxruntime.loads, lambda: bench.num_open
    return Kind(backend, loads, num_open, config, folder, {}, Shelf(), {}, when_building, **more)


KINDS: Mapping[str, Callable[[Path, pytest.MonkeyPatch], Kind]] = {
    "table": lambda root, _: table(root),
    "tensor": lambda root, _: tensor(root),
    "tensor, warmed up": lambda root, _: tensor(root, WARM_UP),
    "tensor, two threads": lambda root, _: tensor(root, "instance_group { count: 2 }"),
    "ensemble": lambda root, _: ensemble(root),
    "encoder": lambda root, _: encoder(root),
    "transformer": transformer,
    "speech": speech,
}
