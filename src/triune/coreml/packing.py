"""Pack the weights of a Core ML package without loss: few distinct values as look-up tables, zeros as bitmasks."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from triune.coreml.quiet import quiet

_LEAST_ZEROS: Final = 0.1
"""The share of zeros from which a bitmask, which costs one bit for each of 16, saves space."""


def pack_palettes(path: Path) -> None:
    """Store weights with at most 256 distinct values as a look-up table and indices into it. Changes the package."""

    def packed(library: Any, model: Any) -> Any:
        config = library.OpPalettizerConfig(mode="unique")
        return library.palettize_weights(model, library.OptimizationConfig(global_config=config))

    _rewrite(path, packed)


def pack_zeros(path: Path) -> None:
    """Store weights with many zeros as the others and a bit for each. Changes the package."""

    def packed(library: Any, model: Any) -> Any:
        # A weight counts as 0 up to this: only zeros do.
        config = library.OpThresholdPrunerConfig(threshold=0.0, minimum_sparsity_percentile=_LEAST_ZEROS)
        return library.prune_weights(model, library.OptimizationConfig(global_config=config))

    _rewrite(path, packed)


def _rewrite(path: Path, change: Callable[[Any, Any], Any]) -> None:
    with quiet():
        # coremltools imports slowly, and publishes no types.
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
