"""The engine with a model that recites: what clients get, and what they cost each other."""

import asyncio
import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from support.scripted import EOS, POISON, VOCAB, ScriptedDecoder, answers_of, byte_tokenizer, scripted_engine, text_of
from triune.core.clock import VirtualClock
from triune.core.errors import InternalError, InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.statistics import FailureReason
from triune.engine import choosing
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import Sample, SamplingState
from triune.engine.sequence import FinishReason
from triune.engine.speculation.draft import DraftModel
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.structured.constraint import Constraint
from triune.engine.text.answer import Answer
from triune.engine.weights.tokenizer.template import ChatTemplate

SCRIPT = b"It was the best of times, it was the worst of times. "
GREEDY = SamplingParameters(temperature=0)


def recited(begin: int, count: int) -> str:
    return "".join(chr(SCRIPT[at % len(SCRIPT)]) for at in range(begin, begin + count))


def asked(prompt: str | list[int] = "ask", max_tokens: int | None = 10, **fields: object) -> Generation:
    return Generation(prompt, **{"sampling": GREEDY, "max_tokens": max_tokens, **fields})  # type: ignore[arg-type]


async def test_an_answer_goes_on_where_the_prompt_ends() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        ((text, last),) = await answers_of(engine, asked("It was"))
    assert text == " the best "
    assert last.finish_reason is FinishReason.LENGTH
    assert last.usage is not None
    assert (last.usage.num_prompt_tokens, last.usage.num_tokens, last.usage.num_cached_tokens) == (6, 10, 0)


async def test_many_at_once_get_their_own_answers() -> None:
    decoder = ScriptedDecoder(SCRIPT, num_blocks=256)
    decoder.gate.clear()
    async with scripted_engine(decoder) as engine:
        tasks = [asyncio.ensure_future(text_of(engine, asked("?" * length, 20))) for length in range(1, 20)]
        async with asyncio.timeout(60):
            while engine.statistics.num_pending < len(tasks):
                await asyncio.sleep(0.001)
        decoder.gate.set()
        texts = await asyncio.gather(*tasks)
    assert texts == [recited(length, 20) for length in range(1, 20)]
    assert max(len(step.past_lengths) for step in decoder.steps) >= 18, "they ran together"


async def test_without_max_tokens_an_answer_may_fill_the_context() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT), context_tokens=40) as engine:
        ((text, last),) = await answers_of(engine, asked("abc", None))
        assert text == recited(3, 37)
        assert last.finish_reason is FinishReason.LENGTH
        with pytest.raises(InvalidArgumentError, match="prompt has 40 tokens, and the context of 40 has no room"):
            await text_of(engine, asked("a" * 40, None))
        with pytest.raises(InvalidArgumentError, match="41; that is more than the context of 40"):
            await text_of(engine, asked("a" * 36, 5))


async def test_the_cache_limits_the_context() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT, num_blocks=3, block_size=4)) as engine:
        assert engine.context_tokens == 13
        assert await text_of(engine, asked("abc", None)) == recited(3, 10)


async def test_a_stop_text_ends_an_answer_before_it() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        ((text, last),) = await answers_of(engine, asked("It ", 40, stop=("zebra", "of t")))
        assert (text, last.finish_reason, last.stop) == ("was the best ", FinishReason.STOP, "of t")
        assert last.usage is not None
        assert last.usage.num_tokens == len("was the best of t")
        ((text, _),) = await answers_of(engine, asked("It ", 40, stop=("of t",), is_stop_included=True))
        assert text == "was the best of t"


async def test_what_may_begin_a_stop_text_is_held_back_and_no_longer() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT), clock=VirtualClock()) as engine:
        whole = ""
        async for delta in engine.generate(asked("It ", 16, stop=("best of all",))):
            whole += delta.text
            assert not whole.endswith("b"), "it may begin the stop text"
        assert whole == "was the best of ", "the answer ended, so nothing can follow any more"


async def test_end_tokens_end_an_answer_without_text() -> None:
    def script(position: int) -> int:
        return EOS if position == 8 else SCRIPT[position]

    async with scripted_engine(ScriptedDecoder(script)) as engine:
        ((text, last),) = await answers_of(engine, asked("abc", 40))
        assert (text, last.finish_reason, last.stop) == (recited(3, 5), FinishReason.STOP, None)
        ((text, last),) = await answers_of(engine, asked("abc", 12, is_end_ignored=True))
        assert (text, last.finish_reason) == (recited(3, 5) + recited(9, 6), FinishReason.LENGTH)
        ((text, last),) = await answers_of(engine, asked("abc", 40, min_tokens=6, stop_tokens=frozenset({ord("e")})))
        assert (text, last.stop) == (recited(3, 5), ord("e")), "the end token came too early to count"


async def test_a_special_token_is_text_only_if_asked_for() -> None:
    def script(position: int) -> int:
        return EOS if position == 5 else ord("x")

    async with scripted_engine(ScriptedDecoder(script)) as engine:
        for shown, text in (("<eos>", "xx<eos>xx"), ("[TOOL_CALLS]", "xxxx")):
            request = asked("ask", 5, is_end_ignored=True, shown_specials=frozenset({shown}))
            assert await text_of(engine, request) == text


async def test_a_stop_token_is_named_and_is_no_text_unless_asked_for() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        ((text, last),) = await answers_of(engine, asked("It ", 40, stop_tokens=frozenset({ord("b")})))
        assert (text, last.stop, last.finish_reason) == ("was the ", ord("b"), FinishReason.STOP)
        request = asked("It ", 40, stop_tokens=frozenset({ord("b")}), is_stop_included=True)
        assert (await answers_of(engine, request))[0][0] == "was the b"


async def test_a_character_of_several_tokens_comes_whole() -> None:
    script = "äöü€😀".encode()
    async with scripted_engine(ScriptedDecoder(lambda position: script[(position - 1) % len(script)])) as engine:
        texts = [delta.text async for delta in engine.generate(asked("?", len(script)))]
        assert "".join(texts) == "äöü€😀"
        assert all("\ufffd" not in each for each in texts)
        assert await text_of(engine, asked("?", len(script) - 1)) == "äöü€\ufffd", "the answer was cut"


async def test_ids_that_the_tokenizer_lacks_are_no_text() -> None:
    async with scripted_engine(ScriptedDecoder(lambda position: VOCAB - 1 if position % 2 else ord("x"))) as engine:
        assert await text_of(engine, asked("?", 6)) == "xxx"


async def test_several_answers_share_the_blocks_of_their_prompt() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    async with scripted_engine(decoder) as engine:
        answers = await answers_of(engine, asked("a" * 33, 5, num_answers=4))
    assert [text for text, _ in answers] == [recited(33, 5)] * 4
    cached = [last.usage.num_cached_tokens for _, last in answers if last.usage is not None]
    assert cached == [0, 32, 32, 32]
    assert sum(len(step.input_ids) for step in decoder.steps) == 33 + 3 * 1 + 4 * 4


async def test_seeds_repeat_and_answers_differ() -> None:
    class Flat(ScriptedDecoder):
        def run(self, step):  # type: ignore[no-untyped-def]
            return super().run(step) * 0

    sampling = SamplingParameters(seed=7)
    async with scripted_engine(Flat(SCRIPT)) as engine:
        request = Generation("abc", sampling, 20, num_answers=2, is_end_ignored=True)
        ids: list[list[int]] = []
        for _ in range(2):
            tokens: dict[int, list[int]] = {0: [], 1: []}
            async for delta in engine.generate(request):
                tokens[delta.index] += delta.tokens
            ids.append([*tokens[0], *tokens[1]])
        assert ids[0] == ids[1]
        assert ids[0][:20] != ids[0][20:]


async def test_logprobs() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        request = Generation("It was", SamplingParameters(temperature=0, num_logprobs=2), 3)
        found = [each async for delta in engine.generate(request) for each in delta.logprobs]
    assert b"".join(each.text for each in found) == b" th"
    assert [each.token for each in found] == [each.top[0].token for each in found]
    assert all(-1e-5 < each.logprob <= 0 and len(each.top) == 2 for each in found)


async def test_a_sequence_with_nan_fails_alone() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        results = await asyncio.gather(
            text_of(engine, asked("ab", 30)),
            text_of(engine, asked([65, POISON], 30)),
            text_of(engine, asked("abcd", 30)),
            return_exceptions=True,
        )
    assert results[0] == recited(2, 30)
    assert results[2] == recited(4, 30)
    assert isinstance(results[1], InternalError)
    assert engine.statistics.failures[FailureReason.BACKEND] == 1
    assert engine.statistics.success.count == 2


async def test_a_defect_in_choosing_fails_its_own_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = choosing.sample_row

    def sample_row(logits: Any, best: int, state: SamplingState, allowed: Any) -> Sample:
        if state.parameters.top_k == 3:
            raise IndexError("index -1 is out of bounds")
        return real(logits, best, state, allowed)

    monkeypatch.setattr(choosing, "sample_row", sample_row)
    sampled = SamplingParameters(temperature=0.1, seed=1)
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        results = await asyncio.gather(
            text_of(engine, asked("ab", 30)),
            text_of(engine, asked("abc", 30, sampling=SamplingParameters(top_k=3))),
            text_of(engine, asked("abcd", 30, sampling=sampled)),
            return_exceptions=True,
        )
    assert results[0] == recited(2, 30)
    assert results[2] == recited(4, 30)
    assert isinstance(results[1], InternalError)
    assert "the next token could not be chosen: IndexError: index -1" in str(results[1])


async def test_a_step_that_fails_ends_its_answers_and_the_next_request_is_answered() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    async with scripted_engine(decoder) as engine:
        decoder.failure = RuntimeError("the device is gone")
        with pytest.raises(InternalError, match="the device is gone"):
            await text_of(engine, asked(num_answers=3))
        decoder.failure = None
        assert await text_of(engine, asked("ab")) == recited(2, 10)


async def test_a_client_that_leaves_frees_its_blocks() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    async with scripted_engine(decoder) as engine:
        decoder.gate.clear()
        other = asyncio.ensure_future(text_of(engine, asked("ab", 100)))
        stream = engine.generate(asked("abc", 200, num_answers=2))
        first = asyncio.ensure_future(anext(stream))
        while len(engine.replicas.all[0].jobs) < 3:
            await asyncio.sleep(0.001)
        decoder.gate.set()
        await first
        decoder.gate.clear()
        num_steps = len(decoder.steps)
        await stream.aclose()
        decoder.gate.set()
        assert await other == recited(2, 100)
        assert engine.state.num_used_blocks == 0
        assert engine.statistics.failures[FailureReason.CANCELED] == 1
        long_ago = max(at for at, step in enumerate(decoder.steps) if len(step.past_lengths) > 1)
        assert long_ago <= num_steps + 1, "the steps after it left computed only the other answer"


async def test_a_task_that_is_cancelled_before_its_first_token() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    decoder.gate.clear()
    async with scripted_engine(decoder) as engine:
        task = asyncio.ensure_future(text_of(engine, asked("abc", 200)))
        await asyncio.to_thread(decoder.entered.wait, 10)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        decoder.gate.set()
        assert await text_of(engine, asked("ab")) == recited(2, 10)


async def test_a_slow_reader_gets_merged_deltas() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        stream = engine.generate(asked("abc", 50))
        first = await anext(stream)
        while engine.counters.num_tokens < 50:
            await asyncio.sleep(0.001)
        rest = [delta async for delta in stream]
    assert len(rest) <= 1, "what came while the client did something else is one delta"
    assert "".join(each.text for each in (first, *rest)) == recited(3, 50)
    assert sum(len(each.tokens) for each in (first, *rest)) == 50


async def test_too_many_requests_are_refused_and_later_ones_taken() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    decoder.gate.clear()
    async with scripted_engine(decoder, sequences=1, max_waiting=2) as engine:
        tasks = [asyncio.ensure_future(text_of(engine, asked("ab"))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="3 answers under way and takes 3 at most"):
            await text_of(engine, asked())
        decoder.gate.set()
        await asyncio.gather(*tasks)
        assert await text_of(engine, asked("ab")) == recited(2, 10)


async def test_who_would_wait_too_long_is_refused_at_once() -> None:
    clock, decoder = VirtualClock(), ScriptedDecoder(SCRIPT)
    decoder.gate.clear()
    async with scripted_engine(decoder, clock=clock, sequences=1, max_waiting=100, max_seconds=5) as engine:
        tasks = [asyncio.ensure_future(text_of(engine, asked("ab", 1))) for _ in range(67)]
        await asyncio.to_thread(decoder.entered.wait, 10)
        clock.advance(5_000_000_000)
        tasks.append(asyncio.ensure_future(text_of(engine, asked("ab", 1))))
        await asyncio.sleep(0)
        clock.advance(1)
        with pytest.raises(UnavailableError, match="requests to model 'scripted' wait, the first of them for 5.0 s"):
            await text_of(engine, asked())
        decoder.gate.set()
        assert await asyncio.gather(*tasks) == [recited(2, 1)] * 68


async def test_a_defect_in_passing_on_a_token_is_its_own_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(answer: Answer, sample: object, reason: object, now_ns: int) -> None:
        if len(answer.job.prompt) == 5:
            raise ZeroDivisionError
        add(answer, sample, reason, now_ns)  # type: ignore[arg-type]

    add = Answer.add
    monkeypatch.setattr(Answer, "add", fail)
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        results = await asyncio.gather(
            text_of(engine, asked("ab")), text_of(engine, asked("abcde")), return_exceptions=True
        )
    assert results[0] == recited(2, 10)
    assert isinstance(results[1], InternalError)


async def test_several_may_wait_for_the_end() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    decoder.gate.clear()
    async with scripted_engine(decoder) as engine:
        task = asyncio.ensure_future(text_of(engine, asked("ab")))
        await asyncio.sleep(0)
        drains = [asyncio.ensure_future(engine.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        decoder.gate.set()
        await asyncio.wait_for(asyncio.gather(*drains), 60)
        assert await task == recited(2, 10)


async def test_refuse_ends_what_waits_and_lets_finish_what_runs() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    decoder.gate.clear()
    async with scripted_engine(decoder, sequences=1) as engine:
        first = asyncio.ensure_future(text_of(engine, asked("ab", 20)))
        await asyncio.to_thread(decoder.entered.wait, 10)
        waiting = asyncio.ensure_future(text_of(engine, asked("abc", 20)))
        await asyncio.sleep(0)
        engine.refuse()
        decoder.gate.set()
        with pytest.raises(UnavailableError, match="being unloaded"):
            await text_of(engine, asked())
        with pytest.raises(UnavailableError, match="being unloaded"):
            await waiting
        assert await first == recited(2, 20)
        await asyncio.wait_for(engine.drain(), 60)


async def test_times_by_the_clock() -> None:
    clock, decoder = VirtualClock(), ScriptedDecoder(SCRIPT)
    decoder.gate.clear()
    async with scripted_engine(decoder, clock=clock, sequences=1) as engine:
        first = asyncio.ensure_future(answers_of(engine, asked("ab", 1)))
        await asyncio.to_thread(decoder.entered.wait, 10)
        second = asyncio.ensure_future(answers_of(engine, asked("abc", 1)))
        await asyncio.sleep(0)
        clock.advance(5_000_000)
        decoder.gate.set()
        usages = [(await each)[0][1].usage for each in (first, second)]
    assert [(each.queue_ns, each.first_token_ns, each.total_ns) for each in usages if each is not None] == [
        (0, 5_000_000, 5_000_000),
        (5_000_000, 5_000_000, 5_000_000),
    ]
    assert engine.counters.first_token_seconds.total == pytest.approx(0.01)
    assert engine.statistics.queue.total_ns == 5_000_000


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asked(""), "the prompt has no token"),
        (asked([1, VOCAB]), f"token {VOCAB}; the model's tokens are 0 to {VOCAB - 1}"),
        (asked("\ud800"), "half a surrogate pair"),
        (asked("a" * 256 + "\ud800"), "character 256 of it is half a surrogate pair"),
        (asked(max_tokens=0), "max_tokens is 0"),
        (asked(max_tokens=10**9), "more than the context"),
        (asked(num_answers=0), "0 answers are asked for"),
        (asked(num_answers=1000), "between 1 and 128"),
        (asked(stop=("",)), "a stop text is empty"),
        (asked(stop=("x" * 5000,)), "at most 4096"),
        (asked(stop=("x",) * 65), "at most 64"),
        (Generation("a", SamplingParameters(logit_bias={VOCAB: 1.0})), f"logit_bias names token {VOCAB}"),
        (asked("a" * 10**6), "the text has 1000000 characters"),
    ],
)
async def test_bad_requests(request_: Generation, message: str) -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        with pytest.raises(InvalidArgumentError, match=message):
            await text_of(engine, request_)
        assert await text_of(engine, asked("ab")) == recited(2, 10)


async def test_text_to_tokens_and_back() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT, num_blocks=256)) as engine:
        for text in ("äb", "ä" * 400):
            tokens = await engine.tokenize(text)
            assert tokens == list(text.encode())
            assert await engine.detokenize(tokens) == text
        assert await engine.detokenize([65, EOS]) == "A<eos>"
        with pytest.raises(InvalidArgumentError, match="token 999"):
            await engine.detokenize([999])


async def test_conversations() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        assert engine.can_chat
        assert await engine.render([{"role": "user", "content": "hello"}]) == "user: hello\n"
    async with scripted_engine(ScriptedDecoder(SCRIPT), can_chat=False) as engine:
        assert not engine.can_chat
        with pytest.raises(UnsupportedError, match="no chat template"):
            await engine.render([{"role": "user", "content": "hello"}])


async def test_an_empty_prompt_costs_nobody_else_an_answer() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        for scores in (None, 0, 2):
            with pytest.raises(InvalidArgumentError, match="the prompt has no token"):
                await asyncio.wait_for(text_of(engine, asked([], num_prompt_logprobs=scores)), 60)
            assert await asyncio.wait_for(text_of(engine, asked()), 60)


async def test_a_defect_that_one_request_meets_costs_nobody_else_an_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        core = engine.replicas.all[0].core
        with monkeypatch.context() as patch:
            patch.setattr(core, "add", lambda *_, **__: 1 / 0)
            with pytest.raises(InternalError, match="cannot take this request: ZeroDivisionError"):
                await asyncio.wait_for(text_of(engine, asked()), 60)
        assert await asyncio.wait_for(text_of(engine, asked()), 60)
    assert "a request met a defect" in caplog.text


@pytest.mark.parametrize("proposer", [None, NgramProposer(), "draft"])
async def test_broken_bookkeeping_ends_the_answers_and_the_engine_begins_anew(
    proposer: NgramProposer | str | None, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = ScriptedDecoder(SCRIPT)
    if proposer == "draft":
        proposer = DraftModel(ScriptedDecoder(SCRIPT), 256)
    async with scripted_engine(decoder, proposer=proposer) as engine:
        core = engine.replicas.all[0].core
        expected = await text_of(engine, asked())
        pool = core.pool

        def update(*_: object) -> None:
            # A block that no sequence holds: the pool's invariants do not hold any more either.
            pool.allocate(1)
            raise ZeroDivisionError

        core._scheduler.update = update
        with pytest.raises(InternalError, match="ZeroDivisionError.*send the request again"):
            await asyncio.wait_for(answers_of(engine, asked(num_answers=3)), 60)
        assert await asyncio.wait_for(text_of(engine, asked()), 60) == expected
        assert (core.num_running, core.pool.num_used) == (0, 0)
    assert "begins anew" in caplog.text
    assert decoder.is_closed


async def test_an_engine_that_cannot_begin_anew_fails_all_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = ScriptedDecoder(SCRIPT)
    with contextlib.suppress(AssertionError):
        async with scripted_engine(decoder) as engine:
            core = engine.replicas.all[0].core
            monkeypatch.setattr(core._scheduler, "update", lambda *_: 1 / 0)
            monkeypatch.setattr(core, "reset", lambda: 1 / 0)
            for _ in range(2):
                with pytest.raises(InternalError, match="failed: ZeroDivisionError.*load the model again"):
                    await asyncio.wait_for(text_of(engine, asked()), 60)
    assert "cannot begin anew" in caplog.text
    assert decoder.is_closed


def test_the_tokenizer_of_these_tests() -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.token_bytes[:256] == tuple(bytes([byte]) for byte in range(256))


async def test_an_answer_keeps_to_its_constraint_and_ends_with_it() -> None:
    async with scripted_engine(ScriptedDecoder(b"no")) as engine:
        constraint = Constraint("regex", "[a-z]{3}!")
        answers = await answers_of(engine, asked("n", None, constraint=constraint, num_answers=2))
        for text, last in answers:
            assert (text, last.finish_reason, last.stop) == ("ono!", FinishReason.STOP, None)
        ((text, last),) = await answers_of(engine, asked("n", 2, constraint=constraint))
        assert (text, last.finish_reason) == ("on", FinishReason.LENGTH)
        with pytest.raises(InvalidArgumentError, match="the constraint cannot be used"):
            await text_of(engine, asked("n", 2, constraint=Constraint("regex", "(")))


async def test_several_tokens_of_a_step_reach_the_client_in_order() -> None:
    decoder = ScriptedDecoder(SCRIPT, num_blocks=256)
    async with scripted_engine(decoder, clock=VirtualClock(), proposer=NgramProposer()) as engine:
        count = 3 * len(SCRIPT)
        answers = await answers_of(engine, asked("It was", count, num_answers=2))
        for text, last in answers:
            assert text == recited(6, count)
            assert last.usage is not None
            assert (last.usage.num_tokens, last.finish_reason) == (count, FinishReason.LENGTH)
        assert len(decoder.steps) < 2 * len(SCRIPT), "from its second round on, the text is guessed"
        ((text, last),) = await answers_of(engine, asked("It was", count, stop=("worst",)))
        assert (text, last.stop) == (" the best of times, it was the ", "worst")


async def test_short_conversations_pass_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    render = ChatTemplate.render

    def slowly(self: ChatTemplate, messages: Sequence[Mapping[str, str]], **given: Any) -> str:
        assert len(messages[0]["content"]) < 1000 or release.wait(60)
        return render(self, messages, **given)

    monkeypatch.setattr(ChatTemplate, "render", slowly)
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        long = [asyncio.ensure_future(engine.render([{"role": "user", "content": "a" * 200_000}])) for _ in range(10)]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert await engine.render([{"role": "user", "content": "hello"}]) == "user: hello\n"
        assert not any(each.done() for each in long)
        release.set()
        assert {len(each) for each in await asyncio.gather(*long)} == {200_007}


async def test_a_step_that_does_not_end_fails_its_requests_and_the_engine_goes_on_after_it() -> None:
    decoder = ScriptedDecoder(SCRIPT)
    async with scripted_engine(decoder, run_limit_seconds=0.05) as engine:
        assert await text_of(engine, asked()) == recited(3, 10)
        decoder.gate.clear()
        tasks = [asyncio.ensure_future(text_of(engine, asked("ask" * count))) for count in (1, 2)]
        for error in await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60):
            assert isinstance(error, UnavailableError)
            assert "did not end within 0.05 s, and its answers were given up; allow it more by" in str(error)
        with pytest.raises(UnavailableError, match=r"did not end within 0.05 s, and runs on; try again later"):
            await text_of(engine, asked())
        assert engine.statistics.num_pending == 0
        decoder.gate.set()
        while True:
            with contextlib.suppress(UnavailableError):
                assert await text_of(engine, asked()) == recited(3, 10)
                break
            await asyncio.sleep(0.01)
        assert engine.state.num_used_blocks == 0


async def test_answers_may_take_longer_than_the_limit_of_a_step() -> None:
    clock = VirtualClock()

    def token(position: int) -> int:
        clock.advance(10**9)
        return SCRIPT[position % len(SCRIPT)]

    async with scripted_engine(ScriptedDecoder(token), clock=clock, run_limit_seconds=5) as engine:
        assert await text_of(engine, asked("ask", 20)) == recited(3, 20)
