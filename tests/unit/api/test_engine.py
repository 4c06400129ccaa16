import asyncio
import gc
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import triune
from support.text_models import CONTEXT, write_adapter, write_text_model
from triune.backends.transformer.backend import missing_for_transformers

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

GREEDY = {"temperature": 0.0, "max_tokens": 12}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_text_model(tmp_path_factory.mktemp("text") / "small")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[triune.Engine]:
    with triune.Engine(folder, "cpu", precision="fp32") as engine:
        yield engine


def test_an_answer_has_its_text_its_tokens_and_its_times(engine: triune.Engine) -> None:
    answer = engine.generate("abc", **GREEDY)
    assert str(answer) == answer.text
    assert answer.finish_reason in ("length", "stop")
    assert len(answer.tokens) == answer.usage.num_tokens <= 12
    assert 0 < answer.usage.first_token_ns <= answer.usage.total_ns
    assert (engine.context_tokens, engine.placement.unit.value) == (CONTEXT, "cpu")
    assert repr(engine) == "<triune.Engine 'small' on cpu (openvino, fp32)>"


def test_an_answer_has_its_joules_or_why_there_are_none(engine: triune.Engine) -> None:
    energy = engine.energy(engine.generate("hello", max_tokens=3))
    assert energy["reason"] if energy["kind"] == "unavailable" else energy["joules"] > 0


def test_a_unit_that_cannot_be_had_is_told_in_the_callers_words(folder: Path) -> None:
    with pytest.raises(triune.TriuneError, match="there is no unit 'npu'; choose one of cpu, amx, gpu, ane"):
        triune.Engine(folder, "npu")


def test_several_prompts_together_are_answered_as_each_alone(engine: triune.Engine) -> None:
    prompts = ["abc", "x", "the quick brown fox"]
    assert [each.tokens for each in engine.generate(prompts, **GREEDY)] == [
        engine.generate(prompt, **GREEDY).tokens for prompt in prompts
    ]
    assert engine.generate([], **GREEDY) == []


def test_an_adapter_is_chosen_for_each_answer(tmp_path: Path) -> None:
    folder = write_text_model(tmp_path / "small")
    write_adapter(folder / "adapters" / "poet", 1)
    lawyer = write_adapter(tmp_path / "elsewhere", 2)
    with triune.Engine(folder, "cpu", precision="fp32", adapters={"lawyer": lawyer}) as engine:
        assert engine.adapters == ("poet", "lawyer")
        answers = [engine.generate("abc", **GREEDY, adapter=name).tokens for name in (None, "poet", "lawyer")]
        assert len(set(answers)) == 3
        assert engine.generate("abc", **GREEDY).tokens == answers[0]
        with pytest.raises(triune.InvalidArgumentError, match="'pirate' is unknown; this model has poet, lawyer"):
            engine.generate("abc", **GREEDY, adapter="pirate")


def test_guesses_change_no_answer(tmp_path: Path) -> None:
    folder, draft = write_text_model(tmp_path / "large"), write_text_model(tmp_path / "small")
    exact: dict[str, Any] = {"precision": "fp32", "cache_type": "fp32"}
    with triune.Engine(folder, "cpu", **exact) as engine:
        expected = engine.generate("abc", max_tokens=60, temperature=0).tokens
    for given in ({"draft": draft, "draft_unit": "cpu"}, {"draft": draft}, {"speculation": "ngram"}):
        with triune.Engine(folder, "cpu", **exact, **given) as engine:
            assert engine.generate("abc", max_tokens=60, temperature=0).tokens == expected
            # Whether a guess is worth its time depends on this machine; the first ones are made in any case.
            assert engine._servable.model.state.num_guessed > 0
    with pytest.raises(triune.NotFoundError, match="the draft model '.*nowhere': there is no such file"):
        triune.Engine(folder, "cpu", draft=tmp_path / "nowhere")
    with pytest.raises(triune.InvalidArgumentError, match="'draft_unit' is 'cpu', and 'draft_model' is missing"):
        triune.Engine(folder, "cpu", draft_unit="cpu")
    with pytest.raises(triune.InvalidArgumentError, match="'draft', and 'draft_model' is missing"):
        triune.Engine(folder, "cpu", speculation="draft")
    (draft / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(triune.InvalidArgumentError, match="the draft model 'small' cannot be loaded"):
        triune.Engine(folder, "cpu", draft=draft)


def test_a_stream_is_the_answer_in_pieces(engine: triune.Engine) -> None:
    stream = engine.stream("abc", **GREEDY)
    pieces = list(stream)
    assert "".join(pieces) == engine.generate("abc", **GREEDY).text
    assert stream.answer is not None
    assert stream.answer.text == "".join(pieces)
    assert list(stream) == []


def test_a_stream_that_is_left_frees_its_place(engine: triune.Engine) -> None:
    streams = [engine.stream("abc", max_tokens=60, is_end_ignored=True) for _ in range(3)]
    for stream in streams:
        next(stream)
        stream.close()
        stream.close()
    assert engine.generate("abc", **GREEDY).tokens


def test_a_conversation_is_written_by_the_template(engine: triune.Engine) -> None:
    messages = [{"role": "user", "content": "hi"}]
    answer = engine.chat(messages, **GREEDY)
    assert answer.tokens == engine.generate("user: hi\nassistant:", **GREEDY).tokens
    assert "".join(engine.stream_chat(messages, **GREEDY)) == answer.text


def test_in_an_event_loop(engine: triune.Engine) -> None:
    async def work() -> tuple[list[str], list[triune.Answer]]:
        pieces = [piece async for piece in engine.stream_async("abc", **GREEDY)]
        return pieces, await asyncio.gather(*(engine.generate_async("abc", **GREEDY) for _ in range(3)))

    pieces, answers = asyncio.run(work())
    assert {each.text for each in answers} == {"".join(pieces)} == {engine.generate("abc", **GREEDY).text}


def test_cancelling_a_task_cancels_its_answer(engine: triune.Engine) -> None:
    async def work() -> None:
        task = asyncio.create_task(engine.generate_async("abc", max_tokens=80, is_end_ignored=True))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert engine.generate("abc", **GREEDY).tokens


def test_options_reach_the_sampler(engine: triune.Engine) -> None:
    seeded = [engine.generate("abc", seed=4, temperature=1.5, max_tokens=20).tokens for _ in range(2)]
    assert seeded[0] == seeded[1] != engine.generate("abc", seed=5, temperature=1.5, max_tokens=20).tokens
    text = engine.generate("abc", **GREEDY).text
    stop = text[2:4]
    assert engine.generate("abc", stop=stop, **GREEDY).text == text[: text.index(stop)]


def test_threads_may_use_it_at_once(engine: triune.Engine) -> None:
    found: list[tuple[int, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(engine.generate("abc", **GREEDY).tokens)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [engine.generate("abc", **GREEDY).tokens] * 8


def test_wrong_requests_are_told_and_cost_nobody_else(engine: triune.Engine) -> None:
    with pytest.raises(triune.InvalidArgumentError, match="no token"):
        engine.generate("", **GREEDY)
    with pytest.raises(triune.InvalidArgumentError, match="the option 'max_token' is unknown; known are temperature"):
        engine.generate("a", max_token=3)
    with pytest.raises(triune.InvalidArgumentError, match="temperature is -1; it must be between 0 and 100"):
        engine.generate("a", temperature=-1)
    with pytest.raises(triune.InvalidArgumentError, match=f"context of {CONTEXT}"):
        next(engine.stream("a" * 200))
    with pytest.raises(triune.InvalidArgumentError, match="no token"):
        engine.generate(["abc", ""], **GREEDY)
    assert engine.generate("abc", **GREEDY).tokens


def test_wrong_arguments_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(triune.NotFoundError, match="there is no such file"):
        triune.Engine(tmp_path / "missing.gguf")
    with pytest.raises(triune.InvalidArgumentError, match="'cache_type' is 'int3'; it must be one of"):
        triune.Engine(folder, cache_type="int3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(triune.TriuneError, match="gpx"):
        triune.Engine(folder, "gpx")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(triune.UnsupportedError, match="broken.gguf: the file is of version 0"):
        triune.Engine(tmp_path / "broken.gguf")


def test_a_closed_engine_says_so_and_leaves_no_thread(folder: Path) -> None:
    before = threading.active_count()
    engine = triune.Engine(folder, "cpu", precision="fp32")
    assert engine.generate("abc", **GREEDY).tokens
    engine.close()
    engine.close()
    with pytest.raises(triune.UnavailableError, match="the engine of 'small' is closed"):
        engine.generate("abc")
    with pytest.raises(triune.UnavailableError, match="is closed"):
        next(engine.stream("abc"))
    del engine
    gc.collect()
    # A thread that has handed over its result may still be ending.
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before, [thread.name for thread in threading.enumerate()]


def test_a_decoder_that_was_exported_to_onnx() -> None:
    folder = Path(__file__).parents[2] / "contract" / "exports" / "models" / "optimum-llama"
    answers = []
    for path in (folder, folder / "model.onnx"):
        with triune.Engine(path, "cpu", precision="fp32") as engine:
            assert engine.context_tokens == 128
            answers.append(engine.generate("abc", **GREEDY).tokens)
    assert answers[0] == answers[1]
    assert answers[0]


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "a conversation is a list of messages"),
        ("hi", "a conversation is a list of messages"),
        (["hi"], "message 0 is a str; give a dictionary"),
        ([{"role": "usr", "content": "hi"}], "message 0 has the role 'usr'; it must be one of system"),
    ],
)
def test_what_is_no_conversation_is_told(engine: triune.Engine, messages, error: str) -> None:
    with pytest.raises(triune.InvalidArgumentError, match=error):
        engine.chat(messages, **GREEDY)
    with pytest.raises(triune.InvalidArgumentError, match=error):
        engine.stream_chat(messages, **GREEDY)


def test_values_of_wrong_types_are_told(engine: triune.Engine) -> None:
    with pytest.raises(triune.InvalidArgumentError, match="a prompt is a int; give a text"):
        engine.generate([3], **GREEDY)  # pyright: ignore[reportArgumentType]
    with pytest.raises(triune.InvalidArgumentError, match="an option of the answer has a value of a wrong type"):
        engine.generate("a", temperature="hot")  # pyright: ignore[reportArgumentType]


def test_a_models_folder_in_a_repository_stands_for_its_newest_version(folder: Path, tmp_path: Path) -> None:
    for version in (2, 10):
        (tmp_path / "model" / f"{version}").parent.mkdir(exist_ok=True)
        (tmp_path / "model" / f"{version}").symlink_to(folder)
    with triune.Engine(tmp_path / "model", "cpu", precision="fp32") as engine:
        assert engine.path == tmp_path / "model" / "10"
        assert engine.generate("abc", **GREEDY).tokens


def test_probabilities_of_the_prompt_are_those_of_the_next_token_of_its_beginning(engine: triune.Engine) -> None:
    answer = engine.generate("ab", **GREEDY, num_logprobs=20)
    assert [each.token for each in answer.logprobs] == list(answer.tokens)
    assert all(each.top[0].token == each.token and len(each.top) == 20 for each in answer.logprobs)
    longer = engine.generate("abc", max_tokens=1, num_prompt_logprobs=20)
    assert longer.prompt is not None
    assert len(longer.prompt) == longer.usage.num_prompt_tokens
    *beginning, last = longer.prompt
    assert math.isnan(beginning[0].logprob)
    assert last.text == b"c"
    following = answer.logprobs[0].top
    assert [each.token for each in last.top] == [each.token for each in following]
    np.testing.assert_allclose([each.logprob for each in last.top], [each.logprob for each in following], atol=1e-5)
    assert last.logprob <= following[0].logprob
    assert (answer.prompt, longer.logprobs) == (None, ())
    for wrong in (-1, 21):
        with pytest.raises(triune.InvalidArgumentError, match=f"num_prompt_logprobs is {wrong}; it must be between 0"):
            engine.generate("abc", max_tokens=1, num_prompt_logprobs=wrong)
