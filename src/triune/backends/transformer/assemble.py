"""Creates the engine that answers requests with compiled decoders."""

import hashlib

from triune.backends.resources import Resources
from triune.backends.share import share_of
from triune.backends.transformer.build import TransformerBuild
from triune.backends.transformer.units import UnitDecoder
from triune.config.limits import limits_of
from triune.config.metrics import new_statistics
from triune.config.parameters import UNITS_PARAMETER
from triune.core.cache import cache_folder
from triune.core.decoder import DecoderExecutable
from triune.core.servable import Servable
from triune.core.threads import NoThreadError
from triune.core.version import VERSION
from triune.engine.core import EngineCore
from triune.engine.engine import Engine
from triune.engine.generation import Placement
from triune.engine.kv.second_tier import SecondTier
from triune.engine.replicas.replica import Replica
from triune.engine.servable import TextServable
from triune.engine.speculation.draft import DraftModel
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.speculation.proposer import Proposer


def assemble_transformer(build: TransformerBuild, resources: Resources) -> Servable:
    """Start the engine of a build, and give it the ownership of the build.

    Raises:
        NoThreadError: the system cannot start a thread. The caller still owns the build then.
    """
    config = build.config
    limits = limits_of(config.parameters, resources.settings.limits)
    statistics = new_statistics(config.message, has_distributions=resources.settings.has_distributions)
    statistics.accounts = resources.accounts
    statistics.verdicts.update(build.verdicts)
    replicas: list[Replica] = []
    try:
        # Add the replicas one by one, so that the handler below closes the first ones if a later one cannot be made.
        replicas.extend(_replica(build, each, resources) for each in build.decoders)
        engine = Engine(
            replicas,
            build.text,
            resources.clock,
            name=config.name,
            statistics=statistics,
            limits=limits.queue,
            close_decoder=build.close_decoders,
            run_limit_seconds=limits.run_seconds,
            movable=build.movable,
            power=resources.power,
        )
    except NoThreadError:
        # Close the replicas that were created, which have files and threads.
        for each in replicas:
            each.core.close()
        raise
    return TextServable(engine, config.name, build.version)


def _replica(build: TransformerBuild, each: UnitDecoder, resources: Resources) -> Replica:
    """Make a replica of the model, which computes with one decoder."""
    share = share_of(build.config, each.unit, resources.clock, resources.arbiter)
    proposer: Proposer | None = NgramProposer() if build.options.speculation == "ngram" else None
    if each.draft is not None:
        proposer = DraftModel(each.draft.decoder, each.draft.context_tokens, build.limits.step_tokens)
    tier = _second_tier(build, each.decoder)
    decoder, limits = each.decoder, build.limits
    core = EngineCore(
        decoder,
        build.vocab_size,
        resources.clock,
        limits,
        proposer,
        tier,
        build.adapters,
        resources.accounts.get(each.unit),
        resources.power,
        share,
        preempted_bytes=(build.options.preempted_bytes or 0) // len(build.decoders),
        reader=each.encoder,
    )
    placement = Placement(each.unit, each.runtime, decoder.precision, _reason(build, each))
    return Replica(core, placement, each.rates, max_answers=limits.sequences, is_emulated=each.unit in build.emulated)


def _second_tier(build: TransformerBuild, decoder: DecoderExecutable) -> SecondTier | None:
    """Open the files for blocks that do not fit into the cache, if the config allows them. Each unit gets an equal part
    of the allowed size.
    """
    if build.options.disk_cache_bytes is None:
        return None
    max_bytes = build.options.disk_cache_bytes // len(build.config.units)
    # The key of stored blocks includes all of these files, since keys and values depend on them.
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


def _reason(build: TransformerBuild, each: UnitDecoder) -> str:
    """The text for the placement report that says why the unit was chosen."""
    given, unit = build.source.message, each.unit.value
    is_named = len(given.instance_group) or given.parameters.keys() & {UNITS_PARAMETER, "precision"}
    why = "the config names this unit" if is_named else f"'{unit}' is its best unit on this machine"
    return f"{each.runtime} runs transformers here, and {why}"
