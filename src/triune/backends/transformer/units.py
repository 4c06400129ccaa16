"""The decoders of a model: one on each of its units."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from triune.backends.attempt import Attempt
from triune.backends.gate.gate import Gate, describe_excess
from triune.backends.gate.logits import NO_MEMORY, JudgedDecoder, Trusted, fp32_recipe, judge_decoder, sample_tokens
from triune.backends.held import compile_held
from triune.backends.transformer.checkpoint import DecoderFiles
from triune.backends.transformer.draft import Draft, load_draft
from triune.backends.transformer.warm_up import warm_up
from triune.config.model_config import ModelConfig
from triune.config.placement import Recipe
from triune.config.transformer import TransformerOptions
from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable
from triune.core.errors import TriuneError, UnsupportedError
from triune.core.units import Presence, Unit
from triune.core.verdict import Verdict
from triune.engine.memory import Memory
from triune.engine.replicas.rates import Rates
from triune.engine.source_encoder import SourceEncoder
from triune.graph.held import HeldModel
from triune.runtimes.decoders import LoadDecoder, decoder_runtime, trusted_decoder
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

_SOURCE_TOKENS = 24
"""The number of tokens of the sample text that an encoder reads when units are compared with `cpu`."""


@dataclass(frozen=True, slots=True)
class UnitDecoder:
    """A decoder that is compiled for a unit.

    Attributes:
        decoder: the decoder with its cache.
        runtime: the name of its runtime.
        draft: the draft model, on the same unit unless the config names another one; None if there is none.
        rates: the measured times of the decoder's steps.
        encoder: the encoder that reads prompts for the decoder, on the same unit; None if the model has none.
    """

    decoder: DecoderExecutable
    runtime: str
    draft: Draft | None
    rates: Rates
    encoder: SourceEncoder | None = None

    @property
    def unit(self) -> Unit:
        """The unit."""
        return self.decoder.unit

    @property
    def block_bytes(self) -> int:
        """The memory of a block in bytes, including the draft model's memory for as many tokens."""
        return self.decoder.block_bytes + (self.draft.block_bytes(self.decoder) if self.draft is not None else 0)

    def allocate(self, num_blocks: int) -> None:
        """Give the decoder a cache of `num_blocks` blocks, and its draft model a cache for as many tokens. Raises
        NoMemoryError.
        """
        self.decoder.allocate(num_blocks)
        if self.draft is not None:
            self.draft.allocate(self.decoder)

    def memory(self, tokens: Sequence[int]) -> Memory:
        """The encoder's output for a text, which the decoder reads; empty if the model has no encoder.

        Raises:
            TriuneError: the encoder failed.
        """
        return _memory(self.encoder, tokens)

    def close(self) -> None:
        """Free the decoder, the draft model's decoder, and the encoder."""
        self.decoder.close()
        if self.encoder is not None:
            self.encoder.close()
        if self.draft is not None:
            self.draft.decoder.close()


@dataclass(frozen=True, slots=True)
class Loading:
    """What `load_units` needs to load a model's decoders.

    Attributes:
        name: the model's name, for the log.
        graph: the decoder's graph in the paged form.
        encoder: the graph of the encoder that reads prompts for the decoder; None if there is none.
        draft_files: the files of the draft model; None if there is none.
        options: the config's parameters.
        context_tokens: the most tokens of a sequence.
        machine: the machine.
        clock: the clock.
        attempt: cancels the build.
        load: returns a runtime's function that compiles decoders.
    """

    name: str
    graph: HeldModel
    encoder: HeldModel | None
    draft_files: DecoderFiles | None
    options: TransformerOptions
    context_tokens: int
    machine: Machine
    clock: Clock
    attempt: Attempt
    load: Callable[[str], LoadDecoder]


def load_units(loading: Loading, units: Sequence[Unit]) -> tuple[list[UnitDecoder], dict[Unit, str]]:
    """Compile the model for each unit, with caches of one block.

    Returns:
        the decoders that could be compiled, at least one, and why the others could not.

    Raises:
        TriuneError: the model could not be compiled for any unit; the error is that of the first unit.
    """
    found: list[UnitDecoder] = []
    errors: dict[Unit, TriuneError] = {}
    try:
        for unit in units:
            loading.attempt.check()
            try:
                found.append(_load(loading, unit))
            except TriuneError as error:
                loading.attempt.check()
                errors[unit] = error
    except BaseException:
        for each in found:
            each.close()
        raise
    if not found:
        raise next(iter(errors.values()))
    for unit, error in errors.items():
        _log.warning("model '%s' is served without '%s', which cannot load it: %s", loading.name, unit.value, error)
    return found, {unit: str(error) for unit, error in errors.items()}


def judge_units(
    loading: Loading, decoders: list[UnitDecoder], judge: tuple[Gate, str], config: ModelConfig, vocab_size: int
) -> tuple[dict[Unit, Verdict], dict[Unit, str]]:
    """Compare the logits of each unit with fp32 on the CPU, and free the decoders of units that are wrong.

    Args:
        loading: what the decoders were loaded from.
        decoders: the decoders, whose caches hold no sequences. Caches that are too small for the comparison are
            enlarged. Decoders of wrong units are removed from this list.
        judge: the gate, and the key under which verdicts are stored.
        config: the model's config.
        vocab_size: the number of tokens.

    Returns:
        the verdict on each unit, and for each unit that is left out the reason.

    Raises:
        UnsupportedError: the logits of all units are wrong.
    """
    gate, load_key = judge

    tokens = sample_tokens(vocab_size, loading.context_tokens)
    source = tokens[:_SOURCE_TOKENS]

    def trust() -> Trusted | None:
        decoder = trusted_decoder(loading.graph, loading.machine)
        if decoder is None or loading.encoder is None:
            return None if decoder is None else Trusted(decoder, NO_MEMORY)
        try:
            encoder = SourceEncoder(compile_held(loading.encoder, fp32_recipe(loading.machine), loading.machine))
            try:
                return Trusted(decoder, _memory(encoder, source))
            finally:
                encoder.close()
        except BaseException:
            decoder.close()
            raise

    model = JudgedDecoder(loading.name, config.parameters, load_key, loading.graph, tokens, trust)
    judged = {
        each.unit: (Recipe(each.runtime, each.unit, loading.machine.num_cores, ()), each.decoder, each.memory(source))
        for each in decoders
    }
    verdicts = judge_decoder(gate, model, judged, loading.clock)
    refused = {unit: describe_excess(unit, each.reason) for unit, each in verdicts.items() if each.excess}
    for each in [each for each in decoders if each.unit in refused]:
        decoders.remove(each)
        each.close()
        _log.warning("model '%s' is not served on %s: %s", loading.name, each.unit.value, refused[each.unit])
    if not decoders:
        raise UnsupportedError("; ".join(refused.values()))
    return verdicts, refused


def _memory(encoder: SourceEncoder | None, tokens: Sequence[int]) -> Memory:
    if encoder is None:
        return NO_MEMORY
    (found,) = encoder.read([tuple(tokens)])
    if isinstance(found, TriuneError):
        raise found
    return found


def warm_up_unit(loading: Loading, each: UnitDecoder) -> None:
    """Compute a unit's first steps, in which the runtime prepares itself, so that no request waits for that."""
    options = loading.options
    for decoder in (each.decoder,) if each.draft is None else (each.decoder, each.draft.decoder):
        is_gpu = decoder.unit is Unit.GPU and loading.machine.status(Unit.GPU).presence is Presence.PRESENT
        warm_up(
            decoder,
            each.memory([0]),
            loading.clock,
            name=loading.name,
            num_tokens=min(options.step_tokens, loading.context_tokens) if is_gpu else 1,
            num_sequences=options.max_sequences,
        )
        loading.attempt.check()


def _load(loading: Loading, unit: Unit) -> UnitDecoder:
    runtime, options = decoder_runtime(loading.machine, unit), loading.options
    load = loading.load(runtime)
    decoder = load(
        loading.graph,
        unit=unit,
        num_threads=loading.machine.num_cores,
        num_blocks=1,
        precision=options.precision,
        cache_type=options.cache_type,
        is_reproducible=options.reproducible,
        has_guesses=options.speculation != "off",
    )
    try:
        loading.attempt.check()
        draft: Draft | None = None
        if loading.draft_files is not None:
            draft_unit = options.draft_unit or unit
            draft = load_draft(
                loading.draft_files,
                loading.load(decoder_runtime(loading.machine, draft_unit)),
                options,
                unit=draft_unit,
                is_alone=draft_unit is not unit,
                context_tokens=loading.context_tokens,
                num_threads=loading.machine.num_cores,
            )
        encoder: SourceEncoder | None = None
        if loading.encoder is not None:
            recipe = Recipe(runtime, unit, loading.machine.num_cores, ())
            encoder = SourceEncoder(compile_held(loading.encoder, recipe, loading.machine))
    except BaseException:
        decoder.close()
        raise
    return UnitDecoder(decoder, runtime, draft, Rates(options.step_tokens), encoder)
