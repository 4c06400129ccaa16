"""Checkpoints of transformers become ONNX, Core ML and Core AI."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import triune
from contract.architectures.conftest import answers, checkpoint_of
from contract.architectures.hugging_face import inputs
from support.decoder_steps import Texts
from support.encoder_models import VOCABULARY, WIDTH, write_encoder_model
from support.smollm2 import smollm2_gguf
from support.text_models import write_text_model
from triune.cli import app
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.weights import open_checkpoint
from triune.graph.verify import Verdict


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_an_encoder_becomes_onnx(tmp_path: Path) -> None:
    source = write_encoder_model(tmp_path / "bert", pooling="mean")
    done = triune.convert(source, tmp_path / "bert.onnx", verify=True)
    assert done.verdict is Verdict.RIGHT
    assert [each.name for each in done.outputs] == ["last_hidden_state", "sentence_embedding"]
    ids = np.array([[5, 6, 7]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    assert session(tmp_path / "bert.onnx").run(["sentence_embedding"], feed)[0].shape == (1, WIDTH)


@pytest.mark.parametrize("suffix", ["onnx", "mlpackage"])
def test_a_head_of_the_pretraining_that_is_not_built_is_told(tmp_path: Path, suffix: str) -> None:
    if suffix == "mlpackage":
        pytest.importorskip("coremltools")
    source = write_encoder_model(tmp_path / "bert")
    shapes = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, 8)) if suffix != "onnx" else None
    assert not triune.convert(source, tmp_path / f"whole.{suffix}", shapes=shapes).notes
    tensors = load_file(source / "model.safetensors")
    tensors["cls.predictions.bias"] = np.zeros(VOCABULARY, np.float32)
    save_file(tensors, source / "model.safetensors")
    (note,) = triune.convert(source, tmp_path / f"bert.{suffix}", shapes=shapes).notes
    assert note == (
        "tensors such as cls.predictions.bias are left out: the heads that predict masked words and next sentences, "
        "which are not built: the outputs are the encoder's"
    )


def test_the_two_graphs_of_an_encoder_and_a_decoder(tmp_path: Path) -> None:
    source = tmp_path / "t5"
    source.mkdir()
    checkpoint_of("t5", source)
    with pytest.raises(InvalidArgumentError, match="has the functions encoder and decoder; choose one"):
        triune.convert(source, tmp_path / "t5.onnx")
    with pytest.raises(InvalidArgumentError, match="has no function 'main'; it has encoder and decoder"):
        triune.convert(source, tmp_path / "t5.onnx", function="main")
    for function in ("encoder", "decoder"):
        done = triune.convert(source, tmp_path / f"{function}.onnx", function=function, verify=True)
        assert done.verdict is Verdict.RIGHT
    given = {name: inputs()[name] for name in ("input_ids", "attention_mask")}
    (states,) = session(tmp_path / "encoder.onnx").run(None, given)
    feed = {
        "input_ids": inputs()["decoder_input_ids"],
        "encoder_hidden_states": states,
        "encoder_attention_mask": given["attention_mask"],
    }
    (logits,) = session(tmp_path / "decoder.onnx").run(None, feed)
    np.testing.assert_allclose(logits, answers()["t5: logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", ["mlpackage", "aimodel"])
def test_apples_programs(tmp_path: Path, suffix: str) -> None:
    library = {"mlpackage": "coremltools", "aimodel": "coreai"}[suffix]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    source = write_encoder_model(tmp_path / "bert", pooling="cls")
    shapes = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, 8))
    done = triune.convert(source, tmp_path / f"bert.{suffix}", shapes=shapes, verify=True)
    assert done.verdict is Verdict.RIGHT
    writer = write_text_model(tmp_path / "llama")
    done = triune.convert(writer, tmp_path / f"llama.{suffix}", shapes={"input_ids": (1, 8)}, verify=True)
    assert done.verdict is Verdict.RIGHT


def test_on_the_command_line(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "llama")
    result = CliRunner().invoke(app, ["convert", str(source), "-o", str(tmp_path / "llama.onnx"), "--verify"])
    assert result.exit_code == 0, result.output
    assert "logits" in result.output
    assert [value.name for value in onnx.load(tmp_path / "llama.onnx").graph.input] == ["input_ids"]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    source = write_text_model(tmp_path / "llama")
    with pytest.raises(InvalidArgumentError, match="shapes .* are for converting to .mlpackage or .aimodel"):
        triune.convert(source, tmp_path / "llama.onnx", shapes={"input_ids": (1, 8)})
    with pytest.raises(InvalidArgumentError, match="no conversion from 'llama' to 'llama.gguf'"):
        triune.convert(source, tmp_path / "llama.gguf")
    (source / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UnsupportedError, match="the model type 'mamba' is not known here"):
        triune.convert(source, tmp_path / "llama.onnx")
    with pytest.raises(NotFoundError, match=r"none\.gguf"):
        triune.convert(tmp_path / "none.gguf", tmp_path / "llama.onnx")


@pytest.mark.timeout(600)
def test_smollm2_answers_as_in_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from triune.runtimes.openvino.decoder import OpenVinoDecoder

    triune.convert(smollm2_gguf(), tmp_path / "smollm2.onnx")
    checkpoint = open_checkpoint(smollm2_gguf(), inexact="offsets")
    ids = np.array(checkpoint.tokenizer().encode("The capital of France is"))
    (logits,) = session(tmp_path / "smollm2.onnx").run(None, {"input_ids": ids[np.newaxis]})
    graph = write_model(checkpoint.config, checkpoint, "paged", num_positions=64)
    decoder = OpenVinoDecoder(graph, unit=Unit.CPU, num_threads=2, num_blocks=2, cache_type="fp32", is_exact=True)
    (engine,) = Texts(decoder, [ids]).read({0: len(ids)})
    decoder.close()
    np.testing.assert_allclose(logits[0], engine, atol=2e-3)
    assert checkpoint.tokenizer().decode([int(logits[0, -1].argmax())]) == " Paris"
