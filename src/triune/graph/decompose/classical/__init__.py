"""Operators of ai.onnx.ml, which converters of scikit-learn and of tree libraries write. Each file holds one family."""

from triune.graph.decompose.classical import features, labels, linear, trees, vectors
from triune.graph.decompose.context import Decomposition

TABLE: dict[str, Decomposition] = {**features.TABLE, **labels.TABLE, **trees.TABLE, **linear.TABLE, **vectors.TABLE}
