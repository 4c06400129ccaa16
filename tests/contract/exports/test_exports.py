"""Decoders that others exported, in the paged form on every runtime, against ONNX Runtime with the original."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from support.decoder_steps import Texts
from support.exported import runtime_logits
from triune.core.decoder import DecoderExecutable
from triune.core.units import Unit
from triune.engine.imports.export import import_decoder
from triune.graph.held import HeldModel
from triune.runtimes import missing
from triune.runtimes.reference_decoder import ReferenceDecoder

FOLDER = Path(__file__).parent / "models"
MODELS = sorted(each.name for each in FOLDER.iterdir())
CONTEXT, NUM_BLOCKS = 128, 12
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def reference(model: HeldModel) -> DecoderExecutable:
    return ReferenceDecoder(model, num_blocks=NUM_BLOCKS)


def openvino(model: HeldModel) -> DecoderExecutable:
    from triune.runtimes.openvino.decoder import OpenVinoDecoder

    options = {"unit": Unit.CPU, "num_threads": 1, "num_blocks": NUM_BLOCKS}
    return OpenVinoDecoder(model, cache_type="fp32", is_exact=True, **options)


def mlx(model: HeldModel) -> DecoderExecutable:
    from triune.runtimes.mlx.decoder import MlxDecoder

    return MlxDecoder(model, num_blocks=NUM_BLOCKS, precision="fp32", cache_type="fp32")


LOADERS: Mapping[str, Callable[[HeldModel], DecoderExecutable]] = {
    "reference": reference,
    "openvino": openvino,
    "mlx": mlx,
}


@pytest.fixture(params=LOADERS)
def load(request: pytest.FixtureRequest) -> Callable[[HeldModel], DecoderExecutable]:
    if request.param != "reference" and (reason := missing().get(request.param)):
        pytest.skip(reason)
    return LOADERS[request.param]


def texts() -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 256, length) for length in (30, 7, 19)]


def exact(name: str) -> ModelProto:
    """The exported model without what makes ONNX Runtime round activations to 8 bits."""
    model = onnx.load(FOLDER / name / "model.onnx")
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    return model


@functools.cache
def truth(name: str) -> list[NDArray[np.float32]]:
    """The logits of the texts by ONNX Runtime, which has read each alone, with its own caches."""
    return [runtime_logits(exact(name), text, (4, 2)) for text in texts()]


@functools.cache
def paged(name: str) -> HeldModel:
    return import_decoder(FOLDER / name / "model.onnx", CONTEXT)


def check(found: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, **TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_whole_texts_together_give_the_answers_of_each_alone(name: str, load) -> None:
    check(Texts(load(paged(name)), texts()).read_all({0: 30, 1: 7, 2: 19}), truth(name))


@pytest.mark.parametrize("name", MODELS)
def test_chunks_single_tokens_and_mixed_sequences_change_no_answer(name: str, load) -> None:
    steps = {1: 4, 0: 13}, {0: 1, 1: 1}, {2: 15, 0: 1, 1: 1}, {0: 9, 2: 1}, {2: 3, 1: 1}, {0: 5}, {0: 1}
    check(Texts(load(paged(name)), texts()).read_all(*steps), truth(name))


@pytest.mark.parametrize("name", MODELS)
def test_only_the_wanted_tokens_have_logits_in_their_order(name: str, load) -> None:
    both = Texts(load(paged(name)), texts())
    step = both.step({0: 12, 1: 7})
    logits = both.decoder.run(replace(step, logits_indices=np.array([18, 3, 3])))
    check([logits], [np.stack([truth(name)[1][6], truth(name)[0][3], truth(name)[0][3]])])


def test_the_last_product_is_computed_of_the_wanted_tokens_alone() -> None:
    for name in MODELS:
        nodes = paged(name).model.graph.node
        (gather,) = [node for node in nodes if "logits_indices" in node.input]
        (reader,) = [node for node in nodes if gather.output[0] in node.input]
        assert reader.op_type == "MatMul", name


def attributes(name: str) -> list[tuple[int, int, float, int, float]]:
    """Heads, heads of keys, scale, window and soft cap of each layer."""
    found = []
    for node in paged(name).model.graph.node:
        if node.op_type == "PagedAttention":
            given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            names = "num_heads", "num_kv_heads", "scale", "sliding_window", "softcap"
            found.append(tuple(round(given[each], 6) for each in names))
    return found


def test_the_attention_is_that_of_the_configs() -> None:
    plain, window = (4, 2, 8**-0.5, 0, 0), (4, 2, 20**-0.5, 6, 0)
    expected = {
        "optimum-llama": [plain, plain],
        "optimum-gemma2": [window, (4, 2, 20**-0.5, 0, 0)],
        "optimum-gpt2": [(4, 4, 8**-0.5, 0, 0)] * 2,
        "genai-llama-int4": [(4, 2, 0.25, 0, 0)] * 2,
        "genai-mistral": [(4, 2, 0.25, 6, 0)] * 2,
        "genai-qwen2-int8": [(4, 2, 0.25, 0, 0)] * 2,
    }
    assert sorted(expected) == MODELS
    for name, layers in expected.items():
        for found, wanted in zip(attributes(name), layers, strict=True):
            # Optimum multiplies queries by the root of the scale before; keys are multiplied by the other.
            assert found[:2] == wanted[:2], name
            assert found[2] == pytest.approx(wanted[2] ** (0.5 if name.startswith("optimum") else 1), rel=1e-4), name
            assert found[3:] == wanted[3:], name


def test_no_shape_of_a_layer_is_computed_while_it_runs() -> None:
    for name in MODELS:
        kinds = [node.op_type for node in paged(name).model.graph.node]
        # Optimum computes one for the table of rotary embeddings, and gives logits [tokens, 1, vocabulary].
        assert kinds.count("Shape") <= 1, name
        assert "Transpose" not in kinds or name.startswith("genai"), name


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("genai-llama-int4", {onnx.TensorProto.UINT4}),
        ("genai-qwen2-int8", {onnx.TensorProto.UINT4, onnx.TensorProto.UINT8}),
    ],
)
def test_packed_weights_stay_as_the_file_has_them(name: str, kinds: set[int]) -> None:
    graph, given = paged(name).model.graph, exact(name).graph.initializer
    codes = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    kept = [each for each in graph.initializer if each.name in codes]
    assert len(kept) == sum(node.op_type == "MatMulNBits" for node in exact(name).graph.node) == 11
    assert {each.data_type for each in kept} == kinds
    assert {each.raw_data for each in kept} <= {each.raw_data for each in given}
