"""Decoders with an explicit cache in ONNX's evaluator, call by call."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from contract.decoders.cases import CONFIGS, SeededWeights
from triune.core.datatypes import Array
from triune.core.explicit_cache import ExplicitSize, given_for, windows_of
from triune.engine.models import write_explicit

NUM_POSITIONS = 40


class ExplicitModel:
    """One sequence of a case. The sizes of calls and cache may differ from call to call."""

    def __init__(self, case: str) -> None:
        self._config = CONFIGS[case]
        self._graphs: dict[ExplicitSize, ReferenceEvaluator] = {}
        self.caches: dict[str, Array] = {}
        self.length = 0

    def call(self, size: ExplicitSize, ids: Sequence[int] | NDArray[np.int64], wanted: int = -1) -> NDArray[np.float32]:
        """Compute tokens, and return the logits [vocabulary] of the wanted token. The cache is first moved to this
        size.
        """
        graph = self._graph(size)
        types = dict(zip(graph.input_names, graph.input_types, strict=True))
        shapes = {name: tuple(dim.dim_value for dim in each.tensor_type.shape.dim) for name, each in types.items()}
        for name, shape in shapes.items():
            if "cache" in name:
                self.caches[name] = moved(self.caches.get(name), shape)
        given = given_for(size, np.asarray(ids, np.int64), self.length, windows_of(shapes), range(len(ids))[wanted])
        found = dict(zip(graph.output_names, graph.run(None, {**given, **self.caches}), strict=True))
        self.caches = {name: found[f"{name}_new"] for name in self.caches}
        self.length += len(ids)
        return found["logits"][0, 0]

    def _graph(self, size: ExplicitSize) -> ReferenceEvaluator:
        if size not in self._graphs:
            config = self._config
            model = write_explicit(config, SeededWeights(config), size, num_positions=NUM_POSITIONS)
            self._graphs[size] = ReferenceEvaluator(model.whole())
        return self._graphs[size]


def moved(cache: Array | None, shape: tuple[int, ...]) -> Array:
    """Copy a cache to a larger one, padded with zeros."""
    grown = np.zeros(shape, np.float32)
    if cache is not None:
        grown[tuple(map(slice, cache.shape))] = cache
    return grown
