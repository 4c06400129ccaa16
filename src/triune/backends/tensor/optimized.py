"""Optimize a model's graph before a runtime compiles it; results are kept on disk."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.graph.load import load
from triune.graph.optimizing.level import Level
from triune.graph.optimizing.run import Optimized, optimize
from triune.graph.optimizing.save import save
from triune.graph.weight_files import WeightFile
from triune.runtimes.compiled_cache import CompiledCache, optimization_digest

_FILENAME: Final = "model.onnx"

_log = logging.getLogger(__name__)


def optimized_file(
    path: Path, level: Level, unit: Unit, samples: Iterator[Mapping[str, Array]], cache: CompiledCache | None = None
) -> Path:
    """The optimized form of a model file, from the cache if it was made before.

    Args:
        path: an ONNX file.
        level: how far it is rewritten.
        unit: for which unit.
        samples: the model's own samples, on which it is compared if it takes no made-up inputs.
        cache: where results are kept; None: in the folder `optimized` of Triune's cache.

    Raises:
        InvalidArgumentError: the file is not valid ONNX.
        UnsupportedError: the model cannot be compared with its source.
        UnavailableError: the cache cannot be written to.
    """

    def make(folder: Path) -> None:
        folder.mkdir()
        with WeightFile() as file:
            done = _optimized(path, level, unit, samples, file)
            save(done.model, folder / _FILENAME)
        for each in done.passes:
            if each.left_out:
                _log.warning("'%s' at level %s: pass %s is left out: %s", path, level.value, each.name, each.left_out)

    kept = cache or CompiledCache(name="optimized")
    return kept.get(optimization_digest(path, f"{level.value} {unit.value}"), make) / _FILENAME


def _optimized(
    path: Path, level: Level, unit: Unit, samples: Iterator[Mapping[str, Array]], file: WeightFile
) -> Optimized:
    model = load(path)
    try:
        return optimize(model, level, unit, file)
    except UnsupportedError as error:
        refusal = error
    for inputs in samples:
        try:
            return optimize(model, level, unit, file, inputs=inputs)
        except (InvalidArgumentError, UnsupportedError) as error:
            refusal = error
    raise UnsupportedError(
        f"the model takes neither made-up inputs nor its samples, so it cannot be compared with its form at level "
        f"{level.value}: give a sample that it takes in model_warmup, or leave out optimization_level ({refusal})"
    )
