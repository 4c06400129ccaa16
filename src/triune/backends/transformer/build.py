"""From a checkpoint to an engine."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.backends.transformer.adapters import read_adapters
from triune.backends.transformer.checkpoint import DecoderFiles, open_decoder_files
from triune.backends.transformer.draft import Draft, load_draft, open_draft
from triune.backends.transformer.warm_up import warm_up
from triune.config.configure import Source
from triune.config.limits import limits_of
from triune.config.metrics import new_statistics
from triune.config.model_config import ModelConfig
from triune.config.parameters import UNITS_PARAMETER
from triune.config.settings import ModelSettings
from triune.config.transformer import TransformerOptions, read_transformer_options
from triune.core.cache import cache_folder
from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable
from triune.core.energy import Account
from triune.core.errors import InvalidArgumentError, NoMemoryError
from triune.core.power import Power
from triune.core.printable import printable
from triune.core.servable import Servable
from triune.core.threads import NoThreadError
from triune.core.units import Presence, Unit
from triune.core.version import VERSION
from triune.engine.core import EngineCore
from triune.engine.engine import Engine
from triune.engine.generation import Placement
from triune.engine.kv.second_tier import SecondTier
from triune.engine.moving.transfers import Movable
from triune.engine.replicas.rates import Rates
from triune.engine.replicas.replica import Replica
from triune.engine.scheduler import SchedulerLimits
from triune.engine.servable import TextServable
from triune.engine.speculation.draft import DraftModel
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.speculation.proposer import Proposer
from triune.engine.text.side import TextSide
from triune.engine.weights.key import weights_key
from triune.hardware.memory import usable_memory
from triune.runtimes.decoders import load_decoder
from triune.runtimes.machine import Machine

_SEQUENCE_TOKENS: Final = 512
"""Without `cache_bytes`, the cache holds this many tokens of each of `max_sequences` sequences, or one whole context if
that is more.
"""

_SHARE_OF_MEMORY: Final = 4
"""Without `cache_bytes`, the cache takes at most one part in so many of the memory that is available."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransformerBuild(Build):
    """A transformer that is compiled, and does not answer requests yet.

    Attributes:
        decoder: the compiled decoder with its cache.
        text: tokenizer and chat template.
        vocab_size: the number of rows of the embedding.
        limits: what a step may hold.
        adapters: the digests of the LoRA adapters of the decoder's graph, by name, in their order.
        options: the config's parameters.
        runtime: the name of the runtime.
        num_threads: CPU threads of a step.
        duration_ns: how long the build took.
        movable: what it takes to move its answers to another server.
        draft: the small model that guesses tokens; None without one.
    """

    decoder: DecoderExecutable
    text: TextSide
    vocab_size: int
    limits: SchedulerLimits
    adapters: Mapping[str, bytes]
    options: TransformerOptions
    runtime: str
    num_threads: int
    duration_ns: int
    movable: Movable
    draft: Draft | None

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on the unit."""
        return {self.decoder.unit: self.decoder.precision}

    def close(self) -> None:
        """Free the decoders, and what compiles constraints."""
        self.text.constraints.close()
        self.close_decoders()

    def close_decoders(self) -> None:
        """Free the decoder, and that of the draft model."""
        self.decoder.close()
        if self.draft is not None:
            self.draft.decoder.close()

    def __str__(self) -> str:
        decoder, threads = self.decoder, f"{self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        num_tokens = decoder.num_blocks * decoder.block_size
        return (
            f"on {decoder.unit.value} ({'emulated, ' if self.emulated else ''}{self.runtime}, {decoder.precision}, "
            f"{threads}, a cache of {num_tokens} tokens "
            f"in {decoder.num_blocks * decoder.block_bytes >> 20} MiB"
            f"{_with_adapters(self.adapters)}{_with_draft(self.draft)}) in {self.duration_ns / 1e9:.2f} s"
        )


def build_transformer(
    config: ModelConfig,
    source: Source,
    version: int,
    machine: Machine,
    runtime: str,
    clock: Clock,
    attempt: Attempt,
    *,
    is_trial: bool,
    adapters: Mapping[str, Path] | None = None,
) -> TransformerBuild:
    """Do the slow work: see `Backend.build`.

    Args:
        config: the completed config.
        source: the model on disk.
        version: its version.
        machine: the machine.
        runtime: the runtime that runs the decoder.
        clock: the clock.
        attempt: cancels the build.
        is_trial: whether the cache is the smallest one.
        adapters: folders of LoRA adapters by name, beside those of the config and of the version's folder.
    """
    started_ns = clock.now_ns()
    options = read_transformer_options(config.message)
    files = open_decoder_files(config.path)
    context_tokens = _context_tokens(files, options)
    vocab_size = files.vocab_size
    text = TextSide.of(files.tokenizer(), files.chat_template, vocab_size)
    attempt.check()
    draft_files = open_draft(options, source, vocab_size, text.tokenizer)
    read = read_adapters(config, source, version, options, adapters or {}, files.architecture)
    attempt.check()
    graph = files.write(context_tokens, read)
    attempt.check()
    decoder = load_decoder(runtime)(
        graph,
        unit=config.units[0],
        num_threads=machine.num_cores,
        num_blocks=1,
        precision=options.precision,
        cache_type=options.cache_type,
        is_reproducible=options.reproducible,
    )
    draft: Draft | None = None
    try:
        attempt.check()
        if draft_files is not None:
            draft = load_draft(
                draft_files,
                load_decoder(runtime),
                options,
                unit=config.units[0],
                context_tokens=context_tokens,
                num_threads=machine.num_cores,
            )
            attempt.check()
        if not is_trial:
            decoder.allocate(_num_blocks(decoder, options, context_tokens, draft))
            if draft is not None:
                draft.allocate(decoder)
        is_gpu = decoder.unit is Unit.GPU and machine.status(decoder.unit).presence is Presence.PRESENT
        for each in (decoder,) if draft is None else (decoder, draft.decoder):
            warm_up(
                each,
                clock,
                name=config.name,
                num_tokens=min(options.step_tokens, context_tokens) if is_gpu else 1,
                num_sequences=options.max_sequences,
            )
            attempt.check()
    except BaseException:
        text.constraints.close()
        decoder.close()
        if draft is not None:
            draft.decoder.close()
        raise
    limits = SchedulerLimits(options.step_tokens, options.max_sequences, context_tokens)
    return TransformerBuild(
        version,
        config,
        source,
        decoder,
        text,
        vocab_size,
        limits,
        {each.name: each.digest for each in read},
        options,
        runtime,
        machine.num_cores,
        clock.now_ns() - started_ns,
        Movable.of(weights_key(config.path), decoder),
        draft,
        emulated=machine.emulated(config.units),
    )


def assemble_transformer(
    build: TransformerBuild,
    settings: ModelSettings,
    clock: Clock,
    accounts: Mapping[Unit, Account],
    power: Power | None = None,
) -> Servable:
    """Start the engine of a build, which then belongs to it.

    Args:
        build: the build.
        settings: defaults for all models.
        clock: the clock of all measurements.
        accounts: are charged with the energy of each unit; empty where it is not metered.
        power: the server's power mode; None for full power.

    Raises:
        NoThreadError: the system cannot start a thread. The caller still owns the build then.
    """
    config, decoder = build.config, build.decoder
    limits = limits_of(config.parameters, settings.limits)
    proposer: Proposer | None = NgramProposer() if build.options.speculation == "ngram" else None
    if build.draft is not None:
        proposer = DraftModel(build.draft.decoder, build.draft.context_tokens, build.limits.step_tokens)
    account = accounts.get(decoder.unit)
    statistics = new_statistics(config.message, has_distributions=settings.has_distributions)
    statistics.accounts = accounts
    core = EngineCore(
        decoder, build.vocab_size, clock, build.limits, proposer, _second_tier(build), build.adapters, account, power
    )
    try:
        placement = Placement(decoder.unit, build.runtime, decoder.precision, _reason(build))
        engine = Engine(
            [Replica(core, placement, Rates(build.limits.step_tokens), max_answers=build.limits.sequences)],
            build.text,
            clock,
            name=config.name,
            statistics=statistics,
            limits=limits.queue,
            close_decoder=build.close_decoders,
            run_limit_seconds=limits.run_seconds,
            movable=build.movable,
            power=power,
        )
    except NoThreadError:
        core.close()
        raise
    return TextServable(engine, config.name, build.version)


def _with_adapters(adapters: Mapping[str, bytes]) -> str:
    return f", adapters {', '.join(adapters)}" if adapters else ""


def _with_draft(draft: Draft | None) -> str:
    return f", draft model {printable(draft.name)}" if draft is not None else ""


def _second_tier(build: TransformerBuild) -> SecondTier | None:
    """The files for what the cache has no room for, if the config allows any."""
    max_bytes, decoder = build.options.disk_cache_bytes, build.decoder
    if max_bytes is None:
        return None
    # Keys and values depend on all of these.
    files = {**build.source.stamp.companions(), **build.source.stamp.versions.get(build.version, {})}
    words = [
        VERSION,
        decoder.cache_form,
        decoder.precision,
        f"{decoder.block_size} {build.limits.context_tokens} {build.options.reproducible}",
        *(f"{path} {each.num_bytes} {each.digest}" for path, each in sorted(files.items())),
    ]
    key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
    folder = cache_folder() / "kv" / build.config.name / str(build.version) / f"{decoder.unit.value}-{key}"
    others = tuple(f"{unit.value}-" for unit in build.config.units if unit is not decoder.unit)
    return SecondTier(decoder, folder, max_bytes, others)


def _context_tokens(files: DecoderFiles, options: TransformerOptions) -> int:
    longest = files.context_tokens
    if options.context_tokens is not None and options.context_tokens > longest:
        raise InvalidArgumentError(
            f"parameter 'context_tokens' is {options.context_tokens}; the model was made for {longest} tokens at most"
        )
    return options.context_tokens or longest


def _num_blocks(
    decoder: DecoderExecutable, options: TransformerOptions, context_tokens: int, draft: Draft | None
) -> int:
    """The blocks of the cache, at least 1. Memory for it holds the cache of the draft model, too."""
    block_bytes = decoder.block_bytes + (draft.block_bytes(decoder) if draft is not None else 0)
    if options.cache_bytes is not None:
        num_blocks = options.cache_bytes // block_bytes
        if not num_blocks:
            raise InvalidArgumentError(
                f"parameter 'cache_bytes' is {options.cache_bytes}; a block of {decoder.block_size} tokens takes "
                f"{block_bytes} bytes"
            )
        if options.cache_bytes > (available := usable_memory().available):
            raise NoMemoryError(
                f"parameter 'cache_bytes' is {options.cache_bytes}; {available} bytes are available: give the "
                "cache less, or unload other models first"
            )
        return num_blocks
    num_tokens = max(context_tokens, options.max_sequences * _SEQUENCE_TOKENS)
    available = usable_memory().available // _SHARE_OF_MEMORY
    return max(1, min(-(-num_tokens // decoder.block_size), available // block_bytes))


def _reason(build: TransformerBuild) -> str:
    """Why the model runs where it does."""
    given, unit = build.source.message, build.decoder.unit.value
    is_named = len(given.instance_group) or given.parameters.keys() & {UNITS_PARAMETER, "precision"}
    why = "the config names this unit" if is_named else f"'{unit}' is its best unit on this machine"
    return f"{build.runtime} runs transformers here, and {why}"
