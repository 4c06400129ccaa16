"""Draft models of configs: found, compared with the model, loaded beside it, and of use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.scripted import VOCAB
from support.text_models import CONTEXT, write_text_model
from triune.backends.attempt import Attempt
from triune.backends.transformer.backend import TransformerBackend
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Unit
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.servable import TextServable
from triune.engine.structured.constraint import Constraint
from triune.runtimes.machine import Machine, this_machine
from triune.scheduling.models import Models

pytest.importorskip("openvino")

NO_MODELS: Models = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return this_machine()


def source(root: Path, **parameters: str) -> Source:
    """A model in fp32 with parameters."""
    folder = root / "m"
    write_text_model(folder / "1")
    given = {"units": "cpu", "precision": "fp32", "cache_type": "fp32", **parameters}
    lines = [f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in given.items()]
    (folder / "config.pbtxt").write_text("\n".join(lines))
    return read_source("m", folder, stamp(folder), supports=lambda _: TransformerBackend.supports)


async def answers(machine: Machine, given: Source) -> tuple[list[list[int]], Any]:
    """What a model answers to some requests, and the state of its engine."""
    backend = TransformerBackend(machine, MonotonicClock())
    servable = backend.assemble(backend.build(given, 1, None, Attempt()), NO_MODELS)
    assert isinstance(servable, TextServable)
    asked = [
        Generation("hello", SamplingParameters(temperature=0), 60, is_end_ignored=True),
        Generation("hello", SamplingParameters(temperature=4, seed=3, top_k=40), 60, is_end_ignored=True),
        Generation("list", SamplingParameters(temperature=0), 60, constraint=Constraint("regex", "[a-m]{40}")),
    ]
    found = [[token async for delta in servable.model.generate(each) for token in delta.tokens] for each in asked]
    state = servable.model.state
    await servable.close()
    return found, state


async def test_answers_are_those_without_a_draft_model(machine: Machine, tmp_path: Path) -> None:
    """The draft model is the model itself, beside it in the repository: so its guesses are right but for rounding."""
    plain, state = await answers(machine, source(tmp_path / "plain"))
    assert state.num_guessed == 0
    write_text_model(tmp_path / "repository" / "small" / "2")
    guessed, state = await answers(machine, source(tmp_path / "repository", draft_model="small"))
    assert guessed == plain
    # How many guesses are worth their time depends on this machine.
    assert state.num_guessed > 0
    assert state.num_right > 0.9 * state.num_guessed
    (inside,) = [tmp_path / "inside" / "m" / "draft"]
    write_text_model(inside, fill=0.01)
    wrong, state = await answers(machine, source(tmp_path / "inside", draft_model="draft"))
    assert wrong == plain
    assert state.num_right < 0.5 * state.num_guessed


async def test_a_draft_model_on_another_unit_changes_no_answer(machine: Machine, tmp_path: Path) -> None:
    pytest.importorskip("mlx")
    plain, _ = await answers(machine, source(tmp_path / "plain"))
    write_text_model(tmp_path / "repository" / "small" / "1")
    given = source(tmp_path / "repository", draft_model="small", draft_unit="gpu")
    guessed, state = await answers(machine, given)
    assert guessed == plain
    assert state.num_guessed > 0
    # The draft model computes in bf16 there, by default.
    assert state.num_right > 0.5 * state.num_guessed
    build = TransformerBackend(machine, MonotonicClock()).build(given, 1, None, Attempt())
    (small,) = [each.draft for each in build.decoders]
    assert small is not None
    assert (small.decoder.unit, build.decoders[0].unit, list(build.units)) == (Unit.GPU, Unit.CPU, [Unit.CPU])
    assert ", draft model small on gpu" in str(build)
    build.close()


def test_both_caches_are_within_the_memory(machine: Machine, tmp_path: Path) -> None:
    write_text_model(tmp_path / "small" / "1", max_position_embeddings=CONTEXT // 2)
    given = source(tmp_path, draft_model="small", cache_bytes=str(1 << 20))
    build = TransformerBackend(machine, MonotonicClock()).build(given, 1, None, Attempt())
    small = build.decoders[0].draft
    assert small is not None
    draft, model = small.decoder, build.decoders[0].decoder
    assert draft.num_blocks * draft.block_bytes + model.num_blocks * model.block_bytes <= 1 << 20
    assert draft.num_blocks * draft.block_size >= model.num_blocks * model.block_size
    assert small.context_tokens == CONTEXT // 2
    assert ", draft model small on cpu)" in str(build)
    build.close()


def test_other_vocabularies_are_refused(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock())
    small = write_text_model(tmp_path / "small" / "1", vocab_size=VOCAB + 4)
    tensors = load_file(small / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file(tensors | {name: np.zeros((VOCAB + 4, 32), np.float32)}, small / "model.safetensors")
    given = source(tmp_path, draft_model="small")
    with pytest.raises(
        InvalidArgumentError,
        match=rf"'small' has a vocabulary of {VOCAB + 4} tokens, and model 'm' has one of {VOCAB}:",
    ):
        backend.build(given, 1, None, Attempt())
    write_text_model(small)
    tokenizer = json.loads((small / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (small / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InvalidArgumentError, match=f"both have {VOCAB} tokens, and token 97 differs"):
        backend.build(given, 1, None, Attempt())


@pytest.mark.parametrize("name", ["missing", "m/../small", "../small", "/small", ""])
def test_what_is_not_there_is_told(machine: Machine, tmp_path: Path, name: str) -> None:
    given = source(tmp_path, draft_model=name)
    with pytest.raises((NotFoundError, InvalidArgumentError), match="draft_model"):
        TransformerBackend(machine, MonotonicClock()).build(given, 1, None, Attempt())


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.onnx", b"no model"), ("model.safetensors", b"no weights"), ("config.json", b"{")],
    ids=["export", "weights", "config"],
)
def test_what_is_broken_in_a_draft_model_is_said_of_the_draft_model(
    machine: Machine, tmp_path: Path, file: str, content: bytes
) -> None:
    write_text_model(draft := tmp_path / "small" / "1")
    (draft / file).write_bytes(content)
    if file == "model.onnx":
        (draft / "model.safetensors").unlink()
    given = source(tmp_path, draft_model="small")
    with pytest.raises((InvalidArgumentError, UnsupportedError), match="^the draft model 'small' cannot be loaded: .+"):
        TransformerBackend(machine, MonotonicClock()).build(given, 1, None, Attempt())
