"""Server metadata, model metadata, statistics and the repository index as JSON values, in Triton's form.

Sources: Triton's metadata, statistics and repository protocol extensions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from triune.config.model_config import ModelConfig, TensorConfig
from triune.core.power import EFFECTS, Power
from triune.core.statistics import Duration
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.frontends.kserve.placements import energy_of
from triune.repository.model import IndexEntry
from triune.scheduling.models import LoadedVersion
from triune.serving.server import Server

Json: TypeAlias = dict[str, Any]


def server_metadata(server: Server) -> Json:
    """Triton's server metadata: name, version, extensions."""
    return {"name": server.name, "version": server.version, "extensions": list(server.extensions)}


def model_metadata(config: ModelConfig, versions: Sequence[int]) -> Json:
    """Triton's model metadata. Shapes show the batch dimension as -1."""
    has_batch = config.batching.max_batch_size > 0
    return {
        "name": config.name,
        "versions": [str(version) for version in versions],
        "platform": config.message.platform or config.backend,
        "inputs": [_tensor_metadata(each, has_batch=has_batch) for each in config.inputs.values()],
        "outputs": [_tensor_metadata(each, has_batch=has_batch) for each in config.outputs.values()],
    }


def _tensor_metadata(tensor: TensorConfig, *, has_batch: bool) -> Json:
    shape = [-1, *tensor.dims] if has_batch else list(tensor.dims)
    return {"name": tensor.name, "datatype": tensor.datatype.value, "shape": shape}


def power(mode: Power) -> Json:
    """The server's power mode as JSON: the mode, the mode that was requested, the reason if they differ, and the
    effects of each mode.
    """
    return {
        "mode": mode.mode.value,
        "asked": mode.asked.value,
        "reason": mode.reason,
        "hot_units": {unit.value: reason for unit, reason in mode.hot.items()},
        "effects": {
            each.value: {
                "one_unit": effects.is_one_unit,
                "min_delay_us": effects.min_delay_us,
                "step_share": effects.step_share,
                "overruled": effects.is_overruled,
            }
            for each, effects in EFFECTS.items()
        },
    }


def statistics(models: Sequence[LoadedVersion]) -> Json:
    """Triton's model statistics. `memory_usage` is empty, since it is not measured."""
    return {"model_stats": [_model_statistics(each) for each in models]}


def statistics_with_energy(models: Sequence[LoadedVersion]) -> Json:
    """The statistics with a field `triune` for each version, which Triton's protobuf message lacks: joules on each
    unit, or why they are unavailable; units that have slowed down or are lost, if any; and the errors of units compared
    with `cpu`.
    """
    document = statistics(models)
    for entry, model in zip(document["model_stats"], models, strict=True):
        slowed = sorted(unit.value for unit in model.statistics.slowed)
        entry["triune"] = {"energy": energy_of(model), **({"slowed_units": slowed} if slowed else {})}
        if model.statistics.lost:
            entry["triune"]["lost_units"] = {unit.value: reason for unit, reason in model.statistics.lost.items()}
        if model.statistics.verdicts:
            entry["triune"]["gate"] = [verdict_json(unit, each) for unit, each in model.statistics.verdicts.items()]
    return document


def verdict_json(unit: Unit, verdict: Verdict) -> Json:
    """How much the outputs of a unit differ from those of `cpu`, as JSON. An error that is infinite or unknown is
    null.
    """
    return {
        "unit": unit.value,
        "is_served": not verdict.excess,
        "precision": verdict.precision,
        "tolerance": verdict.tolerance,
        "largest_error": verdict.largest if math.isfinite(verdict.largest) else None,
        "relative_error": verdict.relative if math.isfinite(verdict.relative) else None,
        "argmax_agreement": verdict.agreement,
        "logits_cosine": verdict.cosine,
        "reason": verdict.reason,
        "is_kept": verdict.is_kept,
    }


def _model_statistics(model: LoadedVersion) -> Json:
    counted = model.statistics
    return {
        "name": model.config.name,
        "version": str(model.version),
        "last_inference": counted.last_inference_ms,
        "inference_count": counted.num_inferences,
        "execution_count": counted.num_executions,
        "inference_stats": _durations(
            {
                "success": counted.success,
                "fail": counted.fail,
                "queue": counted.queue,
                "compute_input": counted.compute_input,
                "compute_infer": counted.compute_infer,
                "compute_output": counted.compute_output,
                "cache_hit": counted.cache_hit,
                "cache_miss": counted.cache_miss,
            }
        ),
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": batch_size,
                **_durations(
                    {
                        "compute_input": batch.compute_input,
                        "compute_infer": batch.compute_infer,
                        "compute_output": batch.compute_output,
                    }
                ),
            }
            for batch_size, batch in sorted(counted.batches.items())
        ],
        "memory_usage": [],
    }


def _durations(durations: Mapping[str, Duration]) -> Json:
    return {name: {"count": each.count, "ns": each.total_ns} for name, each in durations.items()}


def repository_index(entries: Sequence[IndexEntry]) -> list[Json]:
    """Triton's repository index. A version, state or reason that an entry lacks is left out."""
    index: list[Json] = []
    for entry in entries:
        line: Json = {"name": entry.name}
        if entry.version is not None:
            line["version"] = str(entry.version)
        if entry.state is not None:
            line["state"] = entry.state.value
        if entry.reason:
            line["reason"] = entry.reason
        index.append(line)
    return index
