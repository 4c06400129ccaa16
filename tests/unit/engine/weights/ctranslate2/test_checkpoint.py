"""CTranslate2's Whisper: the tensors of Hugging Face's form, and what is told of files that are broken."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.architectures.conftest import answers, checkpoint_of
from contract.architectures.hugging_face import inputs
from support.ctranslate2_files import file_bytes, whisper_variables, write_directory
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.engine.models import write_encoder
from triune.engine.weights import Checkpoint, DenseTensor, open_checkpoint
from triune.engine.weights.config import SpecialTokens, WhisperConfig


@pytest.fixture
def original(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "original"
    folder.mkdir()
    return checkpoint_of("whisper", folder)


@pytest.fixture
def variables(original: Checkpoint) -> dict[str, Array]:
    return whisper_variables(original)


def test_the_tensors_are_those_of_the_original(
    original: Checkpoint, variables: dict[str, Array], tmp_path: Path
) -> None:
    settings = {"suppress_ids": [1, 2], "suppress_ids_begin": [3], "alignment_heads": [[0, 1], [1, 0]]}
    folder = write_directory(tmp_path / "m", file_bytes(variables), **settings)
    tokens = [{"id": 7, "content": "<|endoftext|>"}, {"id": 8, "content": "<|startoftranscript|>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    checkpoint = open_checkpoint(folder)
    assert isinstance(original.config, WhisperConfig)
    special = SpecialTokens(eos=(7,), decoder_start=8)
    wanted = replace(
        original.config,
        tokens=special,
        suppress_tokens=(1, 2),
        begin_suppress_tokens=(3,),
        alignment_heads=((0, 1), (1, 0)),
    )
    assert checkpoint.config == wanted
    assert set(checkpoint.names) == set(original.names)
    for name in original.names:
        tensor = checkpoint.tensor(name)
        assert isinstance(tensor, DenseTensor)
        assert tensor.shape == checkpoint.shape(name) == original.shape(name)
        np.testing.assert_array_equal(tensor.dequantize(), original.tensor(name).dequantize())
    with pytest.raises(NotFoundError, match=r"no tensor 'model\.other'"):
        checkpoint.tensor("model.other")


def test_weights_in_fp16_answer_nearly_the_same(variables: dict[str, Array], tmp_path: Path) -> None:
    halves = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values for name, values in variables.items()
    }
    checkpoint = open_checkpoint(write_directory(tmp_path / "m", file_bytes(halves)))
    assert checkpoint.tensor("model.encoder.conv1.weight").form == "F16"
    from onnxruntime import InferenceSession

    graph = write_encoder(checkpoint.config, checkpoint, "plain").whole().SerializeToString()
    session = InferenceSession(graph, providers=["CPUExecutionProvider"])
    (states,) = session.run(None, {"input_features": inputs()["input_features"]})
    np.testing.assert_allclose(states, answers()["whisper: last_hidden_state"], atol=0.05)


def test_a_file_that_is_cut_off_anywhere_is_refused(variables: dict[str, Array], tmp_path: Path) -> None:
    whole = file_bytes(variables)
    rng = np.random.default_rng(3)
    for length in [0, 3, 5, 20, len(whole) - 1, *rng.integers(1, len(whole), 60).tolist()]:
        with pytest.raises(InvalidArgumentError):
            open_checkpoint(write_directory(tmp_path / "m", whole[:length]))


def test_bytes_that_were_changed_are_refused_or_read(variables: dict[str, Array], tmp_path: Path) -> None:
    """No change of a byte raises an error of another kind, or takes long."""
    whole = file_bytes(variables)
    rng = np.random.default_rng(4)
    for place in [*range(90), *rng.integers(0, len(whole), 60).tolist()]:
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        try:
            checkpoint = open_checkpoint(write_directory(tmp_path / "m", bytes(changed)))
            for name in checkpoint.names:
                checkpoint.tensor(name)
        except TriuneError:
            pass


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder/layer_0/ffn/linear_0/weight_scale": np.ones(3, np.float32)}, "1 variables are no part of Whisper"),
        ({"decoder/activation": np.array(5, np.int8)}, "the activation 5 is not known"),
        ({"decoder/pre_norm": np.array(0, np.int8)}, "decoder/pre_norm is 0; in Whisper it is 1"),
        ({"decoder/num_heads": np.array(5, np.int16)}, "5 heads do not divide the width 32"),
        ({"decoder/num_heads": np.zeros(2, np.int16)}, "the whole number 'decoder/num_heads' is missing"),
        ({"encoder/conv1/weight": np.zeros((2, 2), np.float32)}, r"'encoder/conv1/weight' has the shape \[2, 2\]"),
        ({"encoder/conv2/bias": np.zeros(32, np.int32)}, "'encoder/conv2/bias' is int32; known are fp32"),
        ({"encoder/layer_0/ffn/linear_1/bias": np.zeros(3, np.float32)}, r"fc2.bias has the shape \[3\]"),
        ({"decoder/layer_1/attention/linear_1/weight": np.zeros((33, 32), np.float32)}, r"the shape \[1, 32\]"),
    ],
)
def test_models_that_are_no_whisper_are_refused(
    variables: dict[str, Array], tmp_path: Path, changed: dict[str, Array], message: str
) -> None:
    with pytest.raises((InvalidArgumentError, UnsupportedError), match=message):
        open_checkpoint(write_directory(tmp_path / "m", file_bytes(variables | changed)))


def test_files_of_another_kind_are_refused(variables: dict[str, Array], tmp_path: Path) -> None:
    for content, message in (
        (file_bytes(variables, version=5), "the version of the file is 5; known here is 6"),
        (file_bytes(variables, kind="TransformerSpec"), "the model is a TransformerSpec; known here is WhisperSpec"),
        (file_bytes(variables, others=[("a", "b")]), "'a' is another name for 'b', which is not there"),
        (struct.pack("<I", 6) + b"\x03\x00ab", "there is no name"),
    ):
        with pytest.raises((InvalidArgumentError, UnsupportedError), match=message):
            open_checkpoint(write_directory(tmp_path / "m", content))
    missing = {name: values for name, values in variables.items() if name != "encoder/conv2/bias"}
    with pytest.raises(InvalidArgumentError, match="tensors are missing: model.encoder.conv2.bias"):
        open_checkpoint(write_directory(tmp_path / "m", file_bytes(missing)))
    with pytest.raises(UnsupportedError, match="1 settings are not known here: beam = 5"):
        open_checkpoint(write_directory(tmp_path / "m", file_bytes(variables), beam=5))
