"""Whatever a model's logits are, a constrained answer keeps to its form, and others in the batch do not notice."""

import json
import re
from collections.abc import Iterator

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.examples import examples
from support.scripted import EOS, VOCAB, ScriptedDecoder, byte_tokenizer
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep
from triune.core.errors import InvalidArgumentError
from triune.engine.core import EngineCore
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.structured.compiler import ConstraintCompiler
from triune.engine.structured.constraint import Constraint

SCHEMAS: list[dict[str, object]] = [
    {"type": "integer", "minimum": -20, "exclusiveMaximum": 150},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"enum": ["red", "grün", 3, None, {"a": [1, 2]}]},
    {"type": "string", "maxLength": 6},
    {"type": "string", "pattern": "^[a-f]{2,4}(-x)?$"},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 4},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]},
        },
        "required": ["name", "next"],
        "additionalProperties": False,
        "$defs": {"leaf": {"type": "object", "properties": {"x": {"const": 1}}, "additionalProperties": False}},
    },
]
REGEXES = [r"\d{4}-\d\d", "(ab|c){1,5}d?", "[äöü]{2}x*y{0,3}", "(yes|no|maybe)( really)?"]
MAX_TOKENS = 900
PROMPT = [65, 66, 67]


class RandomDecoder(ScriptedDecoder):
    """Its logits are drawn from a generator seeded by the place and the token there, so that they repeat."""

    def __init__(self, seed: int) -> None:
        super().__init__(b"-", num_blocks=1200, block_size=8)
        self._seed = seed

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        step.require_fitting(self.num_blocks, self.block_size)
        rows = [
            np.random.default_rng((self._seed, int(step.position_ids[at]), int(step.input_ids[at]))).normal(size=VOCAB)
            for at in step.logits_indices
        ]
        return np.array(rows, np.float32).reshape(-1, VOCAB) * 4


@pytest.fixture(scope="module")
def compiler() -> Iterator[ConstraintCompiler]:
    compiler = ConstraintCompiler(byte_tokenizer(), VOCAB)
    yield compiler
    compiler.close()


def run(engine: EngineCore) -> None:
    while not engine.is_idle:
        engine.step()
        engine.check()


def text(sequence: Sequence) -> str:
    return bytes(token for token in sequence.tokens[len(PROMPT) :] if token != EOS).decode()


def is_valid(constraint: Constraint, answer: str) -> bool:
    if constraint.kind == "regex":
        return re.fullmatch(constraint.text, answer) is not None
    return jsonschema_rs.is_valid(json.loads(constraint.text), json.loads(answer))


parameters = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([{}, {EOS: 100.0}, {ord('"'): -100.0}]),
    seed=st.integers(0, 100),
)
constraints = st.one_of(
    st.sampled_from([Constraint("json_schema", json.dumps(each)) for each in SCHEMAS]),
    st.sampled_from([Constraint("regex", each) for each in REGEXES]),
)


@examples(60)
@given(
    asked=st.lists(st.tuples(constraints, parameters, st.integers(0, 12)), min_size=1, max_size=5),
    free=parameters,
    seed=st.integers(0, 1000),
)
def test_constrained_answers_keep_to_their_form(
    compiler: ConstraintCompiler,
    asked: list[tuple[Constraint, SamplingParameters, int]],
    free: SamplingParameters,
    seed: int,
) -> None:
    ends = frozenset({EOS})
    engine = EngineCore(RandomDecoder(seed), VOCAB, VirtualClock(), SchedulerLimits(step_tokens=16))
    constrained = [
        engine.add(
            PROMPT, sampling, Ending(MAX_TOKENS, ends, min_tokens), matcher=compiler.compile(constraint).matcher()
        )
        for constraint, sampling, min_tokens in asked
    ]
    neighbour = engine.add(PROMPT, free, Ending(40, ends))
    run(engine)
    for sequence, (constraint, _, _) in zip(constrained, asked, strict=True):
        assert sequence.finish_reason is FinishReason.STOP, sequence.error
        assert is_valid(constraint, text(sequence)), text(sequence)
    alone = EngineCore(RandomDecoder(seed), VOCAB, VirtualClock())
    same = alone.add(PROMPT, free, Ending(40, ends))
    run(alone)
    assert neighbour.tokens == same.tokens


@pytest.mark.parametrize("speculates", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_constraint_that_exceeds_a_limit_within_an_answer_fails_no_other_sequence(
    compiler: ConstraintCompiler, temperature: float, *, speculates: bool
) -> None:
    engine = EngineCore(
        ScriptedDecoder(b"a", num_blocks=200), VOCAB, VirtualClock(), proposer=NgramProposer() if speculates else None
    )
    sampling = SamplingParameters(temperature=temperature, seed=1)
    endless = compiler.compile(Constraint("gbnf", 'root ::= [ab] [ab] loop\nloop ::= "a" loop'))
    free = [engine.add(PROMPT, SamplingParameters(temperature=0), Ending(30)) for _ in range(2)]
    engine.step()
    failing = [engine.add(PROMPT, sampling, Ending(30), matcher=endless.matcher()) for _ in range(2)]
    run(engine)
    assert [text(each) for each in free] == ["a" * 30] * 2
    for each in failing:
        assert each.finish_reason is FinishReason.ERROR
        assert isinstance(each.error, InvalidArgumentError)
        assert "cannot go on under its constraint" in str(each.error)
