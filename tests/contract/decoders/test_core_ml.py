"""Decoders as functions of a Core ML package, in Triune's runtime: what a conversion could fail of the decoders' suite.

Caches are of 16 tokens, and of 40, the longest text.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.decoders.cases import CONFIGS, SeededWeights
from contract.decoders.conftest import other_form
from contract.decoders.test_answers import TOLERANCE, check, texts, truth
from contract.decoders.test_engine import GREEDY, alone, run
from support.decoder_steps import Texts
from triune.core.clock import VirtualClock
from triune.core.decoder import CacheType
from triune.core.units import Presence, Unit, UnitStatus
from triune.engine.core import EngineCore
from triune.engine.models import write_explicit, write_model
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending
from triune.graph.decoder_model import DecoderModel
from triune.runtimes.compiled_cache import CompiledCache
from triune.runtimes.ladder import ladder
from triune.runtimes.ladder.decoder import LadderDecoder

pytest.importorskip("coremltools")

NUM_TOKENS = 40
CASES = ["llama 3", "gemma 3", "gpt 2"]
"""One of each kind: grouped heads and tied weights; windows, norms of heads and other positions in some layers; learned
positions, biases and LayerNorms.
"""

Load = Callable[..., LadderDecoder]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted packages are kept, each for all tests."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def load(packages: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    from triune.runtimes.coreml import CoreMl
    from triune.runtimes.coreml.decoder import load_ladder_decoder

    monkeypatch.setattr(ladder, "_SMALLEST", 16)
    runtime = CoreMl([UnitStatus(Unit.ANE, Presence.EMULATED, reason="a test")])
    opened: list[LadderDecoder] = []

    def load(case: str, *, num_blocks: int = 4, cache_type: CacheType = "fp32", **options: Any) -> LadderDecoder:
        config = CONFIGS[case]
        weights = SeededWeights(config)
        paged = write_model(config, weights, "paged", num_positions=NUM_TOKENS)
        write = functools.partial(write_explicit, config, weights, num_positions=NUM_TOKENS)
        model = DecoderModel(paged.model, paged.weights, NUM_TOKENS, write)
        decoder = load_ladder_decoder(
            *(runtime, CompiledCache(packages), model),
            unit=Unit.ANE,
            num_threads=1,
            num_blocks=num_blocks,
            precision=options.get("precision", "fp32"),
            cache_type=cache_type,
        )
        opened.append(decoder)
        return decoder

    yield load
    for each in opened:
        each.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", CASES)
def test_chunks_single_tokens_and_mixed_sequences_change_no_answer(load: Load, case: str) -> None:
    found = Texts(load(case), texts()).read_all(
        *[{1: 4, 0: 13}, {0: 1, 1: 1}, {2: 20, 0: 1, 1: 1}, {0: 19, 2: 1}, {2: 3, 1: 1}, {0: 5, 2: 1}, {0: 1}]
    )
    check(found, truth(case))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", CASES[:2])
def test_the_engine_gives_each_sequence_the_greedy_tokens_that_it_gets_alone(load: Load, case: str) -> None:
    engine = EngineCore(load(case), CONFIGS[case].vocab_size, VirtualClock(), SchedulerLimits(step_tokens=24))
    rng = np.random.default_rng(5)
    prompts = [rng.integers(0, 48, length).tolist() for length in (19, 12, 3, 1, 30)]
    sequences = [engine.add(prompt, GREEDY, Ending(8)) for prompt in prompts]
    run(engine)
    assert [each.tokens for each in sequences] == [alone(prompt, 8, case) for prompt in prompts]


@pytest.mark.timeout(400)
def test_a_sequence_moves_to_another_runtime_and_back(load: Load) -> None:
    case = CASES[0]
    here, other = Texts(load(case), texts()[:1]), Texts(other_form(case), texts()[:1])
    begun = here.read({0: 13})
    other.decoder.write_tokens(other.blocks[0], here.decoder.read_tokens(here.blocks[0], 13))
    other.lengths[0] = 13
    begun += other.read({0: 7})
    here.decoder.write_tokens(here.blocks[0], other.decoder.read_tokens(other.blocks[0], 20))
    here.lengths[0] = 20
    check([np.concatenate([*begun, *here.read({0: 20})])], truth(case)[:1])


@pytest.mark.timeout(400)
def test_states_of_fp16_round_keys_and_values_alone(load: Load) -> None:
    """As it computes in fp32. The largest logit is 20 times as far from the others as roundings are."""
    case = CASES[0]
    decoder = load(case, cache_type="fp16")
    assert decoder.cache_form.startswith("float16 ")
    found = Texts(decoder, texts()[:1]).read_all({0: 13}, {0: 1}, {0: 25}, {0: 1})[0]
    np.testing.assert_allclose(found, truth(case)[0], atol=0.2)
    assert np.abs(found - truth(case)[0]).max() > TOLERANCE["atol"]
