"""Decoders exported to ONNX as models of a repository."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from contract.exports.test_exports import exact
from support.exported import runtime_logits
from triune.backends.attempt import Attempt
from triune.backends.transformer.backend import TransformerBackend
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.servable import TextServable
from triune.runtimes.machine import Machine, this_machine
from triune.scheduling.models import Models

pytest.importorskip("openvino")

FOLDER = Path(__file__).parents[2] / "contract" / "exports" / "models"
EXACT = "".join(
    f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'
    for name, value in (("units", "cpu"), ("precision", "fp32"), ("cache_type", "fp32"))
)
NO_MODELS: Models = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return this_machine()


def source(root: Path, name: str, config: str = "") -> Source:
    folder = root / "m"
    shutil.copytree(FOLDER / name, folder / "1")
    (folder / "config.pbtxt").write_text(config)
    return given(folder)


def given(folder: Path) -> Source:
    return read_source("m", folder, stamp(folder), supports=lambda _: TransformerBackend.supports)


def greedy(name: str, prompt: list[int], count: int) -> list[int]:
    """The most likely tokens by ONNX Runtime with the exported file."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(runtime_logits(exact(name), np.array(tokens), (len(tokens),))[-1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("name", ["optimum-llama", "genai-mistral"])
async def test_a_folder_without_config_is_served_with_requests_side_by_side(
    machine: Machine, tmp_path: Path, name: str
) -> None:
    given_ = source(tmp_path, name, EXACT)
    assert given_.message.backend == "transformer"
    backend = TransformerBackend(machine, MonotonicClock())
    servable = backend.assemble(backend.build(given_, 1, None, Attempt()), NO_MODELS)
    assert isinstance(servable, TextServable)
    model = servable.model
    assert model.context_tokens == 128
    prompts = ["hello, you", "a", "one two three four"]

    async def answered(prompt: str) -> list[int]:
        request = Generation(prompt, SamplingParameters(temperature=0), 20, is_end_ignored=True)
        return [token async for delta in model.generate(request) for token in delta.tokens]

    found = await asyncio.gather(*map(answered, prompts))
    again = await asyncio.gather(*map(answered, prompts))
    await servable.close()
    assert again == found
    for prompt, tokens in zip(prompts, found, strict=True):
        ids = encode(name, prompt)
        assert tokens == greedy(name, ids, 20), prompt


def encode(name: str, prompt: str) -> list[int]:
    return tokenizers.Tokenizer.from_file(str(FOLDER / name / "tokenizer.json")).encode(prompt).ids


def test_a_named_backend_is_kept(tmp_path: Path) -> None:
    assert source(tmp_path, "optimum-llama", 'backend: "onnxruntime"').message.backend == "onnxruntime"


@pytest.mark.parametrize("lost", ["tokenizer.json", "config.json"])
def test_a_graph_without_tokenizer_or_config_is_a_tensor_model(tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(FOLDER / "optimum-llama", folder / "1")
    (folder / "1" / lost).unlink()
    (folder / "config.pbtxt").touch()
    assert given(folder).message.backend == ""


def broken(machine: Machine, tmp_path: Path, name: str, file: str, content: str) -> TriuneError:
    given_ = source(tmp_path, name, EXACT)
    (given_.folder / "1" / file).write_text(content)
    with pytest.raises(TriuneError) as caught:
        TransformerBackend(machine, MonotonicClock()).build(given_, 1, None, Attempt())
    return caught.value


def test_files_that_contradict_each_other_are_refused(machine: Machine, tmp_path: Path) -> None:
    config = json.loads((FOLDER / "optimum-llama" / "config.json").read_text())
    error = broken(machine, tmp_path / "a", "optimum-llama", "config.json", json.dumps(config | {"vocab_size": 300}))
    assert isinstance(error, InvalidArgumentError)
    assert "gives 258 logits; by its config the vocabulary has 300 tokens" in str(error)
    error = broken(machine, tmp_path / "b", "optimum-llama", "config.json", "{}")
    assert "max_position_embeddings" in str(error)
    settings = json.loads((FOLDER / "genai-mistral" / "genai_config.json").read_text())
    settings["model"]["context_length"] = 4096
    error = broken(machine, tmp_path / "c", "genai-mistral", "genai_config.json", json.dumps(settings))
    assert "has 128 positions" in str(error)
    assert "context of 4096" in str(error)


def test_a_folder_without_any_config_is_told(machine: Machine, tmp_path: Path) -> None:
    given_ = source(tmp_path, "optimum-llama", 'backend: "transformer"')
    (given_.folder / "1" / "config.json").unlink()
    with pytest.raises(NotFoundError, match=r"neither genai_config\.json nor config\.json"):
        TransformerBackend(machine, MonotonicClock()).build(given_, 1, None, Attempt())


def test_adapters_are_refused(machine: Machine, tmp_path: Path) -> None:
    given_ = source(tmp_path, "optimum-llama", EXACT)
    (given_.folder / "1" / "adapters" / "pirate").mkdir(parents=True)
    with pytest.raises(UnsupportedError, match="has the adapter 'pirate', and its graph was exported to ONNX"):
        TransformerBackend(machine, MonotonicClock()).build(given_, 1, None, Attempt())
