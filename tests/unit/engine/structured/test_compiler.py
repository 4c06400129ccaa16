"""Constraints over a vocabulary of bytes: what they allow, and which are refused."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from support.scripted import EOS, VOCAB, ScriptedDecoder, byte_tokenizer
from triune.core.clock import VirtualClock
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, UnavailableError
from triune.engine.core import EngineCore
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sequence import Ending, FinishReason
from triune.engine.structured.compiler import MAX_GRAMMARS, ConstraintCompiler
from triune.engine.structured.constraint import MAX_CHARACTERS, Constraint
from triune.engine.structured.matcher import Matcher
from triune.engine.structured.trial import Trials
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def compiler() -> Iterator[ConstraintCompiler]:
    compiler = ConstraintCompiler(byte_tokenizer(), VOCAB)
    yield compiler
    compiler.close()


def fits(matcher: Matcher, text: str) -> bool:
    """Whether the matcher allows a text byte by byte, and the end after it."""
    for byte in text.encode():
        if not matcher.allowed()[byte]:
            return False
        matcher.accept(byte)
    return bool(matcher.allowed()[EOS])


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (
            Constraint("json_schema", json.dumps({"properties": {"a": {"type": "integer"}}, "required": ["a"]})),
            ['{"a": 3}', '{"a":-1,"b":[]}'],
            ["{}", '{"a": 1.5}', '{"a": 3', '  {"a": 3}'],
        ),
        (Constraint("json_schema", "true"), ["null", "[1, {}]", '"é"'], ["nul", "'a'", ""]),
        (Constraint("json_object"), ["{}", '{"a": {"b": null}}'], ["[]", "{", '"{}"']),
        (Constraint("regex", r"\d{3}-[a-z/]+"), ["123-ab", "000-a/"], ["12-ab", "123-", "123-A", "١٢٣-ab"]),
        (Constraint("regex", 'a\nb/"c'), ['a\nb/"c'], ["anb"]),
        (Constraint("regex", r"^ab*$"), ["a", "abb"], ["^a", "b"]),
        (Constraint("lark", 'start: "a" b+\nb: "b" | "c"'), ["ab", "abcb"], ["a", "ba"]),
        (
            Constraint("gbnf", r'root ::= "\u0041bc" [\u0042c] "\\u0041"'),
            [r"AbcB\u0041", r"Abcc\u0041"],
            ["\u41bc", "Abcu"],
        ),
        (
            Constraint("gbnf", r'root ::= "\u00e9" [\u0394-\u0396] "\U0001F600\xe4\x41"'),
            ["éΔ😀äA", "éΖ😀äA"],
            ["éΗ😀äA"],
        ),
        (Constraint("gbnf", r'root ::= "\x22" [\x5d\x2d] "\x5c"'), ['"]\\', '"-\\'], ['"x\\']),
        (Constraint("gbnf", 'root ::= "x" dig+ ("," dig+)*\ndig ::= [0-9]'), ["x1", "x12,3"], ["x", "x1,"]),
        (Constraint("choice", json.dumps(["yes", "no", 'é"\\\x00/😀'])), ["yes", 'é"\\\x00/😀'], ["y", "yesno"]),
    ],
    ids=lambda each: each.kind if isinstance(each, Constraint) else "",
)
def test_what_fits(compiler: ConstraintCompiler, constraint: Constraint, good: list[str], bad: list[str]) -> None:
    grammar = compiler.compile(constraint)
    assert {text: fits(grammar.matcher(), text) for text in (*good, *bad)} == dict.fromkeys(good, True) | dict.fromkeys(
        bad, False
    )


def test_a_complete_answer_is_ended_and_only_the_end_follows(compiler: ConstraintCompiler) -> None:
    matcher = compiler.compile(Constraint("choice", '["ab", "abc"]')).matcher()
    for byte in b"ab":
        assert not matcher.is_ended
        matcher.accept(byte)
    assert [*matcher.allowed().nonzero()[0]] == [ord("c"), EOS]
    assert [*matcher.allowed(may_end=False).nonzero()[0]] == [ord("c")]
    assert matcher.num_fitting(b"cc") == 1
    matcher.accept(ord("c"))
    assert matcher.is_ended
    assert [*matcher.allowed(may_end=False).nonzero()[0]] == [EOS]
    with pytest.raises(InvalidArgumentError, match="cannot go on under its constraint"):
        matcher.accept(ord("c"))


def test_answers_to_one_request_go_their_own_ways(compiler: ConstraintCompiler) -> None:
    grammar = compiler.compile(Constraint("choice", '["ab", "cd"]'))
    one, other = grammar.matcher(), grammar.matcher()
    one.accept(ord("a"))
    assert [*one.allowed().nonzero()[0]] == [ord("b")]
    assert [*other.allowed().nonzero()[0]] == [ord("a"), ord("c")]


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Constraint("json_schema", "{"), "json_schema is not JSON"),
        (Constraint("json_schema", '{"minimum": NaN}'), "NaN is no JSON value"),
        (Constraint("json_schema", "[" * 50_000), "json_schema is nested too deeply"),
        (Constraint("json_schema", "3"), "json_schema is a int; it must be an object or true"),
        (Constraint("json_schema", "false"), "no answer can meet"),
        (Constraint("json_schema", '{"type": "nothing"}'), "Invalid type: nothing"),
        (Constraint("json_schema", '{"type": "integer", "minimum": 3, "maximum": 2}'), "minimum .* is greater than"),
        (Constraint("json_schema", '{"$ref": "#"}'), "cannot be used"),
        (
            Constraint("json_schema", '{"type": "array", "items": {"$ref": "#"}, "minItems": 1}'),
            "# requires itself, without an end",
        ),
        (Constraint("json_schema", '{"uniqueItems": true}'), "Unimplemented keys"),
        (Constraint("json_schema", '{"type": "null", "type": "string"}'), '"type" is given twice'),
        (Constraint("regex", "(?=a)b"), "look-around"),
        (Constraint("regex", "(" * 5000), "nest limit|unclosed group"),
        (Constraint("lark", 'start: "a'), "lexer error"),
        (Constraint("lark", "start: start"), "cannot be used"),
        (Constraint("gbnf", 'x ::= "a"'), "No 'root' rule found"),
        (Constraint("gbnf", r'root ::= "\ud800"'), r"\\ud800 names no character"),
        (Constraint("gbnf", r'root ::= "\U00110000"'), "names no character"),
        (Constraint("gbnf", "root ::= " + "(" * 5000), "recursion depth"),
        (Constraint("choice", "[]"), "one or more texts"),
        (Constraint("choice", '["a", 3]'), "one or more texts"),
    ],
    ids=lambda each: each.kind if isinstance(each, Constraint) else "",
)
def test_what_is_wrong_or_cannot_be_met_is_refused(
    compiler: ConstraintCompiler, constraint: Constraint, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        compiler.compile(constraint)


@pytest.mark.parametrize(
    "constraint",
    [
        # A stack that overflows, which ends the process that tries it, and one that takes gigabytes.
        Constraint("gbnf", "".join(f"a{i}::=a{i + 1}\n" for i in range(900)) + 'a900::="a"\nroot::=a0\n'),
        Constraint("json_schema", json.dumps({"allOf": [{"multipleOf": each} for each in (9973, 9967, 9949, 9941)]})),
        Constraint("lark", "start: T0\n" + "".join(f"T{i}: T{i + 1} T{i + 1}\n" for i in range(60)) + 'T60: "a"\n'),
        Constraint("json_schema", json.dumps({"allOf": [{"anyOf": [{"minimum": i + j} for j in range(8)]}
                                                        for i in range(12)]})),
        # Refused by the library in the first step only, with what the first form takes kept until then.
        Constraint("regex", "a{4294967295}"),
        Constraint("regex", "(a{1000}b){1000}"),
        Constraint("json_schema", '{"type": "string", "pattern": "^a{4294967295}$"}'),
        Constraint("lark", "start: /a{4294967295}/"),
    ],
    ids=["deep", "huge numbers", "doubling", "product", "repeats", "repeated repeats", "in a schema", "in a grammar"],
)  # fmt: skip
def test_what_is_too_complex_is_refused_and_harms_no_other(
    compiler: ConstraintCompiler, constraint: Constraint
) -> None:
    with pytest.raises(InvalidArgumentError, match="too complex|too big|too large"):
        compiler.compile(constraint)
    assert fits(compiler.compile(Constraint("choice", '["a"]')).matcher(), "a")


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("regex", "a{30000}"),
        Constraint("regex", "(a{100}b){100}"),
        Constraint("choice", json.dumps([f"{'x' * 16_000}{i}" for i in range(8)])),
        Constraint(
            "json_schema", json.dumps({"properties": {f"name{i}": {"pattern": "^[a-z]{1,40}$"} for i in range(2000)}})
        ),
        Constraint("regex", ""),
    ],
    ids=["repeats", "repeated repeats", "long texts", "many patterns", "nothing"],
)
def test_what_is_large_is_compiled(compiler: ConstraintCompiler, constraint: Constraint) -> None:
    compiler.compile(constraint)


def test_texts_and_numbers_of_constraints_are_limited(compiler: ConstraintCompiler) -> None:
    with pytest.raises(PayloadTooLargeError, match="has 131073 characters; it may have 131072"):
        Constraint("json_schema", " " * (MAX_CHARACTERS + 1))
    with pytest.raises(PayloadTooLargeError, match="it may have 16384"):
        Constraint("regex", "a" * 20_000)
    held = [compiler.compile(Constraint("choice", '["a"]')).matcher() for _ in range(MAX_GRAMMARS)]
    with pytest.raises(UnavailableError, match="128 constraints are in use, of at most 128"):
        compiler.compile(Constraint("choice", '["a"]'))
    held.pop()
    compiler.compile(Constraint("choice", '["a"]'))


def test_a_tokenizer_that_puts_a_space_before_texts() -> None:
    """What has no choice is not encoded with the space that such a tokenizer would begin it with."""
    words = [
        "<unk>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁hello",
        "▁world",
        "hello",
        "wor",
        "ld",
    ]
    backend = tokenizers.Tokenizer(
        models.Unigram([(word, -float(rank)) for rank, word in enumerate(words)], unk_id=0, byte_fallback=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["</s>"])
    tokenizer = Tokenizer(backend, SpecialTokens(eos=(1,)), len(words), "test")
    assert backend.encode("hello world").tokens == ["▁hello", "▁world"]
    compiler = ConstraintCompiler(tokenizer, len(words))
    try:
        matcher = compiler.compile(Constraint("choice", '["hello world"]')).matcher()
        assert [words[token] for token in matcher.forced()] == ["hello", "▁world"]
        while not matcher.is_ended:
            (token,) = matcher.allowed().nonzero()[0]
            matcher.accept(int(token))
    finally:
        compiler.close()


def test_a_vocabulary_is_freed_with_the_last_matcher() -> None:
    tokenizer = byte_tokenizer()
    alive = weakref.ref(tokenizer)
    compiler = ConstraintCompiler(tokenizer, VOCAB)
    matcher = compiler.compile(Constraint("choice", '["abc"]')).matcher()
    compiler.close()
    del tokenizer, compiler
    gc.collect()
    assert len(matcher.forced()) == 3, "it goes on without its compiler"
    assert alive() is not None
    del matcher
    gc.collect()
    assert alive() is None


def test_an_answer_whose_next_tokens_take_too_long_to_find_fails_alone(compiler: ConstraintCompiler) -> None:
    engine = EngineCore(ScriptedDecoder(b"a"), VOCAB, VirtualClock())
    greedy, ending = SamplingParameters(temperature=0), Ending(60)
    hostile = compiler.compile(Constraint("regex", "((a{1,100}){1,100}){1,100}"))
    failing = engine.add([1], greedy, ending, matcher=hostile.matcher())
    other = engine.add([1], greedy, ending)
    results = [each for _ in range(60) for each in engine.step()]
    assert (failing, None) in results
    assert failing.finish_reason is FinishReason.ERROR
    with pytest.raises(InvalidArgumentError, match="the answer cannot go on under its constraint: .*lexer"):
        raise failing.error or AssertionError
    assert (other.finish_reason, other.num_answered) == (FinishReason.LENGTH, 60)
    engine.check()


class Held(Trials):
    """Trials that end when a test lets them, or interrupts them."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[str] = []
        self.may_end = threading.Semaphore(0)
        self.num_interrupts = 0

    def require(self, grammar: str) -> None:
        self.tried.append(grammar)
        assert self.may_end.acquire(timeout=60)

    def interrupt(self) -> None:
        self.num_interrupts += 1
        self.may_end.release()


def long_constraint(letter: str) -> Constraint:
    return Constraint("choice", json.dumps([letter * 5000]))


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0)


async def test_short_constraints_do_not_wait_for_long_ones(compiler: ConstraintCompiler) -> None:
    before, compiler._long.trials = compiler._long.trials, (held := Held())
    waiting = [asyncio.ensure_future(compiler.compile_in_turn(long_constraint(each))) for each in "abc"]
    await until(lambda: len(held.tried) == 1)
    grammar = await compiler.compile_in_turn(Constraint("choice", '["short"]'))
    assert fits(grammar.matcher(), "short")
    assert not any(each.done() for each in waiting)
    for _ in waiting:
        held.may_end.release()
    await asyncio.gather(*waiting)
    compiler._long.trials = before


async def test_constraints_whose_clients_have_left_are_not_compiled(compiler: ConstraintCompiler) -> None:
    before, compiler._long.trials = compiler._long.trials, (held := Held())
    left = [asyncio.ensure_future(compiler.compile_in_turn(long_constraint(each))) for each in "def"]
    last = asyncio.ensure_future(compiler.compile_in_turn(long_constraint("g")))
    await until(lambda: len(held.tried) == 1)
    for each in left:
        each.cancel()
    await asyncio.wait(left)
    assert held.num_interrupts == 1, "the one that is tried is ended, and those that wait are dropped"
    await until(lambda: len(held.tried) == 2)
    assert "ggg" in held.tried[1]
    held.may_end.release()
    await last
    compiler._long.trials = before


async def test_a_trial_that_is_interrupted_harms_no_other(compiler: ConstraintCompiler) -> None:
    for letter in "hij":
        names = {f"name{i}": {"pattern": "^[a-z]{1,40}$"} for i in range(1500)}
        slow = Constraint("json_schema", json.dumps({"properties": names, "title": letter}))
        leaving = asyncio.ensure_future(compiler.compile_in_turn(slow))
        await until(lambda: compiler._long.trials._is_trying)
        leaving.cancel()
        await asyncio.wait([leaving])
        grammar = await compiler.compile_in_turn(long_constraint(letter))
        assert fits(grammar.matcher(), letter * 5000)


def test_a_vocabulary_that_llguidance_cannot_hold_is_refused() -> None:
    """It panics at a token of 5,000 characters, with an exception that is no Exception."""
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b" * 5000: 1}, unk_token="a"))
    tokenizer = Tokenizer(backend, SpecialTokens(), 2, "m")
    with pytest.raises(InvalidArgumentError, match="cannot be used for structured output"):
        ConstraintCompiler(tokenizer, 2)
