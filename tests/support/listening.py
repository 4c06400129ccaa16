"""A speech engine whose model transcribes the duration of the sound: it writes a digit that counts fifths of a
second.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import save_file

from support.scripted import EOS, ScriptedDecoder, byte_tokenizer
from triune.config.policy import QueueLimits
from triune.core.clock import MonotonicClock
from triune.core.datatypes import Array, DataType
from triune.core.decoder import DecoderStep
from triune.core.errors import UnsupportedError
from triune.core.runtime import Executable
from triune.core.statistics import ModelStatistics
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.generation import Placement
from triune.engine.scheduler import SchedulerLimits
from triune.engine.speech.encoder import SpeechEncoder
from triune.engine.speech.engine import SpeechEngine
from triune.engine.speech.servable import SpeechServable
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.speech.words.aligner import Aligner
from triune.engine.weights.agree import tensor_shapes
from triune.engine.weights.config import WhisperConfig

SAMPLES_A_DIGIT = 3200
FRAMES_A_DIGIT = 20
SPECIAL = SpeechTokens(
    end=EOS,
    start=257,
    translate=258,
    transcribe=259,
    previous=260,
    start_of_lm=261,
    no_speech=262,
    no_stamps=263,
    languages={},
)
NUM_STAMPS = 1501
VOCAB = SPECIAL.first_stamp + NUM_STAMPS
CONFIG = WhisperConfig(
    vocab_size=VOCAB,
    num_mel_bins=80,
    d_model=8,
    encoder_layers=1,
    encoder_attention_heads=1,
    encoder_ffn_dim=8,
    decoder_layers=1,
    decoder_attention_heads=1,
    decoder_ffn_dim=8,
    max_source_positions=1500,
    max_target_positions=64,
)


NAMES = ("startoftranscript", "translate", "transcribe", "startofprev", "startoflm", "nospeech", "notimestamps")


def write_listening_checkpoint(folder: Path, *, scale: float = 0.0) -> None:
    """Write a small Whisper of that config in Hugging Face's form. Its weights are zeros, which the decoder below does
    not read; with `scale` they are random numbers of that size.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    config = {each.name: getattr(CONFIG, each.name) for each in fields(CONFIG) if each.name != "tokens"}
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", **config}))
    save_file(
        {
            name: np.float32(scale) * rng.standard_normal(shape, np.float32)
            for name, shape in tensor_shapes(CONFIG).items()
        },
        folder / "model.safetensors",
    )
    backend = byte_tokenizer().backend
    vocabulary = json.loads(backend.to_str())
    for token in vocabulary["added_tokens"]:
        token["content"] = "<|endoftext|>"
    backend = tokenizers.Tokenizer.from_str(json.dumps(vocabulary))
    backend.add_special_tokens([f"<|{name}|>" for name in NAMES])
    backend.save(str(folder / "tokenizer.json"))


def sound_of(digit: int) -> NDArray[np.float32]:
    """Samples that the model transcribes as this digit."""
    return np.tile(np.array([1, -1], np.float32), digit * SAMPLES_A_DIGIT // 2)


class LoudFrames:
    """An `Executable` that replaces the encoder: it counts the spectrogram frames with sound."""

    unit = Unit.CPU
    precision = "fp32"
    is_steady = True
    signature = Signature(
        (TensorSpec("input_features", DataType.FP32, (1, 80, 3000)),),
        (TensorSpec("num_loud", DataType.FP32, (1, 1, 1)),),
    )

    def __init__(self) -> None:
        self.is_closed = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        loudest = inputs["input_features"][0].max(axis=0)
        num_loud = int((loudest > loudest.min() + 0.5).sum())
        return {name: np.full((1, 1, 1), num_loud, np.float32) for name in outputs}

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class ListeningDecoder(ScriptedDecoder):
    """A decoder that generates the timestamp 0 s, the digit, the timestamp 1 s, and the end token."""

    def __init__(self) -> None:
        super().__init__(b"")

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        step.require_fitting(self.num_blocks, self.block_size)
        logits = np.zeros((len(step.logits_indices), VOCAB), np.float32)
        for row, index in enumerate(step.logits_indices):
            sequence = int(np.searchsorted(step.subsequence_begins, index, side="right")) - 1
            digit = round(float(step.memory["num_loud"][sequence, 0, 0]) / FRAMES_A_DIGIT)
            script = [SPECIAL.start, SPECIAL.first_stamp, ord("0") + digit, SPECIAL.first_stamp + 50, SPECIAL.end]
            logits[row, script[min(int(step.position_ids[index]) + 1, len(script) - 1)]] = 20
        return logits


def _no_alignment() -> Executable:
    raise UnsupportedError("the digits have no times of words")


def listening_servable(name: str, max_running: int = 4) -> SpeechServable:
    """Make a servable of this model."""
    clock, decoder = MonotonicClock(), ListeningDecoder()
    core = EngineCore(decoder, VOCAB, clock, SchedulerLimits(sequences=16))
    engine = SpeechEngine(
        core,
        SpeechEncoder(LoudFrames(), CONFIG.num_mel_bins),
        Aligner(_no_alignment, SPECIAL, tuple),
        CONFIG,
        byte_tokenizer(),
        SPECIAL,
        Placement(Unit.CPU, "scripted", "fp32", "the test wants it"),
        clock,
        name=name,
        statistics=ModelStatistics(),
        max_running=max_running,
        max_seconds=60,
        limits=QueueLimits(64, 60),
        close_decoder=decoder.close,
    )
    return SpeechServable(engine, name, 1)
