"""Compile Whisper's encoder and decoder from a checkpoint."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.backends.gate.gate import Gate, describe_excess
from triune.backends.gate.logits import JudgedDecoder, Trusted, fp32_recipe, judge_decoder, sample_tokens
from triune.backends.held import compile_held
from triune.config.configure import Source
from triune.config.model_config import ModelConfig
from triune.config.placement import Recipe
from triune.config.speech import SpeechOptions, read_speech_options
from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable, DecoderStep
from triune.core.errors import InvalidArgumentError, NoMemoryError, UnsupportedError
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.engine.memory import Memory
from triune.engine.models import write_encoder, write_model
from triune.engine.models.whisper import write_whisper_alignment
from triune.engine.speech.audio import RATE
from triune.engine.speech.encoder import SpeechEncoder, is_finite
from triune.engine.speech.mel import WINDOW_FRAMES
from triune.engine.speech.tokens import SpeechTokens
from triune.engine.speech.words.aligner import Aligner
from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.config import WhisperConfig
from triune.engine.weights.open import open_checkpoint
from triune.engine.weights.tokenizer.tokenizer import Tokenizer
from triune.graph.held import HeldModel
from triune.hardware.memory import usable_memory
from triune.runtimes.decoders import load_decoder, trusted_decoder
from triune.runtimes.machine import Machine

SEQUENCES_A_FILE: Final = 2
"""The most sequences of the engine that one audio file uses at a time: one for the text of a window, and one that
detects its language and whether it is silent.
"""

_SAMPLE_TOKENS: Final = 80
"""The most tokens of the sample text for which a unit's logits are compared with those of `cpu`."""


@dataclass(frozen=True, slots=True)
class SpeechBuild(Build):
    """A compiled speech model that does not answer requests yet.

    Attributes:
        encoder: the compiled encoder.
        aligner: finds the times of words.
        decoder: the compiled decoder with its cache.
        whisper: the checkpoint's config.
        tokenizer: the checkpoint's tokenizer.
        special: the checkpoint's special tokens.
        options: the config's parameters.
        runtime: the name of the runtime.
        verdicts: how far the logits of the unit differ from those of fp32 on the CPU.
        duration_ns: how long the build took.
    """

    encoder: SpeechEncoder
    aligner: Aligner
    decoder: DecoderExecutable
    whisper: WhisperConfig
    tokenizer: Tokenizer
    special: SpeechTokens
    options: SpeechOptions
    runtime: str
    verdicts: Mapping[Unit, Verdict]
    duration_ns: int

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format in which the model computes, by unit."""
        return {self.decoder.unit: self.decoder.precision}

    @property
    def cache_bytes(self) -> int:
        """The size of the cache of keys and values: see `Build.cache_bytes`."""
        return self.decoder.num_blocks * self.decoder.block_bytes

    def close(self) -> None:
        """Free encoder and decoder."""
        self.encoder.close()
        self.aligner.close()
        self.decoder.close()

    def __str__(self) -> str:
        languages = f"{len(self.special.languages)} languages" if self.special.languages else "English"
        emulated = "emulated, " if self.decoder.unit in self.emulated else ""
        unit = f"{self.decoder.unit.value} ({emulated}{self.runtime}, {self.decoder.precision})"
        return f"on {unit}, speech in {languages}, in {self.duration_ns / 1e9:.2f} s"


def open_speech_checkpoint(folder: Path) -> tuple[WhisperConfig, Checkpoint]:
    """Open a checkpoint.

    Raises:
        UnsupportedError: the model is not Whisper, or its windows are not 30 s long. The errors of `open_checkpoint`
            are raised too.
    """
    checkpoint = open_checkpoint(folder)
    config = checkpoint.config
    if not isinstance(config, WhisperConfig):
        raise UnsupportedError(
            f"{folder.name} is {type(config).__name__.removesuffix('Config')}, which reads no speech: its config must "
            "not name backend 'speech'"
        )
    if 2 * config.max_source_positions != WINDOW_FRAMES:
        raise UnsupportedError(
            f"{folder.name} reads {2 * config.max_source_positions} frames at once; Whisper reads {WINDOW_FRAMES}"
        )
    return config, checkpoint


def build_speech(
    config: ModelConfig,
    source: Source,
    version: int,
    machine: Machine,
    runtime: str,
    clock: Clock,
    attempt: Attempt,
    judge: tuple[Gate, str],
) -> SpeechBuild:
    """Build a speech model: see `Backend.build`.

    Args:
        config: the completed config.
        source: the model on disk.
        version: its version.
        machine: the machine.
        runtime: the runtime that runs encoder and decoder.
        clock: the clock.
        attempt: cancels the build.
        judge: the gate, and the key under which verdicts are stored (`config.load_key`).

    Raises:
        UnsupportedError: the unit's answers differ too much from those of fp32 on the CPU.
    """
    started_ns = clock.now_ns()
    options = read_speech_options(config.message)
    whisper, checkpoint = open_speech_checkpoint(config.path)
    tokenizer = checkpoint.tokenizer()
    special = SpeechTokens.of(tokenizer, whisper.vocab_size, config.name)
    (unit,) = config.units
    with ExitStack() as undo:
        attempt.check()
        decoder_graph = write_model(whisper, checkpoint, "paged")
        decoder = load_decoder(runtime)(
            decoder_graph,
            unit=unit,
            num_threads=machine.num_cores,
            num_blocks=1,
            precision=options.precision,
            cache_type=None,
        )
        undo.callback(decoder.close)
        blocks = -(-whisper.max_target_positions // decoder.block_size)
        _allocate(decoder, blocks * SEQUENCES_A_FILE, options.max_sequences)
        attempt.check()
        recipe = Recipe(runtime, unit, machine.num_cores, ())
        graph = write_encoder(whisper, checkpoint, "plain", gives_memory=True)
        encoder = SpeechEncoder(compile_held(graph, recipe, machine), whisper.num_mel_bins)
        undo.callback(encoder.close)
        del graph
        attempt.check()

        def trust() -> Trusted | None:
            return _trusted(
                decoder_graph, write_encoder(whisper, checkpoint, "plain", gives_memory=True), whisper, machine
            )

        num_tokens = min(_SAMPLE_TOKENS, whisper.max_target_positions - 1)
        tokens = [special.start, *sample_tokens(special.end, num_tokens)]
        model = JudgedDecoder(config.name, config.parameters, judge[1], decoder_graph, tokens, trust)
        verdicts = judge_decoder(judge[0], model, {unit: (recipe, decoder, _memory_of_sample(encoder))}, clock)
        if unit in verdicts and verdicts[unit].excess:
            raise UnsupportedError(describe_excess(unit, verdicts[unit].reason))
        attempt.check()
        _warm_up(decoder, encoder.memory(np.zeros(1, np.float32)), special.start)
        attempt.check()
        undo.pop_all()

    def load_alignment() -> Executable:
        return compile_held(write_whisper_alignment(whisper, checkpoint, special.end), recipe, machine)

    return SpeechBuild(
        version,
        config,
        source,
        encoder,
        Aligner(load_alignment, special, lambda: tokenizer.token_bytes),
        decoder,
        whisper,
        tokenizer,
        special,
        options,
        runtime,
        verdicts,
        clock.now_ns() - started_ns,
        emulated=machine.emulated(config.units),
    )


def _allocate(decoder: DecoderExecutable, num_blocks: int, num_files: int) -> None:
    """Give the decoder a cache with room for `num_files` files, which take `num_blocks` blocks each."""
    num_bytes = num_blocks * num_files * decoder.block_bytes
    # Check the available memory first, since the system may grant memory that it does not have.
    if num_bytes > (available := usable_memory().available):
        raise NoMemoryError(
            f"parameter 'max_sequences' is {num_files}: its cache takes {num_bytes} bytes, and {available} bytes are "
            "available; lower it, or unload other models first"
        )
    decoder.allocate(num_blocks * num_files)


def _trusted(
    decoder_graph: HeldModel, encoder_graph: HeldModel, whisper: WhisperConfig, machine: Machine
) -> Trusted | None:
    """Make the reference: the decoder in fp32 on the CPU, and the encoder's output for the sample sound. None if there
    is not enough memory.
    """
    decoder = trusted_decoder(decoder_graph, machine)
    if decoder is None:
        return None
    try:
        encoder = SpeechEncoder(compile_held(encoder_graph, fp32_recipe(machine), machine), whisper.num_mel_bins)
        try:
            return Trusted(decoder, _memory_of_sample(encoder))
        finally:
            encoder.close()
    except BaseException:
        decoder.close()
        raise


def _memory_of_sample(encoder: SpeechEncoder) -> Memory:
    """The encoder's output for a sample. Raises InvalidArgumentError if it holds NaN or infinity."""
    memory = encoder.memory_unchecked(_sound())
    if not is_finite(memory):
        raise InvalidArgumentError("the encoder's outputs are NaN or infinite; its weights are broken")
    return memory


def _sound() -> NDArray[np.float32]:
    """Create two seconds of tones and noise. Each call returns the same samples."""
    seconds = np.arange(2 * RATE) / RATE
    tones = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 440, 1330))
    noise = np.random.default_rng(0).standard_normal(len(seconds))
    return (0.1 * tones + 0.02 * noise).astype(np.float32)


def _warm_up(decoder: DecoderExecutable, memory: Memory, token: int) -> None:
    """Compute one token, so that the first request does not wait for the runtime's preparations in its first step.

    Raises:
        InvalidArgumentError: the model's logits are NaN or infinite.
    """
    zero, begins = np.zeros(1, np.int32), np.array([0, 1], np.int32)
    at = np.zeros(1, np.int64)
    logits = decoder.run(DecoderStep(np.array([token]), at, zero, begins, zero, begins, at, memory))
    if not np.isfinite(logits.max()):
        raise InvalidArgumentError(f"the model's logits for token {token} are NaN or infinite; its weights are broken")
