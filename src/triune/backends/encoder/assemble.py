"""Creates the servable that answers requests with a compiled encoder."""

from triune.backends.encoder.build import EncoderBuild
from triune.backends.encoder.runner import EncoderRunner
from triune.backends.resources import Resources
from triune.config.encoder import COUNT_OUTPUT, PART_TEXTS
from triune.config.limits import limits_of
from triune.config.metrics import new_statistics
from triune.config.policy import BatchingPolicy
from triune.config.turns import weight_of
from triune.core.servable import Servable
from triune.core.threads import NoThreadError
from triune.engine.encoder_servable import EncoderServable
from triune.engine.encoder_steps import StepSize
from triune.engine.generation import Placement
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.worker import ThreadWorker


def assemble_encoder(build: EncoderBuild, resources: Resources) -> Servable:
    """Make the servable of a build, and give it the ownership of the build.

    Raises:
        NoThreadError: the system cannot start a thread. The caller still owns the build then.
    """
    config, (output, *_) = build.config, build.config.outputs
    statistics = new_statistics(config.message, has_distributions=resources.settings.has_distributions)
    statistics.verdicts.update(build.verdicts)
    limits = limits_of(config.parameters, resources.settings.limits)
    steps = StepSize(config.units)
    workers: list[ThreadWorker] = []
    try:
        for index, executable in enumerate(build.executables):
            runner = EncoderRunner(executable, build.encoder, output, steps, resources.clock)
            workers.append(ThreadWorker(runner, f"{config.name}-{build.version}-{executable.unit.value}-{index}"))
    except NoThreadError:
        for worker in workers:
            worker.stop()
        raise
    computing = Dispatcher(
        config.name,
        build.version,
        BatchingPolicy(max_batch_size=PART_TEXTS, is_dynamic=True, queue_limits=limits.queue, is_fair=True),
        (output, COUNT_OUTPUT),
        workers,
        statistics,
        resources.clock,
        build.emulated,
        run_limit_seconds=limits.run_seconds,
        accounts=resources.accounts,
        power=resources.power,
        arbiter=resources.arbiter,
        weight=weight_of(config.message),
        max_elements=steps.num_tokens,
    )
    first = {each.unit: each for each in reversed(build.executables)}
    reason = "of its config's units, it was expected to answer first" if len(first) > 1 else _reason(build)
    placements = [Placement(unit, first[unit].recipe.runtime, first[unit].precision, reason) for unit in config.units]
    return EncoderServable(
        computing,
        build.encoder,
        steps,
        placements,
        output,
        config.name,
        build.version,
        build.graph and build.graph.remove,
    )


def _reason(build: EncoderBuild) -> str:
    unit = build.executables[0].unit.value
    is_named = build.source.message.instance_group or build.source.message.parameters
    why = "the config names this unit" if is_named else "it is the unit of this runtime that every machine has"
    return f"{build.executables[0].recipe.runtime} computes encoders on '{unit}', and {why}"
