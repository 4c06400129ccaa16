import numpy as np
import onnx
import pytest

from contract.decoders.cases import CONFIGS, SeededWeights
from contract.decoders.hugging_face import token_ids
from contract.decoders.test_answers import TOLERANCE, truth
from support.decoder_steps import Texts
from support.explicit_models import NUM_POSITIONS, ExplicitModel
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.explicit_cache import ExplicitSize, given_for
from triune.engine.models import write_explicit, write_model
from triune.engine.weights.config import T5Config
from triune.graph.inference import infer_shapes
from triune.graph.load import require_valid
from triune.graph.normalize import normalize
from triune.runtimes.reference_decoder import ReferenceDecoder


@pytest.mark.parametrize("case", CONFIGS)
def test_chunks_single_tokens_and_larger_caches_answer_as_the_plain_form_does(case: str) -> None:
    model, ids = ExplicitModel(case), token_ids()
    found: dict[int, np.ndarray] = {}
    for size, count in (
        (ExplicitSize(16, 8), 8),
        (ExplicitSize(16, 8), 5),
        (ExplicitSize(16, 1), 1),
        (ExplicitSize(24, 8), 8),
        (ExplicitSize(40, 1), 1),
        (ExplicitSize(40, 1), 1),
        (ExplicitSize(40, 32), 15),
        (ExplicitSize(40, 1), 1),
    ):
        logits = model.call(size, ids[model.length : model.length + count])
        found[model.length - 1] = logits
    for place, logits in found.items():
        np.testing.assert_allclose(logits, truth(case)[0][place], **TOLERANCE)


@pytest.mark.parametrize("case", ["llama 3", "mistral", "qwen 3", "gemma 3", "gpt 2"])
def test_greedy_tokens_are_those_of_the_paged_form(case: str) -> None:
    config = CONFIGS[case]
    decoder = ReferenceDecoder(
        write_model(config, SeededWeights(config), "paged", num_positions=NUM_POSITIONS), num_blocks=3
    )
    ids = token_ids().copy()
    paged, model = Texts(decoder, [ids]), ExplicitModel(case)
    expected = [int(paged.read({0: 11})[0][-1].argmax())]
    model.call(ExplicitSize(16, 8), ids[:8])
    found = [int(model.call(ExplicitSize(16, 8), ids[8:11]).argmax())]
    for place in range(11, 30):
        paged.texts[0][place] = expected[-1]
        expected.append(int(paged.read({0: 1})[0][-1].argmax()))
        found.append(int(model.call(ExplicitSize(16 if place < 16 else 40, 1), found[-1:]).argmax()))
    assert found == expected


def test_the_wanted_token_has_the_logits() -> None:
    one, other = ExplicitModel("llama 2"), ExplicitModel("llama 2")
    ids = token_ids()[:6]
    np.testing.assert_allclose(
        one.call(ExplicitSize(16, 8), ids, wanted=2), other.call(ExplicitSize(16, 8), ids[:3]), **TOLERANCE
    )


def test_what_fills_up_a_call_is_not_in_the_cache() -> None:
    model = ExplicitModel("llama 2")
    model.call(ExplicitSize(16, 8), token_ids()[:3])
    assert np.abs(model.caches["key_cache_0"][:, :3]).min() > 0
    assert not model.caches["key_cache_0"][:, 3:].any()
    assert not model.caches["value_cache_1"][..., 3:].any()


@pytest.mark.parametrize("tokens", [1, 8])
@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("case", ["gemma 2", "gpt 2"])
def test_all_sizes_are_fixed(case: str, bits, tokens: int) -> None:
    config = CONFIGS[case]
    weights = SeededWeights(config, bits, "zero points")
    model = write_explicit(config, weights, ExplicitSize(16, tokens), num_positions=NUM_POSITIONS).whole()
    require_valid(model)
    onnx.checker.check_model(model, full_check=True)
    inferred = infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    assert all(dim.dim_value for value in values for dim in value.type.tensor_type.shape.dim)
    assert [each.name.removesuffix("_new") for each in inferred.output[1:]] == [
        each.name for each in inferred.input if "cache" in each.name
    ]
    assert not {"Shape", "Range", "Loop", "If"} & {node.op_type for node in normalize(model).graph.node}


def test_caches_and_calls_that_do_not_fit() -> None:
    config = CONFIGS["llama 2"]
    for context, tokens in ((8, 9), (8, 0), (0, 0)):
        with pytest.raises(InvalidArgumentError, match=f"a call of {tokens} tokens with a cache of {context}"):
            ExplicitSize(context, tokens)
    with pytest.raises(InvalidArgumentError, match="a cache of 48 tokens is asked for; the context has 40 at most"):
        write_explicit(config, SeededWeights(config), ExplicitSize(48, 1), num_positions=40)
    gpt = CONFIGS["gpt 2"]
    with pytest.raises(InvalidArgumentError, match="an embedding for each of 64 positions"):
        write_explicit(gpt, SeededWeights(gpt), ExplicitSize(65, 1), num_positions=65)
    ids = np.zeros(3, np.int64)
    for past, count in ((14, 3), (0, 0), (-1, 1)):
        with pytest.raises(InvalidArgumentError, match=f"{count} tokens behind {past}: a call takes 1 to 8"):
            given_for(ExplicitSize(16, 8), ids[:count], past, {}, 0)


def test_an_architecture_that_is_not_written_so() -> None:
    t5 = T5Config(*([8] * 3), *([2] * 2), 8, 2)
    with pytest.raises(UnsupportedError, match="T5 is not written with an explicit cache; LLaMA's family and GPT-2"):
        write_explicit(t5, SeededWeights(CONFIGS["llama 2"]), ExplicitSize(8, 1), num_positions=8)
