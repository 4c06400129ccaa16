"""Compile decoders with their caches from a checkpoint. `assemble` creates the engine from them."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.backends.gate.gate import Gate
from triune.backends.transformer.adapters import read_adapters
from triune.backends.transformer.checkpoint import DecoderFiles, open_decoder_files
from triune.backends.transformer.draft import Draft, open_draft
from triune.backends.transformer.trials import measure
from triune.backends.transformer.units import Loading, UnitDecoder, judge_units, load_units, warm_up_unit
from triune.config.configure import Source
from triune.config.model_config import ModelConfig
from triune.config.transformer import TransformerOptions, read_transformer_options
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, NoMemoryError, UnsupportedError
from triune.core.printable import printable
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.engine.moving.transfers import Movable
from triune.engine.scheduler import SchedulerLimits
from triune.engine.source import SourceRules
from triune.engine.text.side import TextSide
from triune.engine.weights.key import weights_key
from triune.graph.held import HeldModel
from triune.graph.paged_attention import memory_widths
from triune.hardware.memory import usable_memory
from triune.runtimes.decoders import load_decoder
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

_SEQUENCE_TOKENS: Final = 512
"""Without `cache_bytes`, the cache has room for this many tokens for each of `max_sequences` sequences, but at least
for one whole context.
"""

_SHARE_OF_MEMORY: Final = 4
"""Without `cache_bytes`, the caches take at most the available memory divided by this."""


@dataclass(frozen=True, slots=True)
class TransformerBuild(Build):
    """A compiled transformer that does not answer requests yet.

    Attributes:
        decoders: the compiled decoder on each of its units, the preferred one first.
        left_out: why units of its config are left out, by unit.
        verdicts: how far the logits of each unit differ from those of fp32 on the CPU.
        text: the tokenizer and the chat template.
        vocab_size: the number of rows of the embedding.
        limits: the limits of a step.
        adapters: the digests of the LoRA adapters in the decoder's graph, by name, in the order of their numbers there.
        options: the config's parameters.
        num_threads: the number of CPU threads in a step.
        duration_ns: how long the build took.
        movable: what a server needs to know to move running answers to another server.
    """

    decoders: tuple[UnitDecoder, ...]
    left_out: Mapping[Unit, str]
    verdicts: Mapping[Unit, Verdict]
    text: TextSide
    vocab_size: int
    limits: SchedulerLimits
    adapters: Mapping[str, bytes]
    options: TransformerOptions
    num_threads: int
    duration_ns: int
    movable: Movable

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units that it is compiled for."""
        return tuple(each.unit for each in self.decoders)

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit."""
        return {each.unit: each.decoder.precision for each in self.decoders}

    @property
    def shortfall(self) -> str:
        """Why some units are left out: see `Build.shortfall`."""
        return "; ".join(f"served without '{unit.value}': {reason}" for unit, reason in self.left_out.items())

    @property
    def adapter_names(self) -> Collection[str]:
        """The names of the LoRA adapters: see `Build.adapter_names`."""
        return self.adapters.keys()

    @property
    def cache_bytes(self) -> int:
        """The size of the caches of keys and values on all units: see `Build.cache_bytes`."""
        return sum(each.decoder.num_blocks * each.block_bytes for each in self.decoders)

    def close(self) -> None:
        """Free the decoders, and the compiler of constraints."""
        self.text.constraints.close()
        self.close_decoders()

    def close_decoders(self) -> None:
        """Free the decoders, and those of the draft model."""
        for each in self.decoders:
            each.close()

    def __str__(self) -> str:
        threads = f"{self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        places: list[str] = []
        for each in self.decoders:
            decoder = each.decoder
            emulated = "emulated, " if each.unit in self.emulated else ""
            places.append(
                f"{each.unit.value} ({emulated}{each.runtime}, {decoder.precision}, {threads}, a cache of "
                f"{decoder.num_blocks * decoder.block_size} tokens in "
                f"{decoder.num_blocks * decoder.block_bytes >> 20} MiB{self._most_sequences(each)}"
                f"{_with_adapters(self.adapters)}{self._with_draft(each.draft)})"
            )
        return f"on {' and on '.join(places)} in {self.duration_ns / 1e9:.2f} s"

    def _with_draft(self, draft: Draft | None) -> str:
        if draft is None:
            return ""
        unit = draft.decoder.unit
        return f", draft model {printable(draft.name)} on {unit.value}{' (emulated)' if unit in self.emulated else ''}"

    def _most_sequences(self, each: UnitDecoder) -> str:
        """The end of a log message, such as ", for 2 answers at a time", if each block of the unit's cache holds a
        whole sequence; else "".
        """
        count = each.decoder.num_blocks
        is_whole = each.decoder.block_size >= self.limits.context_tokens
        return f", for {count} answer{'s' if count > 1 else ''} at a time" if is_whole else ""


def build_transformer(
    config: ModelConfig,
    source: Source,
    version: int,
    machine: Machine,
    clock: Clock,
    attempt: Attempt,
    *,
    is_trial: bool,
    judge: tuple[Gate, str] | None = None,
    adapters: Mapping[str, Path] | None = None,
    draft: Path | None = None,
) -> TransformerBuild:
    """Build the model: see `Backend.build`.

    Args:
        config: the completed config.
        source: the model on disk.
        version: its version.
        machine: the machine.
        clock: the clock.
        attempt: cancels the build.
        is_trial: whether the caches are the smallest ones.
        judge: the gate, and the key under which verdicts are stored (`config.load_key`); None judges no unit.
        adapters: folders of LoRA adapters by name, in addition to those of the config and of the version's folder.
        draft: the checkpoint of the draft model, if the config's parameter 'draft_model' only names it.
    """
    started_ns = clock.now_ns()
    options = read_transformer_options(config.message)
    files = open_decoder_files(config.path)
    context_tokens = _context_tokens(files, options)
    if note := files.context_note(context_tokens):
        _log.warning("model '%s': %s (parameter 'context_tokens')", config.name, note)
    vocab_size = files.vocab_size
    if files.start_token is not None and options.draft_model is not None:
        raise UnsupportedError(
            f"model '{config.name}' reads prompts with an encoder, which a draft model does not have: remove the "
            "parameter 'draft_model'; 'speculation' may be 'ngram'"
        )
    rules = None if files.start_token is None else SourceRules(files.start_token, context_tokens)
    text = TextSide.of(files.tokenizer(), files.chat_template, vocab_size, rules)
    attempt.check()
    draft_files = open_draft(options, source, vocab_size, text.tokenizer, draft)
    read = read_adapters(config, source, version, options, adapters or {}, files.architecture)
    attempt.check()
    graph = files.write(context_tokens, read)
    encoder = None if rules is None else files.write_encoder()
    loading = Loading(
        config.name, graph, encoder, draft_files, options, context_tokens, machine, clock, attempt, load_decoder
    )
    limits = SchedulerLimits(options.step_tokens, options.max_sequences, context_tokens)
    decoders, left_out = load_units(loading, config.units)
    verdicts: dict[Unit, Verdict] = {}
    try:
        attempt.check()
        if judge is not None:
            verdicts, refused = judge_units(loading, decoders, judge, config, vocab_size)
            left_out |= refused
        attempt.check()
        if not is_trial:
            for each in decoders:
                each.allocate(_num_blocks(each, options, context_tokens, len(decoders)))
        for each in decoders:
            warm_up_unit(loading, each)
        if rules is not None:
            limits = replace(limits, source_tokens=_source_tokens(graph, limits, len(decoders)))
        if len(decoders) > 1 and not is_trial:
            measure(decoders, clock, attempt, name=config.name, step_tokens=options.step_tokens)
    except BaseException:
        text.constraints.close()
        for each in decoders:
            each.close()
        raise
    return TransformerBuild(
        version,
        config,
        source,
        tuple(decoders),
        left_out,
        verdicts,
        text,
        vocab_size,
        limits,
        {each.name: each.digest for each in read},
        options,
        machine.num_cores,
        clock.now_ns() - started_ns,
        Movable.of(weights_key(config.path), decoders[0].decoder),
        emulated=machine.emulated({*config.units, *(each.draft.decoder.unit for each in decoders if each.draft)}),
    )


def _with_adapters(adapters: Mapping[str, bytes]) -> str:
    return f", adapters {', '.join(adapters)}" if adapters else ""


def _context_tokens(files: DecoderFiles, options: TransformerOptions) -> int:
    longest = files.context_tokens
    if options.context_tokens is not None and options.context_tokens > longest and not files.is_of_any_length:
        raise InvalidArgumentError(
            f"parameter 'context_tokens' is {options.context_tokens}; the model was made for {longest} tokens at most"
        )
    return options.context_tokens or longest


def _num_blocks(each: UnitDecoder, options: TransformerOptions, context_tokens: int, num_units: int) -> int:
    """The number of blocks of a unit's cache, at least 1. The memory for them includes the draft model's cache.

    All units get equal parts of the memory that the config allows, or of the available memory.
    """
    block_bytes, decoder = each.block_bytes, each.decoder
    if options.cache_bytes is not None:
        num_blocks = options.cache_bytes // num_units // block_bytes
        if not num_blocks:
            raise InvalidArgumentError(
                f"parameter 'cache_bytes' is {options.cache_bytes}; a block of {decoder.block_size} tokens takes "
                f"{block_bytes} bytes{f' on each of {num_units} units' if num_units > 1 else ''}"
            )
        if options.cache_bytes // num_units > (available := usable_memory().available):
            raise NoMemoryError(
                f"parameter 'cache_bytes' is {options.cache_bytes}; {available} bytes are available: give the "
                "cache less, or unload other models first"
            )
        return num_blocks
    num_tokens = max(context_tokens, options.max_sequences * _SEQUENCE_TOKENS)
    available = usable_memory().available // _SHARE_OF_MEMORY // num_units
    return max(1, min(-(-num_tokens // decoder.block_size), available // block_bytes))


def _source_tokens(graph: HeldModel, limits: SchedulerLimits, num_units: int) -> int:
    """The most tokens of prompts whose encoder outputs are in memory at once on each unit. This is enough for all
    sequences, but the outputs take at most a quarter (`_SHARE_OF_MEMORY`) of the available memory. Each output is in
    memory twice: by itself, and joined with those of the other sequences of a step.
    """
    token_bytes = 2 * 4 * sum(memory_widths(graph.model.graph).values())
    available = usable_memory().available // _SHARE_OF_MEMORY // num_units
    return min(limits.sequences * limits.context_tokens, available // token_bytes)
