"""Creates the engine that answers requests with a compiled Whisper model."""

from typing import Final

from triune.backends.resources import Resources
from triune.backends.share import share_of
from triune.backends.speech.build import SEQUENCES_A_FILE, SpeechBuild
from triune.config.metrics import new_statistics
from triune.config.parameters import UNITS_PARAMETER
from triune.core.servable import Servable
from triune.core.threads import NoThreadError
from triune.engine.core import EngineCore
from triune.engine.generation import Placement
from triune.engine.scheduler import SchedulerLimits
from triune.engine.speech.engine import SpeechEngine
from triune.engine.speech.servable import SpeechServable

_STEP_TOKENS: Final = 512


def assemble_speech(build: SpeechBuild, resources: Resources) -> Servable:
    """Start the engine of a build, and give it the ownership of the build.

    Raises:
        NoThreadError: the system cannot start a thread. The caller still owns the build then.
    """
    config, decoder, options = build.config, build.decoder, build.options
    num_sequences = options.max_sequences * SEQUENCES_A_FILE
    limits = SchedulerLimits(_STEP_TOKENS, num_sequences, build.whisper.max_target_positions)
    core = EngineCore(
        decoder,
        build.whisper.vocab_size,
        resources.clock,
        limits,
        account=resources.accounts.get(decoder.unit),
        power=resources.power,
        share=share_of(config, decoder.unit, resources.clock, resources.arbiter),
    )
    if (account := resources.accounts.get(build.encoder.unit)) is not None:
        build.encoder.charge(account, resources.clock)
        build.aligner.charge(account, resources.clock)
    # The decoder and the encoder compute in different threads, so each needs a `BlockingShare` of its own to wait for
    # its turns.
    build.encoder.take_turns(share_of(config, build.encoder.unit, resources.clock, resources.arbiter))
    statistics = new_statistics(config.message, has_distributions=resources.settings.has_distributions)
    statistics.accounts = resources.accounts
    statistics.verdicts.update(build.verdicts)
    named = len(build.source.message.instance_group) or UNITS_PARAMETER in build.source.message.parameters
    why = "the config names this unit" if named else f"'{decoder.unit.value}' is its best unit on this machine"
    try:
        engine = SpeechEngine(
            core,
            build.encoder,
            build.aligner,
            build.whisper,
            build.tokenizer,
            build.special,
            Placement(decoder.unit, build.runtime, decoder.precision, f"{build.runtime} reads speech here, and {why}"),
            resources.clock,
            name=config.name,
            statistics=statistics,
            max_running=options.max_sequences,
            max_seconds=options.max_audio_seconds,
            limits=resources.settings.limits.queue,
            close_decoder=decoder.close,
        )
    except NoThreadError:
        core.close()
        raise
    return SpeechServable(engine, config.name, build.version)
