from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from contract.decoders.cases import CONFIGS, SeededWeights, Unpacked
from contract.decoders.conftest import answers
from contract.decoders.hugging_face import STORED, token_ids
from contract.decoders.test_answers import TOLERANCE
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.weights import DenseTensor, PackedTensor
from triune.engine.weights.config import BertConfig
from triune.graph.inference import infer_shapes
from triune.graph.load import require_valid
from triune.graph.normalize import normalize
from triune.runtimes.reference import Reference


@pytest.mark.parametrize("case", CONFIGS)
def test_the_plain_form_is_plain_onnx(case: str) -> None:
    model = write_model(CONFIGS[case], SeededWeights(CONFIGS[case]), "plain").whole()
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input_ids": np.stack([token_ids()] * 2)})
    for row in logits:
        np.testing.assert_allclose(row[STORED], answers()[case], **TOLERANCE)


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("case", ["llama 2", "gemma 3", "gpt 2"])
def test_types_and_shapes_of_the_paged_form(case: str, bits) -> None:
    model = write_model(CONFIGS[case], SeededWeights(CONFIGS[case], bits, "zero points"), "paged").whole()
    require_valid(model)
    logits, *caches = infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph.output
    assert [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim] == ["wanted", 48]
    inputs = {each.name: each.type for each in model.graph.input}
    assert [each.name.removesuffix(".new") for each in caches] == [each for each in inputs if "cache" in each]
    assert all(each.type == inputs[each.name.removesuffix(".new")] for each in caches)


def test_packed_weights_are_small_and_the_same_numbers(tmp_path: Path) -> None:
    config = CONFIGS["llama 3"]
    packed = SeededWeights(config, 4, "zero points")
    few, many = (write_model(config, each, "plain").whole() for each in (packed, Unpacked(packed)))
    sizes = [
        sum(each.ByteSize() for each in model.graph.initializer if "proj" in each.name or "embed" in each.name)
        for model in (few, many)
    ]
    # Blocks of 8 with scales in fp32 are 8.5 bits for a weight; the embedding is there as bytes, too.
    assert sizes[0] < sizes[1] * 0.45
    found, expected = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input_ids": token_ids()[None]}
        )[0]
        for model in (few, many)
    )
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_a_block_whose_weights_are_all_equal_has_no_scale() -> None:
    config = CONFIGS["llama 2"]

    class Weights(SeededWeights):
        def tensor(self, name: str):
            tensor = super().tensor(name)
            if isinstance(tensor, PackedTensor):
                tensor.scales[::2] = 0
                tensor.offsets[::4] = 0
            return tensor

    weights = Weights(config, 4, "offsets")
    found, expected = (
        ReferenceEvaluator(write_model(config, each, "plain").whole()).run(None, {"input_ids": token_ids()[None]})[0]
        for each in (weights, Unpacked(weights))
    )
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_large_weights_are_not_copied() -> None:
    config = CONFIGS["llama 2"]
    large = np.ones((4096, 32), np.float32)

    class Weights(SeededWeights):
        def tensor(self, name: str):
            return DenseTensor(large, "F32") if name == "model.embed_tokens.weight" else super().tensor(name)

    model = write_model(config, Weights(config), "paged")
    assert list(model.weights) == ["model.embed_tokens.weight"]
    assert np.shares_memory(model.weights["model.embed_tokens.weight"], large)


@pytest.mark.parametrize("form", [None, "zero points", "offsets"])
@pytest.mark.parametrize("case", ["llama 3", "gemma 2", "gemma 3", "gpt 2"])
def test_the_plain_form_comes_to_core_ops(case: str, form) -> None:
    """So it converts to Core ML and Core AI as any graph does."""
    config = CONFIGS[case]
    weights = SeededWeights(config) if form is None else SeededWeights(config, 4, form)
    model = write_model(config, weights, "plain").whole()
    found, expected = (
        ReferenceEvaluator(each).run(None, {"input_ids": token_ids()[None]})[0] for each in (normalize(model), model)
    )
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_a_saved_paged_model_runs_in_the_reference_runtime(tmp_path: Path) -> None:
    model = write_model(CONFIGS["llama 2"], SeededWeights(CONFIGS["llama 2"]), "paged")
    model.save(tmp_path / "model.onnx")
    executable = Reference().load(tmp_path / "model.onnx", unit=Unit.CPU, num_threads=1, options={})
    cache = np.zeros((3, 4, 16, 8), np.float32)
    given = {
        "input_ids": token_ids(),
        "position_ids": np.arange(40),
        "past_lengths": np.array([0], np.int32),
        "subsequence_begins": np.array([0, 40], np.int32),
        "block_indices": np.array([2, 0, 1], np.int32),
        "block_indices_begins": np.array([0, 3], np.int32),
        "logits_indices": np.arange(40)[STORED],
        **{f"{kind}_cache.{layer}": cache for kind in ("key", "value") for layer in range(2)},
    }
    np.testing.assert_allclose(executable.run(given, ["logits"])["logits"], answers()["llama 2"], **TOLERANCE)


def test_tables_are_as_long_as_the_context() -> None:
    config = CONFIGS["llama 2"]
    for given, expected in ((None, 64), (17, 17), (1000, 1000)):
        model = write_model(config, SeededWeights(config), "paged", num_positions=given).whole()
        (table,) = (each for each in model.graph.initializer if each.name.startswith("cosines"))
        assert list(table.dims) == [expected, 4]


def test_gpt2_has_no_positions_beyond_its_own() -> None:
    config = CONFIGS["gpt 2"]
    with pytest.raises(InvalidArgumentError, match="a context of 65 tokens is asked for; the model has .* 64"):
        write_model(config, SeededWeights(config), "paged", num_positions=65)


def test_an_architecture_without_a_graph() -> None:
    bert = BertConfig(48, 32, 2, 4, 40, 64, 2)
    with pytest.raises(UnsupportedError, match="Bert cannot be written as a decoder"):
        write_model(bert, SeededWeights(CONFIGS["llama 2"]), "plain")


class Mixed:
    """Weights whose forms differ within a layer, as in files that keep the more sensitive matrices in more bits."""

    def __init__(self, config) -> None:
        self._packed, self._dense = (
            SeededWeights(config, 4, "zero points"),
            Unpacked(SeededWeights(config, 8, "zero points")),
        )

    def tensor(self, name: str):
        return (self._dense if "v_proj" in name or "up_proj" in name else self._packed).tensor(name)


@pytest.mark.parametrize("make", [lambda config: SeededWeights(config, 4, "zero points"), Mixed])
@pytest.mark.parametrize("case", ["llama 3", "qwen 2"])
def test_products_are_joined_where_their_weights_have_one_form(case: str, make) -> None:
    weights = make(CONFIGS[case])
    model = write_model(CONFIGS[case], weights, "plain").whole()
    num_joined = sum(node.op_type == "Split" for node in model.graph.node)
    assert num_joined == (0 if isinstance(weights, Mixed) else 2 * len(CONFIGS[case].layers))
    dense = write_model(CONFIGS[case], Unpacked(weights), "plain").whole()
    found, expected = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input_ids": token_ids()[None]}
        )[0]
        for each in (model, dense)
    )
    np.testing.assert_allclose(found, expected, **TOLERANCE)
