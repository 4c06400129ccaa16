"""Operator sets that a model uses and does not import."""

from typing import Final

import onnx.defs
from onnx import ModelProto, helper

from triune.graph.values import nodes_within

_ONNX: Final = ("", "ai.onnx")
_NEWEST: Final = {
    "": onnx.defs.onnx_opset_version(),
    "ai.onnx.ml": onnx.defs.onnx_ml_opset_version(),
    "com.microsoft": 1,
}


def import_used(model: ModelProto) -> None:
    """Import the newest version of each operator set that a model uses but does not import, as ONNX Runtime does.

    ONNX's own set is imported in any case, since passes write its operators. CatBoost's classifiers do not import it.
    """
    imported = {"" if each.domain in _ONNX else each.domain for each in model.opset_import}
    if _NEWEST.keys() <= imported:
        return
    used = {"", *(node.domain for node in nodes_within(model.graph.node))}
    for domain, version in _NEWEST.items():
        if domain in used - imported:
            model.opset_import.append(helper.make_opsetid(domain, version))
