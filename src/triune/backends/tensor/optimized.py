"""Optimize a model's graph before a runtime compiles it; results are kept on disk."""

import functools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.load import load
from triune.graph.optimizing.level import Level
from triune.graph.optimizing.run import Optimized, optimize
from triune.graph.optimizing.save import save
from triune.graph.weight_files import WeightFile
from triune.runtimes.compiled_cache import CompiledCache, optimization_digest
from triune.runtimes.conversion import convert_within

_FILENAME: Final = "model.onnx"
_LEFT_OUT: Final = "left_out.json"

_SECONDS: Final = 24 * 3600.0
"""The time limit of an optimization, in seconds. It is long, since the time limit of a load already ends the load's
process, and with it the optimization.
"""

_log = logging.getLogger(__name__)


def optimized_file(
    path: Path,
    level: Level,
    unit: Unit,
    samples: Iterator[Mapping[str, Array]],
    cache: CompiledCache | None = None,
    *,
    ops: CustomOps = NO_CUSTOM_OPS,
    memory_bytes: int | None = None,
) -> Path:
    """The optimized form of a model file, from the cache if it was made before. Otherwise a separate process with a
    memory limit makes it, since a file of a few bytes may have constants of gigabytes.

    Args:
        path: an ONNX file.
        level: how far the model is rewritten.
        unit: the unit for which the model is rewritten.
        samples: the model's own samples, on which the results are compared if the model accepts no generated inputs.
        cache: the folder for results; None means the folder `optimized` in Triune's cache folder.
        ops: the model's custom operators that numpy computes. They stay in the graph.
        memory_bytes: the memory limit of the separate process; None means three quarters of the machine's memory.

    Raises:
        InvalidArgumentError: the file is not valid ONNX.
        UnsupportedError: the model cannot be compared with its source.
        UnavailableError: the cache cannot be written to, or the optimization took longer than _SECONDS.
        InternalError: the process exceeded its memory limit, or ended early.
    """

    def make(folder: Path) -> None:
        folder.mkdir()
        convert_within(
            functools.partial(_make, path, level, unit, list(samples), ops, folder),
            f"the optimization of '{path}'",
            seconds=_SECONDS,
            remedy="",
            memory_bytes=memory_bytes,
        )
        for line in json.loads((folder / _LEFT_OUT).read_text(encoding="utf-8")):
            _log.warning("'%s' at level %s: %s", path, level.value, line)

    words = [level.value, unit.value, *([ops.digest()] if ops else [])]
    kept = cache or CompiledCache(name="optimized")
    return kept.get(optimization_digest(path, " ".join(words)), make) / _FILENAME


def _make(
    path: Path, level: Level, unit: Unit, samples: Sequence[Mapping[str, Array]], ops: CustomOps, folder: Path
) -> None:
    """Write the optimized model into `folder`, and a file with the messages for the log."""
    with WeightFile() as file:
        done = _optimized(path, level, unit, samples, ops, file)
        save(done.model, folder / _FILENAME)
    lines = [f"pass {each.name} is left out: {each.left_out}" for each in done.passes if each.left_out]
    (folder / _LEFT_OUT).write_text(json.dumps(lines), encoding="utf-8")


def _optimized(
    path: Path, level: Level, unit: Unit, samples: Sequence[Mapping[str, Array]], ops: CustomOps, file: WeightFile
) -> Optimized:
    model = load(path)
    try:
        return optimize(model, level, unit, file, ops=ops)
    except UnsupportedError as error:
        refusal = error
    for inputs in samples:
        try:
            return optimize(model, level, unit, file, inputs=inputs, ops=ops)
        except (InvalidArgumentError, UnsupportedError) as error:
            refusal = error
    raise UnsupportedError(
        f"the model takes neither made-up inputs nor its samples, so it cannot be compared with its form at level "
        f"{level.value}: give a sample that it takes in model_warmup, or leave out optimization_level ({refusal})"
    )
