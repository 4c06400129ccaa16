"""T5 from a folder to a model that answers, on each unit, and what is told where that cannot be."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from contract.architectures.conftest import answers
from contract.architectures.hugging_face import NUM_WRITTEN, REPETITION_PENALTY
from contract.architectures.t5 import CASES, END, write_t5
from contract.architectures.test_writing import SOURCES
from support.text_models import write_adapter, write_text_model
from triune.backends.attempt import Attempt
from triune.backends.transformer.backend import TransformerBackend
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, TriuneError, UnsupportedError
from triune.core.units import Presence, Unit
from triune.engine.generation import Delta, Generation
from triune.engine.moving.wire import decode, encode
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.servable import ServedTextModel, TextServable
from triune.engine.structured.constraint import Constraint
from triune.runtimes import missing
from triune.runtimes.machine import Machine, this_machine
from triune.scheduling.models import Models

pytest.importorskip("openvino")

NO_MODELS: Models = None  # type: ignore[assignment]
GREEDY = SamplingParameters(temperature=0, repetition_penalty=REPETITION_PENALTY)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return this_machine()


def source(root: Path, case: str = "t5 1.1", **parameters: object) -> Source:
    """A case as a model with parameters; in fp32 on `cpu` if these do not say otherwise."""
    folder = root / "m"
    if not folder.exists():
        write_t5(case, folder / "1")
    given = {"units": "cpu", **parameters}
    lines = [f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in given.items()]
    (folder / "config.pbtxt").write_text("\n".join(lines))
    return read_source("m", folder, stamp(folder), supports=lambda _: TransformerBackend.supports)


def load(machine: Machine, given: Source) -> TextServable:
    backend = TransformerBackend(machine, MonotonicClock())
    servable = backend.assemble(backend.build(given, 1, None, Attempt()), NO_MODELS)
    assert isinstance(servable, TextServable)
    return servable


def asked(prompt: object, max_tokens: int | None = NUM_WRITTEN, **fields: object) -> Generation:
    given = {"sampling": GREEDY, "is_end_ignored": True, **fields}
    return Generation(prompt, max_tokens=max_tokens, **given)  # type: ignore[arg-type]


async def answer(model: ServedTextModel, request: Generation) -> tuple[list[int], Delta]:
    deltas = [delta async for delta in model.generate(request)]
    return [token for delta in deltas for token in delta.tokens], deltas[-1]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("unit", [Unit.CPU, Unit.GPU])
async def test_it_writes_what_transformers_writes(machine: Machine, tmp_path: Path, unit: Unit, case: str) -> None:
    if unit is Unit.GPU and (reason := missing().get("mlx")):
        pytest.skip(reason)
    servable = load(machine, source(tmp_path, case, units=unit.value, precision="fp32", cache_type="fp32"))
    model = servable.model
    found = await asyncio.gather(*(answer(model, asked(SOURCES[which])) for which in (0, 1, 1, 0)))
    wanted = answers()[f"{case}: written"].tolist()
    assert [tokens for tokens, _ in found] == [wanted[which] for which in (0, 1, 1, 0)]
    usage = found[0][1].usage
    assert usage is not None
    assert (usage.num_prompt_tokens, usage.num_tokens) == (len(SOURCES[0]), NUM_WRITTEN)
    assert model.counters.num_prompt_tokens == sum(len(SOURCES[which]) for which in (0, 1, 1, 0))
    await servable.close()


async def test_amx_writes_nearly_the_same(machine: Machine, tmp_path: Path) -> None:
    if machine.status(Unit.AMX).presence is not Presence.PRESENT:
        pytest.skip("this machine has no AMX")
    servable = load(machine, source(tmp_path, units="amx"))
    assert servable.model.placement.precision == "bf16"
    tokens, _ = await answer(servable.model, asked(SOURCES[0]))
    assert tokens[:4] == answers()["t5 1.1: written"][0][:4].tolist()
    await servable.close()


async def test_texts_end_as_its_tokenizer_ends_them(machine: Machine, tmp_path: Path) -> None:
    servable = load(machine, source(tmp_path))
    model = servable.model
    assert await model.tokenize("the boats") == (tokens := [*await model.tokenize("the boats", is_templated=True), END])
    first, last = await answer(model, asked("the boats", 6))
    assert first == (await answer(model, asked(tokens, 6)))[0]
    assert last.usage is not None
    assert last.usage.num_prompt_tokens == len(tokens)
    several = [delta async for delta in model.generate(asked("the boats", 6, num_answers=3))]
    for index in range(3):
        assert [token for delta in several if delta.index == index for token in delta.tokens] == first
    await servable.close()


async def test_a_constraint_holds_for_the_answer(machine: Machine, tmp_path: Path) -> None:
    servable = load(machine, source(tmp_path))
    request = asked("the boats", 20, constraint=Constraint("regex", "(yes|no), (yes|no)".replace(", ", "")))
    text = "".join([delta.text async for delta in servable.model.generate(request)])
    assert text in {"yesyes", "yesno", "noyes", "nono"}
    await servable.close()


async def test_prompts_that_the_encoder_does_not_read_are_refused(machine: Machine, tmp_path: Path) -> None:
    servable = load(machine, source(tmp_path, context_tokens=24))
    model = servable.model
    assert model.context_tokens == 24

    async def refusal(request: Generation, kind: type[TriuneError] = InvalidArgumentError) -> str:
        with pytest.raises(kind) as caught:
            await answer(model, request)
        return str(caught.value)

    assert "the prompt has no token; the model's encoder reads 1 to 24" in await refusal(asked([], 4))
    too_long = await refusal(asked([5] * 25, 4))
    assert "the prompt has 25 tokens; the model's encoder reads 1 to 24: shorten it" in too_long
    assert "has token 48; the model's tokens are 0 to 47" in await refusal(asked([5, 48], 4))
    assert "holds at most" in await refusal(asked("a" * 1000, 4), PayloadTooLargeError)
    assert "more than the context of 24" in await refusal(asked([5], 24))
    with pytest.raises(UnsupportedError, match="model 'm' has no chat template"):
        await model.render([{"role": "user", "content": "hello"}])
    # Those that fit are answered: the limits of prompt and answer are apart.
    tokens, last = await answer(model, asked([5] * 24, None))
    assert len(tokens) == 23
    assert last.usage is not None
    assert last.usage.num_prompt_tokens == 24
    await servable.close()


def test_it_reads_512_tokens_unless_the_config_says_more(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock())
    for context, given in ((512, {}), (2000, {"context_tokens": 2000})):
        build = backend.build(source(tmp_path, **given), 1, None, Attempt())
        assert build.text.rules is not None
        assert (build.text.rules.max_tokens, build.limits.context_tokens) == (context, context)
        build.close()


async def test_an_answer_goes_on_at_another_server(machine: Machine, tmp_path: Path) -> None:
    given = source(tmp_path)
    here, there = load(machine, given), load(machine, given)
    found: list[int] = []
    request = asked(SOURCES[0], id="one")
    moved = None
    async for delta in here.model.generate(request):
        found += delta.tokens
        if moved is None:
            moved = await here.model.export("one", lambda _: None)
    assert moved is not None
    assert moved.state.source == SOURCES[0]
    read = decode(memoryview(b"".join(encode(moved))))
    found += [token async for delta in there.model.resume(read) for token in delta.tokens]
    assert found == answers()["t5 1.1: written"][0].tolist()
    for servable in (here, there):
        await servable.close()


async def test_an_answer_moves_to_another_unit(machine: Machine, tmp_path: Path) -> None:
    if reason := missing().get("mlx"):
        pytest.skip(reason)
    given = {"units": "cpu,gpu", "precision": "fp32", "cache_type": "fp32", "cache_bytes": 1 << 20}
    servable = load(machine, source(tmp_path, **given))
    model = servable.model
    found: list[int] = []
    last: Delta | None = None
    async for last in model.generate(asked(SOURCES[0], id="one", unit=Unit.CPU)):
        if not found:
            await model.move("one", Unit.GPU)
        found += last.tokens
    assert found == answers()["t5 1.1: written"][0].tolist()
    assert last is not None
    assert last.usage is not None
    assert last.usage.units.keys() == {Unit.CPU, Unit.GPU}
    await servable.close()


async def test_an_import_without_a_prompt_is_refused(machine: Machine, tmp_path: Path) -> None:
    """It would fail the step of all answers that are computed with it."""
    servable = load(machine, source(tmp_path, context_tokens=44))
    model = servable.model
    async for _ in model.generate(asked(SOURCES[0], id="one")):
        moved = await model.export("one", lambda _: None)
        break
    for wrong, message in (((), "the prompt has no token"), ((5,) * 45, "the prompt has 45 tokens")):
        answer_ = replace(moved, state=replace(moved.state, source=wrong))
        with pytest.raises(InvalidArgumentError, match=message):
            _ = [delta async for delta in model.resume(answer_)]
    await servable.close()


def test_the_backend_is_found_by_the_files(machine: Machine, tmp_path: Path) -> None:
    given = source(tmp_path)
    config = TransformerBackend(machine, MonotonicClock()).configure(given, 1)
    assert config.message.backend == "transformer"


def test_what_it_does_not_have_is_refused(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock())

    def refusal(given: Source, kind: type[TriuneError] = UnsupportedError) -> str:
        with pytest.raises(kind) as caught:
            backend.build(given, 1, None, Attempt()).close()
        return str(caught.value)

    write_text_model(tmp_path / "small" / "1")
    assert "reads prompts with an encoder, which a draft model does not have" in refusal(
        source(tmp_path, draft_model="small")
    )
    assert "no cache in int8: choose fp32, fp16, bf16" in refusal(source(tmp_path, cache_type="int8"))
    assert "remove the parameter 'reproducible'" in refusal(source(tmp_path, reproducible="true"))
    config = tmp_path / "m" / "1" / "config.json"
    kept = config.read_text()
    without = json.loads(kept)
    del without["decoder_start_token_id"]
    config.write_text(json.dumps(without))
    assert "there is no decoder_start_token_id" in refusal(source(tmp_path), InvalidArgumentError)
    config.write_text(kept)
    write_adapter(tmp_path / "m" / "1" / "adapters" / "poet", 1)
    with pytest.raises(TriuneError, match="poet"):
        backend.build(source(tmp_path), 1, None, Attempt())
