"""Operators of the domain ai.onnx.ml, to which scikit-learn and tree libraries are exported, one family in each
file.
"""

from triune.graph.decompose.classical import features, labels, linear, trees, vectors
from triune.graph.decompose.context import Decomposition

TABLE: dict[str, Decomposition] = {**features.TABLE, **labels.TABLE, **trees.TABLE, **linear.TABLE, **vectors.TABLE}
