"""Decoders' checkpoints become programs with caches of several sizes."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

import triune
from support.encoder_models import write_encoder_model
from support.text_models import VOCAB, write_text_model
from triune.api.ladders import open_ladder
from triune.cli import app
from triune.core.errors import InvalidArgumentError
from triune.coreml.description import StateFeature
from triune.coreml.package import read_package
from triune.engine.models import write_model
from triune.engine.weights import open_checkpoint
from triune.graph.verify import Verdict

CONTEXTS = [16, 24]
FUNCTIONS = ["prefill_16", "decode_16", "prefill_24", "decode_24"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_text_model(tmp_path / "llama")


def whole(source: Path, tokens: list[int]) -> Any:
    """The logits by the graph without a cache."""
    checkpoint = open_checkpoint(source)
    graph = write_model(checkpoint.config, checkpoint, "plain", num_positions=max(CONTEXTS))
    return ReferenceEvaluator(graph.whole()).run(None, {"input_ids": np.array([tokens])})[0][0]


def greedy(program: Path, prompt: list[int], num_tokens: int) -> list[int]:
    with closing(open_ladder(program, CONTEXTS)) as ladder:
        held, tokens = ladder.start(), list(prompt)
        (logits,) = ladder.read(held, 0, np.array(tokens), [len(tokens) - 1])
        for _ in range(num_tokens):
            tokens.append(int(logits.argmax()))
            (logits,) = ladder.read(held, len(tokens) - 1, np.array(tokens[-1:]), [0])
        assert held.context == max(CONTEXTS)
        return tokens


@pytest.mark.timeout(300)
def test_a_package_with_arguments_answers_as_the_graph_does(source: Path, tmp_path: Path) -> None:
    package = tmp_path / "llama.mlpackage"
    done = triune.convert(source, package, contexts=CONTEXTS, cache="argument", verify=True)
    assert done.verdict is Verdict.RIGHT
    described = read_package(package).description
    assert (list(described.functions), described.default_function) == (FUNCTIONS, "prefill_16")
    assert not described.functions["decode_16"].states
    prompt = np.random.default_rng(1).integers(0, VOCAB, 11).tolist()
    expected = list(prompt)
    while len(expected) < 22:
        expected.append(int(whole(source, expected)[-1].argmax()))
    assert greedy(package, prompt, 11) == expected


@pytest.mark.timeout(300)
def test_a_package_for_the_neural_engine_has_states_of_fixed_sizes(source: Path, tmp_path: Path) -> None:
    package = tmp_path / "llama.mlpackage"
    options = ["--context", "24", "--precision", "fp16", "--layout", "ane", "--verify"]
    done = CliRunner().invoke(app, ["convert", str(source), "-o", str(package), *options])
    assert done.exit_code == 0, done.output
    functions = read_package(package).description.functions
    assert list(functions) == ["prefill_24", "decode_24"]
    for function in functions.values():
        states = {each.name: each.type for each in function.states}
        assert list(states) == ["key_cache_0", "value_cache_0", "key_cache_1", "value_cache_1"]
        assert isinstance(states["key_cache_0"], StateFeature)
        assert states["key_cache_0"].array.shape == (1, 24, 16)
        assert all(not each.type.bounds and not each.type.shapes for each in function.inputs)
    # The weights are there once, in fp16; the embedding also as the convolution that gives the logits.
    weights = sum(each.stat().st_size for each in package.rglob("weight.bin"))
    parameters = sum(each.stat().st_size for each in source.glob("*.safetensors")) / 4
    assert 2 * parameters < weights < 3 * parameters


@pytest.mark.timeout(300)
def test_an_asset_of_core_ai_has_states_in_fp32(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("coreai")
    asset = tmp_path / "llama.aimodel"
    done = triune.convert(source, asset, contexts=[24], verify=True)
    assert done.verdict is Verdict.RIGHT
    with triune.coreai.load(asset, function="decode_24") as model:
        assert model.make_state().read("value_cache_1").shape == (1, 16, 24)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"contexts": [16, 16]}, r"a ladder of the contexts \[16, 16\]: .* all different"),
        ({"contexts": [1]}, "sizes of at least 2 tokens"),
        ({"contexts": [4096]}, "a cache of 4096 tokens is asked for; the model was made for 96 at most"),
        ({"states": {"a": "b"}}, "functions and states of its own"),
        ({"functions": {"a": "b.onnx"}}, "functions and states of its own"),
        ({"check": True}, "functions and states of its own"),
        ({"contexts": [16], "function": "decoder"}, "without --function and --shape"),
        ({"cache": "state", "shapes": {"input_ids": (1, 8)}}, "without --function and --shape"),
    ],
)
def test_what_does_not_go(source: Path, tmp_path: Path, options: Any, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        triune.convert(source, tmp_path / "llama.mlpackage", **options)


def test_sizes_are_for_decoders(source: Path, tmp_path: Path) -> None:
    bert = write_encoder_model(tmp_path / "bert", pooling="cls")
    for given, target in ((bert, "m.mlpackage"), (source, "m.onnx")):
        with pytest.raises(InvalidArgumentError, match="are for converting a checkpoint of LLaMA's family or GPT-2"):
            triune.convert(given, tmp_path / target, contexts=[16])
    done = CliRunner().invoke(app, ["convert", str(source), "-o", str(tmp_path / "m.mlpackage"), "--context", "x"])
    assert isinstance(done.exception, InvalidArgumentError)
    assert "--context is 'x'" in str(done.exception)


@pytest.mark.parametrize("contexts", [[16], [16, 24]])
def test_rotary_embeddings_of_another_length_are_told(tmp_path: Path, contexts: list[int]) -> None:
    """Cached keys cannot be rotated anew when a text becomes longer than those of the training."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    source = write_text_model(tmp_path / "phi", rope_scaling=rope | {"original_max_position_embeddings": 16})
    notes = triune.convert(source, tmp_path / "phi.mlpackage", contexts=contexts, cache="argument", verify=False).notes
    told = [note for note in notes if "longer than 16 tokens for all texts, since up to 24 are allowed" in note]
    assert len(told) == (max(contexts) > 16)
