"""SmolLM2's real weights through OpenVINO."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from support.decoder_steps import Texts
from support.smollm2 import smollm2_gguf
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.weights import Inexact, open_checkpoint
from triune.graph.held import HeldModel

pytest.importorskip("openvino")

from triune.runtimes.openvino.decoder import OpenVinoDecoder
from triune.runtimes.openvino.program import compile_decoder

PROMPT = "The capital of France is"


def written(inexact: Inexact) -> HeldModel:
    checkpoint = open_checkpoint(smollm2_gguf(), inexact=inexact)
    return write_model(checkpoint.config, checkpoint, "paged", num_positions=64)


@pytest.fixture(scope="module")
def packed() -> HeldModel:
    """In 4 bits with offsets, exactly as the file has them."""
    return written("offsets")


def generated(model: HeldModel, count: int) -> tuple[str, NDArray[np.float32]]:
    """The greedy continuation of the prompt, and the logits of the prompt's tokens."""
    tokenizer = open_checkpoint(smollm2_gguf()).tokenizer()
    decoder = OpenVinoDecoder(model, unit=Unit.CPU, num_threads=2, num_blocks=2, cache_type="fp32", is_exact=True)
    prompt = tokenizer.encode(PROMPT)
    texts = Texts(decoder, [np.array(prompt + [0] * count)])
    first = texts.read({0: len(prompt)})[0]
    ids = [int(first[-1].argmax())]
    for place in range(count - 1):
        texts.texts[0][len(prompt) + place] = ids[-1]
        ids.append(int(texts.read({0: 1})[0][-1].argmax()))
    decoder.close()
    return tokenizer.decode(ids), first


@pytest.mark.timeout(600)
def test_the_capital_of_france(packed: HeldModel) -> None:
    text, logits = generated(packed, 8)
    assert text == " Paris.\n\nThe answer is:"
    dense_text, dense_logits = generated(written("dequantize"), 8)
    assert dense_text == text
    # The weights are the same numbers, packed or not.
    np.testing.assert_allclose(logits, dense_logits, atol=2e-3)


@pytest.mark.timeout(600)
def test_packed_weights_stay_packed(packed: HeldModel) -> None:
    # 135 million weights: 4 bits, 2 numbers in fp32 a block of 32, and the embedding in 8 bits.
    assert packed.weight_bytes < 125e6
    assert products(packed, is_rounding=False) == {"u4": 30 * 4, "i8": 1}


@pytest.mark.timeout(600)
def test_zero_points_are_made_whole_where_activations_are_rounded(packed: HeldModel) -> None:
    # Each product has a small one beside it, for what is missing of its zero points.
    assert products(packed, is_rounding=True) == {"u4": 30 * 4, "i8": 1, "f32": 30 * 4}


def products(model: HeldModel, *, is_rounding: bool) -> Counter[str]:
    """How many products OpenVINO computes with weights of each type."""
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    compiled = compile_decoder(model, properties, is_rounding=is_rounding)
    nodes = compiled.get_runtime_model().get_ordered_ops()
    found = [node for node in nodes if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"]
    return Counter(node.input(1).get_element_type().get_type_name() for node in found)
