"""T5 in the engine, on every runtime, against what transformers writes with the same weights, which are random."""

from collections.abc import Sequence as Seq
from pathlib import Path

import numpy as np
import pytest

from contract.architectures.conftest import RUNS, answers, checkpoint_of
from contract.architectures.hugging_face import NUM_WRITTEN, REPETITION_PENALTY, inputs
from contract.architectures.test_answers import KEPT, decoder_of
from triune.core.clock import VirtualClock
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError
from triune.engine.core import EngineCore
from triune.engine.encoder import pack
from triune.engine.memory import Memory
from triune.engine.models import write_encoder, write_model
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.source import Source
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.weights import Checkpoint
from triune.engine.weights.config import T5Config
from triune.runtimes import missing

GREEDY = SamplingParameters(temperature=0, repetition_penalty=REPETITION_PENALTY)
SOURCES: list[Source] = [tuple(ids[mask].tolist()) for ids, mask in zip(inputs()["input_ids"], KEPT, strict=True)]


class Reader:
    """A `SourceReader` that computes the encoder's graph with a runtime.

    Attributes:
        read_sources: what it read, in that order.
        broken: a source that it cannot read.
    """

    def __init__(self, runtime: str, checkpoint: Checkpoint) -> None:
        self._run = RUNS[runtime]
        self._graph = write_encoder(checkpoint.config, checkpoint, "packed", gives_memory=True)
        self._names = [each.name for each in self._graph.model.graph.output]
        self.read_sources: list[Source] = []
        self.broken: Source | None = None

    def read(self, sources: Seq[Source]) -> Seq[Memory | TriuneError]:
        self.read_sources += sources
        return [InternalError("broken") if each == self.broken else self._memory(each) for each in sources]

    def _memory(self, source: Source) -> Memory:
        given = pack([np.array(source, np.int64)])
        rows = self._run(self._graph, {each.name: given[each.name] for each in self._graph.model.graph.input})
        memory = {name: each[np.newaxis] for name, each in zip(self._names, rows, strict=True)}
        return memory | {"cross_mask": np.ones((1, len(source), 1), np.float32)}


class Bench:
    """An engine over a case on a runtime."""

    def __init__(self, case: str, runtime: str, folder: Path) -> None:
        checkpoint = checkpoint_of(case, folder)
        assert isinstance(checkpoint.config, T5Config)
        self.case = case
        self.config = checkpoint.config
        self._decoder_of = lambda num_blocks: decoder_of(
            runtime, write_model(checkpoint.config, checkpoint, "paged"), num_blocks
        )
        self.reader: Reader | None = Reader("numpy" if runtime == "reference" else runtime, checkpoint)

    def engine(self, num_blocks: int = 16, proposer: NgramProposer | None = None, **limits: int) -> EngineCore:
        decoder = self._decoder_of(num_blocks)
        return EngineCore(
            decoder,
            self.config.vocab_size,
            VirtualClock(),
            SchedulerLimits(**limits),
            proposer,
            reader=self.reader,
        )

    @property
    def read_sources(self) -> list[Source]:
        return [] if self.reader is None else self.reader.read_sources

    def add(self, engine: EngineCore, which: int, **options: int) -> Sequence:
        return engine.add([0], GREEDY, Ending(NUM_WRITTEN), source=SOURCES[which], **options)

    def check(self, sequences: Seq[Sequence], which: Seq[int]) -> None:
        wanted = answers()[f"{self.case}: written"]
        for sequence, number in zip(sequences, which, strict=True):
            assert sequence.tokens[1:] == wanted[number].tolist()


def run(engine: EngineCore) -> None:
    while not engine.is_idle:
        engine.step()
        engine.check()


@pytest.fixture(params=["reference", "openvino", "mlx"])
def runtime(request: pytest.FixtureRequest) -> str:
    if request.param != "reference" and (reason := missing().get(request.param)):
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("case", ["t5", "t5 1.1"])
def test_answers_of_one_batch_are_those_of_each_text_by_itself(case: str, runtime: str, tmp_path: Path) -> None:
    """Of sources of different lengths, which join and leave the batch at different steps."""
    bench = Bench(case, runtime, tmp_path)
    engine = bench.engine()
    order = [1, 0, 1, 0]
    sequences: list[Sequence] = []
    for which in order:
        sequences.append(bench.add(engine, which))
        for _ in range(3):
            engine.step()
            engine.check()
    run(engine)
    bench.check(sequences, order)


def test_preemption_and_guesses_change_no_answer(runtime: str, tmp_path: Path) -> None:
    """A cache of three blocks of 16 holds one answer and a half: one gives up its blocks, and its source is read again.

    The engine has an n-gram proposer, whose guesses are seldom right with random weights.
    """
    bench = Bench("t5 1.1", runtime, tmp_path)
    engine = bench.engine(3, NgramProposer())
    sequences = [bench.add(engine, which) for which in (0, 1)]
    run(engine)
    bench.check(sequences, (0, 1))
    assert sum(each.num_preemptions for each in sequences) == len(bench.read_sources) - 2 > 0


def test_answers_to_one_prompt_have_it_read_once(tmp_path: Path) -> None:
    bench = Bench("t5", "reference", tmp_path)
    engine = bench.engine()
    sequences = [bench.add(engine, which) for which in (0, 0, 1)]
    engine.step()
    sequences.append(bench.add(engine, 0))
    run(engine)
    assert bench.read_sources == [SOURCES[0], SOURCES[1]]
    bench.check(sequences, (0, 0, 1, 0))


def test_a_source_that_cannot_be_read_fails_its_answers_and_no_other(tmp_path: Path) -> None:
    bench = Bench("t5", "reference", tmp_path)
    engine = bench.engine()
    good = bench.add(engine, 1)
    engine.step()
    assert bench.reader is not None
    bench.reader.broken = SOURCES[0]
    bad = bench.add(engine, 0)
    found = engine.step()
    assert (bad, None) in found
    assert (bad.finish_reason, str(bad.error)) == (FinishReason.ERROR, "broken")
    assert engine.failure is None, "the step did not fail"
    run(engine)
    bench.check([good], [1])
    alone = bench.add(engine, 0)
    assert engine.step() == [(alone, None)]
    assert engine.is_idle
    engine.check()


def test_sources_are_read_within_the_tokens_of_a_step(tmp_path: Path) -> None:
    """A step of 16 tokens reads one source at least, and no second one beyond its tokens: they have 40 and 11."""
    bench = Bench("t5", "reference", tmp_path)
    engine = bench.engine(step_tokens=16)
    sequences = [bench.add(engine, which) for which in (0, 1, 1)]
    read: list[int] = []
    for _ in range(3):
        engine.step()
        read.append(len(bench.read_sources))
    assert read == [1, 2, 2]
    assert engine.num_running == 3
    run(engine)
    bench.check(sequences, (0, 1, 1))


def test_sources_wait_where_their_memory_would_exceed_the_limit(tmp_path: Path) -> None:
    """All count as long as the longest: beside one of 40 tokens, one of 11 takes 40."""
    bench = Bench("t5", "reference", tmp_path)
    engine = bench.engine(source_tokens=79)
    sequences = [bench.add(engine, which) for which in (0, 1)]
    for _ in range(NUM_WRITTEN):
        assert (engine.num_running, engine.num_waiting) in ((0, 2), (1, 1))
        engine.step()
    run(engine)
    bench.check(sequences, (0, 1))
    roomy = bench.engine(source_tokens=80)
    for which in (0, 1):
        bench.add(roomy, which)
    roomy.step()
    assert roomy.num_running == 2
    few = bench.engine(source_tokens=1)
    alone = bench.add(few, 0)
    run(few)
    bench.check([alone], [0])


def test_memory_is_freed_with_the_answer(tmp_path: Path) -> None:
    bench = Bench("t5", "reference", tmp_path)
    engine = bench.engine()
    sequences = [bench.add(engine, which) for which in (0, 1)]
    engine.step()
    assert all(each.memory for each in sequences)
    engine.cancel(sequences[0])
    assert not sequences[0].memory
    run(engine)
    assert not sequences[1].memory


def test_answers_to_other_prompts_share_no_blocks(tmp_path: Path) -> None:
    bench = Bench("t5 1.1", "reference", tmp_path)
    engine = bench.engine(64)
    prompt = [0, *range(3, 40)]
    cached: list[int] = []
    for which in (0, 1, 0):
        sequence = engine.add(prompt, GREEDY, Ending(1), source=SOURCES[which])
        run(engine)
        cached.append(sequence.num_cached_tokens)
    assert cached == [0, 0, 32]


def test_a_sequence_without_a_source_is_refused(tmp_path: Path) -> None:
    bench = Bench("t5", "reference", tmp_path)
    engine = bench.engine()
    with pytest.raises(InvalidArgumentError, match="encoder reads a prompt, and there is none"):
        engine.add([0], GREEDY, Ending(1))
    with pytest.raises(InvalidArgumentError, match="the prompt has token 48; the model's tokens are 0 to 47"):
        engine.add([0], GREEDY, Ending(1), source=(1, 48))
    assert engine.is_idle
    bench.reader = None
    with pytest.raises(InvalidArgumentError, match="the model has no encoder that could read a source"):
        bench.engine().add([0], GREEDY, Ending(1), source=(1,))


@pytest.mark.parametrize("steps", [1, 9])
def test_an_answer_goes_on_in_another_engine(runtime: str, steps: int, tmp_path: Path) -> None:
    bench = Bench("t5 1.1", runtime, tmp_path)
    first, second = bench.engine(), bench.engine()
    sequence = bench.add(first, 0)
    for _ in range(steps):
        first.step()
    moved = second.resume(first.export(sequence))
    run(second)
    assert first.is_idle
    bench.check([moved], [0])
