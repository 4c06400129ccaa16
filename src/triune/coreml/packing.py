"""Pack the weights of a Core ML package without loss: few distinct values as look-up tables, zeros as bitmasks."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

from triune.coreml.quiet import quiet

_SMALLEST: Final = 1024
"""Weights of fewer elements are not packed."""

_LEAST_ZEROS: Final = 0.1
"""The smallest fraction of zeros for which weights are stored with a bitmask. The bitmask takes one bit for each
weight, and a weight of fp16 takes 16 bits, so that the package becomes smaller.
"""


def pack_palettes(path: Path, group: int | None) -> None:
    """Store weights with at most 256 distinct values as a look-up table and indices into it. Changes the package.

    Args:
        path: the package.
        group: how many output channels share a table; None for all. Weights whose number of channels is not a multiple
            of `group` stay unchanged.
    """

    def packed(library: Any, model: Any) -> Any:
        groups = {} if group is None else {"granularity": "per_grouped_channel", "group_size": group}
        config = library.OpPalettizerConfig(mode="unique", weight_threshold=_SMALLEST, **groups)
        return library.palettize_weights(model, library.OptimizationConfig(global_config=config))

    _rewrite(path, packed)


def pack_zeros(path: Path) -> None:
    """Store weights with many zeros as the nonzero weights and a bit for each weight. Changes the package."""

    def packed(library: Any, model: Any) -> Any:
        # The pruner takes weights up to the magnitude `threshold` for zeros. With a threshold of 0.0 these are only the
        # zeros themselves, so nothing is lost.
        config = library.OpThresholdPrunerConfig(
            threshold=0.0, minimum_sparsity_percentile=_LEAST_ZEROS, weight_threshold=_SMALLEST
        )
        return library.prune_weights(model, library.OptimizationConfig(global_config=config))

    _rewrite(path, packed)


def _rewrite(path: Path, change: Callable[[Any, Any], Any]) -> None:
    with quiet(), _without_warnings():
        # Import here, since coremltools is slow to import. It publishes no types.
        import coremltools
        from coremltools.optimize import coreml

        models: Any = coremltools
        library: Any = coreml
        model = models.models.MLModel(str(path), skip_model_load=True)
        beside = path.with_name(f"{path.stem}.packed.mlpackage")
        change(library, model).save(str(beside))
        del model
        shutil.rmtree(path)
        beside.rename(path)


@contextlib.contextmanager
def _without_warnings() -> Generator[None]:
    """Suppress coremltools' warnings of each weight that it skips, here the weights without a palette."""
    logger = logging.getLogger("coremltools")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
