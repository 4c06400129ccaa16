"""Language models on the Neural Engine, here emulated: caches of fixed sizes in functions of a Core ML package."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from support.decoder_steps import Texts
from support.gguf_files import llama_metadata, llama_tensors, write_gguf
from support.text_models import write_adapter, write_text_model
from triune.backends.attempt import Attempt
from triune.backends.transformer.backend import TransformerBackend
from triune.backends.transformer.checkpoint import open_decoder_files
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import UnsupportedError
from triune.core.explicit_cache import ExplicitSize, cache_names, given_for
from triune.core.units import Presence, Unit
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.servable import TextServable
from triune.graph.decoder_model import DecoderModel
from triune.runtimes.decoders import decoder_runtime
from triune.runtimes.machine import Machine, this_machine
from triune.runtimes.reference_decoder import ReferenceDecoder
from triune.scheduling.models import Models

pytest.importorskip("coremltools")

NO_MODELS: Models = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def machine() -> Machine:
    machine = this_machine()
    if machine.status(Unit.ANE).presence is not Presence.EMULATED or "openvino" not in machine.runtimes:
        pytest.skip("the Neural Engine is not emulated here, or there is nothing to compare it with")
    return machine


def source(root: Path, **parameters: object) -> Source:
    folder = root / "m"
    write_text_model(folder / "1")
    texts = [
        f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in parameters.items()
    ]
    (folder / "config.pbtxt").write_text("\n".join(texts))
    return read_source("m", folder, stamp(folder), supports=lambda _: TransformerBackend.supports)


@pytest.mark.timeout(400)
async def test_it_gives_the_answers_of_the_cpu(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    backend = TransformerBackend(machine, MonotonicClock())
    answers: list[list[list[int]]] = []
    for unit in ("cpu", "ane"):
        given = source(
            tmp_path / unit, units=unit, precision="fp32", cache_type="fp32", context_tokens=32, max_sequences=2
        )
        build = backend.build(given, 1, None, Attempt())
        if unit == "ane":
            assert build.emulated == {Unit.ANE}
            assert str(build).startswith("on ane (emulated, coreml, fp32, ")
            assert f", for {build.decoders[0].decoder.num_blocks} answers at a time)" in str(build)
        servable = backend.assemble(build, NO_MODELS)
        assert isinstance(servable, TextServable)
        found: list[list[int]] = []
        for text in ("hello", "a"):
            request = Generation(text, SamplingParameters(temperature=0), 20, is_end_ignored=True)
            found.append([token async for delta in servable.model.generate(request) for token in delta.tokens])
        answers.append(found)
        await servable.close()
    assert answers[0] == answers[1]
    assert [len(each) for each in answers[0]] == [20, 20]
    assert len(list((tmp_path / "cache" / "coreml").glob("*.mlpackage"))) == 1


def test_what_is_refused(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock())

    def refused(name: str, told: str, **parameters: object) -> None:
        given = source(tmp_path / name, units="ane", **parameters)
        if name == "adapter":
            write_adapter(tmp_path / name / "m" / "1" / "adapters" / "poet")
        with pytest.raises(UnsupportedError, match=told):
            backend.build(given, 1, None, Attempt())

    refused("adapter", "LLaMA's family and GPT-2 are written, without LoRA adapters: choose another unit")
    refused("reproducible", "'reproducible' is not to be had on 'ane'", reproducible="true")
    refused("bf16", "the precision is fp16 or fp32, not bf16", precision="bf16")
    refused("int8", "the cache fp32 or fp16, not int8", cache_type="int8")


def test_weights_in_blocks_with_offsets_are_unpacked_and_the_same_numbers(tmp_path: Path) -> None:
    """Q4_1, which stays packed in the paged form."""
    blocks = np.zeros((96 * 2, 20), np.uint8)
    blocks[:, :4] = np.array([0.25, -2.0], np.float16).view(np.uint8)
    blocks[:, 4:] = np.random.default_rng(0).integers(0, 256, (96 * 2, 16))
    tensors = llama_tensors() | {"blk.0.ffn_gate.weight": (3, [64, 96], blocks.tobytes())}
    files = open_decoder_files(write_gguf(tmp_path / "model.gguf", llama_metadata(), tensors))
    paged = files.write(32, ())
    assert isinstance(paged, DecoderModel)
    explicit = paged.write_explicit(ExplicitSize(32, 8))
    kinds = [{each.data_type for each in model.model.graph.initializer} for model in (paged, explicit)]
    assert TensorProto.UINT4 in kinds[0]
    assert kinds[1] == {TensorProto.FLOAT, TensorProto.INT64}
    ids = np.arange(8)
    given = given_for(ExplicitSize(32, 8), ids, 0, {"visible": 0}, 7)
    caches = {
        name: np.zeros(shape, np.float32)
        for layer in range(2)
        for name, shape in zip(cache_names(layer), ((1, 32, 32), (1, 32, 32)), strict=True)
    }
    (found, *_) = ReferenceEvaluator(explicit.whole()).run(None, {**given, **caches})
    (expected,) = Texts(ReferenceDecoder(paged, num_blocks=1), [ids]).read({0: 8})
    np.testing.assert_allclose(found[0, 0], expected[-1], rtol=1e-4, atol=1e-4)


def test_the_runtime_is_told_where_it_is_not_installed(machine: Machine) -> None:
    assert decoder_runtime(machine, Unit.ANE) == "coreml"
    assert decoder_runtime(machine, None) != "coreml"
    without = replace(machine, runtimes={name: each for name, each in machine.runtimes.items() if name != "coreml"})
    with pytest.raises(UnsupportedError, match=r"pip install 'triune\[coreml\]'"):
        decoder_runtime(without, Unit.ANE)
