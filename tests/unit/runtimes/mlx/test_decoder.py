"""What is MLX's own in its decoders: types, compiled steps, failures. The rest is held by tests/contract/decoders."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.decoders.cases import CONFIGS, SeededWeights
from contract.decoders.test_answers import check, texts, truth
from support.decoder_steps import Texts
from support.smollm2 import smollm2_gguf
from triune.core.decoder import NO_TOKEN, best_tokens
from triune.core.errors import InternalError, NoMemoryError, UnsupportedError
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.weights import open_checkpoint
from triune.metal.library import mx
from triune.runtimes.mlx.decoder import MlxDecoder
from triune.runtimes.mlx.tokens import most_probable

CASE = "llama 2"


def load(case: str = CASE, **options: Any) -> MlxDecoder:
    model = write_model(CONFIGS[case], SeededWeights(CONFIGS[case]), "paged")
    return MlxDecoder(model, **{"num_blocks": 12, "precision": "fp32", **options})


def test_steps_of_decoders_start_kernels_in_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "")
    monkeypatch.delenv("MLX_USE_CUDA_GRAPHS")
    load()
    assert os.environ["MLX_USE_CUDA_GRAPHS"] == "1"


STEPS = ({0: 33, 1: 3}, {1: 4, 0: 1, 2: 20}, {0: 6, 2: 5})


@pytest.mark.parametrize(
    ("precision", "cache_type", "block_bytes", "error"),
    # Keys and values of 2 layers, 4 heads of 8, 16 tokens; in 8 bits with a scale in fp32.
    [
        ("fp32", "fp16", 4096, 0.02),
        ("fp32", "bf16", 4096, 0.15),
        ("fp32", "int8", 2 * 2 * 4 * 16 * 12, 0.4),
        ("fp16", None, 4096, 0.1),
        ("bf16", None, 4096, 0.8),
        ("bf16", "fp32", 8192, 0.8),
    ],
)
def test_fewer_bits_are_smaller_and_nearly_right(precision, cache_type, block_bytes, error) -> None:
    decoder = load(precision=precision, cache_type=cache_type)
    assert decoder.precision == precision
    assert decoder.block_bytes == block_bytes
    for got, wanted in zip(Texts(decoder, texts()).read_all(*STEPS), truth(CASE), strict=True):
        assert got.dtype == np.float32
        assert 0 < np.abs(got - wanted).max() < error


@pytest.mark.parametrize("case", ["llama 3", "linear", "yarn", "longrope", "part of a head", "qwen 3", "gemma 3"])
def test_every_rope_turns_by_the_same_angles_in_16_bits(case: str) -> None:
    (found,) = Texts(load(case, precision="fp16"), texts()[:1]).read_all({0: 33}, {0: 7})
    assert np.abs(found - truth(case)[0]).max() < 0.1


@pytest.mark.parametrize("cache_type", ["fp16", "bf16", "int8"])
def test_tokens_come_out_of_a_cache_as_numbers_and_go_back(cache_type) -> None:
    exact, rounded = (Texts(load(cache_type=each), texts()) for each in ("fp32", cache_type))
    for each in (exact, rounded):
        each.read({0: 33, 1: 5})
    kept = rounded.decoder.read_tokens(rounded.blocks[0], 33)
    for one, other in zip(exact.decoder.read_tokens(exact.blocks[0], 33)[:2], kept[:2], strict=True):
        # Of the first layer, which no rounding has come before.
        np.testing.assert_allclose(other, one, rtol=0.01, atol=0.04)
    expected = rounded.read({0: 7})[0]
    moved = Texts(load(cache_type=cache_type), texts()[:1])
    moved.decoder.write_tokens(moved.blocks[0], kept)
    moved.lengths[0] = 33
    np.testing.assert_allclose(moved.read({0: 7})[0], expected, atol=0.1 if cache_type == "int8" else 1e-4)


def test_a_sequence_of_no_numbers_harms_no_other() -> None:
    decoder = load()
    texts_ = Texts(decoder, texts())
    texts_.read({0: 33})
    broken = decoder.read_tokens(texts_.blocks[0], 33)
    # Another sequence gets the blocks that the broken one leaves, and holds fewer tokens.
    decoder.write_tokens(texts_.blocks[2][:1], [np.full_like(each[:16], np.nan) for each in broken])
    found = texts_.read({2: 3})[0]
    np.testing.assert_allclose(found, truth(CASE)[2][:3], rtol=1e-4, atol=1e-4)


def test_after_a_failure_the_cache_is_allocated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = load()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the GPU went away")

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "_program", fail)
        with pytest.raises(InternalError, match="in a step of 33 tokens: the GPU went away"):
            Texts(decoder, texts()).read({0: 33})
    with pytest.raises(InternalError, match="the cache was lost when an earlier step failed: the GPU went away"):
        Texts(decoder, texts()).read({0: 33})
    decoder.allocate(12)
    check(Texts(decoder, texts()).read_all(*STEPS), truth(CASE))


def test_a_cache_beyond_the_memory_is_refused() -> None:
    decoder = load()
    with pytest.raises(NoMemoryError, match="a cache of 1000000000000 blocks, .* give the cache fewer blocks"):
        decoder.allocate(10**12)


def test_it_runs_on_the_gpu_alone() -> None:
    assert load(precision=None).unit is Unit.GPU
    with pytest.raises(UnsupportedError, match="on unit 'gpu', not on 'cpu'"):
        load(unit=Unit.CPU)


@pytest.mark.timeout(600)
def test_smollm2_knows_the_capital_of_france() -> None:
    checkpoint = open_checkpoint(smollm2_gguf(), inexact="offsets")
    tokenizer = checkpoint.tokenizer()
    model = write_model(checkpoint.config, checkpoint, "paged", num_positions=64)
    decoder = MlxDecoder(model, num_blocks=2, precision="fp32")
    prompt = tokenizer.encode("The capital of France is")
    texts_ = Texts(decoder, [np.array(prompt + [0] * 8)])
    ids = [int(texts_.read({0: len(prompt)})[0][-1].argmax())]
    for place in range(7):
        texts_.texts[0][len(prompt) + place] = ids[-1]
        ids.append(int(texts_.read({0: 1})[0][-1].argmax()))
    assert tokenizer.decode(ids) == " Paris.\n\nThe answer is:"
    num_products = sum(node.op_type == "MatMul" for node in model.model.graph.node)
    assert decoder.num_packed == num_products > 30


def test_the_best_tokens_are_the_first_of_equal_ones_and_none_where_a_number_is_unusable() -> None:
    rows = np.random.default_rng(3).normal(size=(8, 5000)).astype(np.float32)
    rows[1, [70, 4999]] = 9
    rows[2, 4000] = np.nan
    rows[3, 0] = np.nan
    rows[4] = -np.inf
    rows[5, 17] = np.inf
    rows[6] = -np.inf
    rows[6, [33, 2000]] = -1e30
    rows[7] = 0
    for kind in (mx.float32, mx.bfloat16):
        given = mx.array(rows).astype(kind)
        found = np.array(most_probable(given))
        assert found.tolist() == best_tokens(np.array(given.astype(mx.float32))).tolist()
        assert found[1:].tolist() == [70, NO_TOKEN, NO_TOKEN, NO_TOKEN, NO_TOKEN, 33, 0]


def test_steps_that_run_ahead_write_the_cache_in_place() -> None:
    decoder = load(num_blocks=4000)
    cache_bytes = 4000 * decoder.block_bytes
    texts_ = Texts(decoder, texts())
    before = decoder.begin(texts_.step({0: 1, 2: 1}))
    before.read()
    mx.reset_peak_memory()
    held_bytes = mx.get_active_memory()
    for place in range(1, 25):
        texts_.lengths = [place] * 3
        now = decoder.begin(replace(texts_.step({0: 1, 2: 1}), sources=np.array([0, 1])), before)
        before.read()
        before = now
    before.read()
    assert mx.get_peak_memory() - held_bytes < cache_bytes / 4
