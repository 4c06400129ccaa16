"""Steps of one token of each sequence on NVIDIA's GPUs, whole steps compiled, against the same model's other steps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.decoders.cases import CONFIGS, SeededWeights
from contract.decoders.test_answers import check, texts, truth
from support.decoder_steps import Texts
from triune.core.decoder import best_tokens
from triune.engine.models import write_model
from triune.metal.nvidia import is_nvidia
from triune.runtimes.mlx import compiled_steps
from triune.runtimes.mlx.decoder import MlxDecoder

pytestmark = pytest.mark.skipif(not is_nvidia(), reason="MLX computes on no GPU of NVIDIA here")


def load(case: str = "llama 2", **options: Any) -> MlxDecoder:
    model = write_model(CONFIGS[case], SeededWeights(CONFIGS[case]), "paged")
    return MlxDecoder(model, **{"num_blocks": 12, "precision": "fp32", **options})


STEPS = ({0: 30, 2: 1}, *[{0: 1, 2: 1}] * 3, {1: 4, 2: 2}, *[{2: 1, 0: 1, 1: 1}] * 3, {0: 1}, {2: 5, 0: 3})


@pytest.mark.parametrize("case", CONFIGS)
def test_answers_are_right_in_any_order_of_steps(case: str) -> None:
    decoder = load(case)
    assert decoder.compiled is not None
    lengths = [40, 7, 14]
    for got, wanted in zip(Texts(decoder, texts()).read_all(*STEPS), truth(case), strict=True):
        assert len(got) in lengths
        np.testing.assert_allclose(got, wanted[: len(got)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "cache_type", "error"), [("fp16", None, 0.1), ("bf16", None, 0.8), ("fp32", "fp16", 0.02)]
)
def test_fewer_bits_are_nearly_right(precision: Any, cache_type: Any, error: float) -> None:
    decoder = load(precision=precision, cache_type=cache_type)
    for got, wanted in zip(Texts(decoder, texts()).read_all(*STEPS), truth("llama 2"), strict=True):
        assert 0 < np.abs(got - wanted[: len(got)]).max() < error


def test_a_cache_of_8_bits_is_read_by_other_steps() -> None:
    assert load(cache_type="int8").compiled is None


def test_a_step_reads_the_tokens_of_one_that_is_still_computed() -> None:
    decoder = load()
    given = Texts(decoder, [each.copy() for each in texts()])
    given.read({0: 30, 1: 4, 2: 20})
    counts = {0: 1, 1: 1, 2: 1}
    first = given.step(counts)
    pending = decoder.begin(first)
    given.lengths = [length + 1 for length in given.lengths]
    following = replace(given.step(counts), sources=np.array([2, -1, 0]))
    found = decoder.begin(following, pending).read()
    tokens = pending.read()
    given.texts[0][31], given.texts[2][21] = tokens[2], tokens[0]
    np.testing.assert_array_equal(found, best_tokens(decoder.run(given.step(counts))))


def test_blocks_that_were_written_can_be_copied_and_read() -> None:
    decoder = load(num_blocks=8)
    given = Texts(decoder, texts()[:1])
    given.read({0: 30})
    given.read({0: 1})
    free = [block for block in range(8) if block not in given.blocks[0]]
    decoder.copy_blocks(given.blocks[0][:2].tolist(), free[:2])
    given.blocks[0] = np.array([*free[:2], *given.blocks[0][2:]], np.int32)
    check([given.read({0: 1})[0]], [truth("llama 2")[0][31:32]])
    assert all(len(each) == 32 for each in decoder.read_tokens(given.blocks[0].tolist(), 32))


def test_only_so_many_sizes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = load(num_blocks=20)
    compiled: Any = decoder.compiled
    monkeypatch.setattr(compiled_steps, "MOST_COMPILED", 3)
    for count in (1, 2, 3, 4, 5, 9, 2, 20):
        words = [np.arange(1, 3) for _ in range(count)]
        Texts(decoder, words).read(dict.fromkeys(range(count), 1))
    assert [rows for _, rows, *_ in compiled._compiled] == [12, 2, 24]
