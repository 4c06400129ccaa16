"""LoRA adapters on every decoder: PEFT's own answers, and batches in which each sequence has its own."""

import functools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from contract.decoders.cases import CONFIGS, SeededWeights
from contract.decoders.conftest import Bench
from contract.decoders.hugging_face import ADAPTERS, NUM_TOKENS, STORED
from contract.decoders.test_answers import TOLERANCE, check, texts
from support.decoder_steps import Texts
from triune.core.clock import VirtualClock
from triune.core.errors import InvalidArgumentError
from triune.engine.core import EngineCore
from triune.engine.models import write_model
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, Sequence
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.weights.lora import Adapter, read_adapter

FOLDER = Path(__file__).parent / "adapters"
CASE = "llama 3"
GREEDY = SamplingParameters(temperature=0)


@functools.cache
def adapter(name: str) -> Adapter:
    return read_adapter(FOLDER / name, name, CONFIGS[ADAPTERS[name][0]])


def both() -> list[Adapter]:
    return [adapter("all-layers"), adapter("stabilized")]


def digests() -> dict[str, bytes]:
    return {each.name: each.digest for each in both()}


@functools.cache
def peft_answers() -> dict[str, NDArray[np.float32]]:
    with np.load(FOLDER / "answers.npz") as file:
        return dict(file)


@functools.cache
def evaluator(*adapters: str, case: str = CASE) -> ReferenceEvaluator:
    config = CONFIGS[case]
    model = write_model(config, SeededWeights(config), "plain", adapters=[adapter(name) for name in adapters])
    return ReferenceEvaluator(model.whole())


def alone(text: NDArray[np.int64], name: str | None) -> NDArray[np.float32]:
    """The logits of one text by the graph without a cache, which has this adapter and no other."""
    if name is None:
        return evaluator().run(None, {"input_ids": text[None]})[0][0]
    return evaluator(name).run(None, {"input_ids": text[None], "adapters": np.ones((1, len(text)), np.int64)})[0][0]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_decoder_with_an_adapter_gives_the_answers_of_peft(bench: Bench, name: str) -> None:
    case, _ = ADAPTERS[name]
    decoder = bench.load(case, adapters=[adapter(name)])
    (logits,) = Texts(decoder, texts()[:1], adapters=[1]).read({0: NUM_TOKENS})
    np.testing.assert_allclose(logits[STORED], peft_answers()[name], **TOLERANCE)
    (plain,) = Texts(decoder, texts()[:1]).read({0: NUM_TOKENS})
    assert np.abs(plain[STORED] - peft_answers()[name]).max() > 0.5, "without it, the answers are others"


@pytest.mark.parametrize("chosen", [(1, 2, 0), (0, 1, 1), (2, 0, 1)])
def test_sequences_of_one_batch_have_their_own_adapters(bench: Bench, chosen: tuple[int, ...]) -> None:
    decoder = bench.load(CASE, adapters=both())
    found = Texts(decoder, texts(), adapters=chosen).read_all(
        {1: 4, 0: 13}, {0: 1, 1: 1}, {2: 20, 0: 1, 1: 1}, {0: 19, 2: 1}, {2: 3, 1: 1}, {0: 5, 2: 1}, {0: 1}
    )
    names = [None, *(each.name for each in both())]
    check(found, [alone(text, names[which]) for text, which in zip(texts(), chosen, strict=True)])


def test_a_graph_without_adapters_has_no_trace_of_them() -> None:
    config = CONFIGS[CASE]
    for form in ("paged", "plain"):
        model = write_model(config, SeededWeights(config), form)
        assert "adapters" not in {each.name for each in model.model.graph.input}
        assert not {node.op_type for node in model.model.graph.node} & {"Where", "Equal"}


def greedy(prompt: list[int], name: str | None, max_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(int(alone(np.array(tokens), name)[-1].argmax()))
    return tokens


def requests() -> list[tuple[list[int], str | None]]:
    """Prompts that begin alike, with one adapter, another, and none."""
    shared = np.random.default_rng(5).integers(0, 48, 34).tolist()
    names = ["all-layers", None, "stabilized", "all-layers", None, "stabilized"]
    return [([*shared, number % 2], name) for number, name in enumerate(names)]


def test_the_engine_gives_each_sequence_what_it_gets_alone(bench: Bench) -> None:
    """With the prefix cache, guesses, pieces of prompts and preemption at once."""
    decoder = bench.load(CASE, num_blocks=max(6, 90 // bench.load(CASE).block_size), adapters=both())
    limits = SchedulerLimits(step_tokens=16)
    engine = EngineCore(decoder, CONFIGS[CASE].vocab_size, VirtualClock(), limits, NgramProposer(), adapters=digests())
    assert engine.adapters == digests()
    for _ in range(2):
        sequences: list[Sequence] = []
        for prompt, name in requests():
            sequences.append(engine.add(prompt, GREEDY, Ending(6), adapter=name))
            engine.step()
        while not engine.is_idle:
            engine.step()
            engine.check()
        assert [each.tokens for each in sequences] == [greedy(prompt, name, 6) for prompt, name in requests()]


def test_only_sequences_with_the_same_adapter_share_blocks(bench: Bench) -> None:
    block_size = bench.load(CASE).block_size
    decoder = bench.load(CASE, num_blocks=4 * -(-44 // block_size), adapters=both())
    engine = EngineCore(decoder, CONFIGS[CASE].vocab_size, VirtualClock(), adapters=digests())
    cached: list[int] = []
    for prompt, name in requests():
        sequence = engine.add(prompt, GREEDY, Ending(2), adapter=name)
        while not engine.is_idle:
            engine.step()
        cached.append(sequence.num_cached_tokens)
    full = 34 // block_size * block_size
    assert cached == [0, 0, 0, full, full, full]


def test_an_unknown_adapter_is_an_error_that_names_the_known_ones(bench: Bench) -> None:
    decoder = bench.load(CASE, adapters=both())
    engine = EngineCore(decoder, CONFIGS[CASE].vocab_size, VirtualClock(), adapters=digests())
    with pytest.raises(InvalidArgumentError, match="'poet' is unknown; this model has all-layers, stabilized"):
        engine.add([1], GREEDY, Ending(1), adapter="poet")
    assert engine.is_idle


def test_an_adapter_of_infinite_answers_spoils_no_other_sequence(bench: Bench) -> None:
    """Its numbers are the largest that are read, so that those of its own tokens overflow."""
    strong = adapter("stabilized")
    modules = {
        name: type(each)(np.full_like(each.down, 60000), np.full_like(each.up, 60000))
        for name, each in strong.modules.items()
    }
    decoder = bench.load(CASE, adapters=[Adapter("strong", modules, b"strong"), adapter("all-layers")])
    found = Texts(decoder, texts(), adapters=[2, 1, 0]).read_all({0: 20, 1: 7, 2: 10}, {0: 20, 2: 15})
    check([found[0], found[2]], [alone(texts()[0], "all-layers"), alone(texts()[2], None)])
