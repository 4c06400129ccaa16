"""Rewrite draws of random numbers whose distribution has no spread, or is given the wrong way round: ONNX Runtime
(1.32) ends the process for these (SIGABRT).
"""

from collections.abc import Iterable

from onnx import AttributeProto, NodeProto, helper

from triune.graph.values import attributes_of

_NORMAL = ("RandomNormal", "RandomNormalLike")
_UNIFORM = ("RandomUniform", "RandomUniformLike")


def only_value(node: NodeProto) -> float | None:
    """The one number that a node draws: of a normal distribution whose scale is 0, or a uniform one whose limits are
    equal. None for other nodes.
    """
    values = attributes_of(node)
    if node.op_type in _NORMAL and values.get("scale", 1.0) == 0:
        return float(values.get("mean", 0.0))
    low, high = (float(values.get(name, default)) for name, default in (("low", 0.0), ("high", 1.0)))
    return low if node.op_type in _UNIFORM and low == high else None


def fit_draws(nodes: Iterable[NodeProto]) -> int:
    """Change draws, in place, so that ONNX Runtime computes them: a normal distribution without spread becomes a
    uniform one of equal limits, a negative scale positive, and limits that are exchanged are put in order.

    Returns how many nodes were changed.
    """
    count = 0
    for node in nodes:
        if node.domain not in ("", "ai.onnx") or any(each.ref_attr_name for each in node.attribute):
            continue
        values = attributes_of(node)
        only = only_value(node)
        if node.op_type in _NORMAL and only is not None:
            node.op_type = node.op_type.replace("Normal", "Uniform")
            _set(node, {"low": only, "high": only}, without=("mean", "scale"))
        elif node.op_type in _NORMAL and values.get("scale", 1.0) < 0:
            _set(node, {"scale": -values["scale"]})
        elif node.op_type in _UNIFORM and values.get("low", 0.0) > values.get("high", 1.0):
            _set(node, {"low": values.get("high", 1.0), "high": values.get("low", 0.0)})
        else:
            continue
        count += 1
    return count


def _set(node: NodeProto, values: dict[str, float], without: tuple[str, ...] = ()) -> None:
    kept = [each for each in node.attribute if each.name not in values and each.name not in without]
    attributes = [AttributeProto.FromString(each.SerializeToString()) for each in kept]
    del node.attribute[:]
    node.attribute.extend(attributes)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
