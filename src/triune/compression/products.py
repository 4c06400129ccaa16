"""The products of a graph whose weights can be scaled or rounded according to statistics of the products' inputs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from triune.compression.found import Weight
from triune.compression.moments import Moments, Site, held_at_once
from triune.compression.observer import values_on
from triune.compression.scaling import Scaling
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.names import Names
from triune.graph.weight_files import WeightFile, array_of


def sites_of(model: ModelProto, weights: Sequence[Weight]) -> list[Site]:
    """The sites of a model: the values that products multiply with `weights`. They are in the order of their first
    nodes.
    """
    nodes = {node.name: node for node in model.graph.node}
    found: dict[str, list[str]] = {}
    widths: dict[str, int] = {}
    for weight in weights:
        readers = [nodes[name] for name, _ in weight.readers]
        values = {node.input[0] for node in readers}
        is_product = len(weight.shape) == 2 and all(_is_product(node, weight.name) for node in readers)
        if len(values) != 1 or not is_product or weight.tensor.data_type != TensorProto.FLOAT:
            continue
        (value,) = values
        found.setdefault(value, []).append(weight.name)
        widths[value] = weight.shape[weight.inner]
    return [Site(value, widths[value], tuple(names)) for value, names in found.items()]


def moments_of(
    model: ModelProto, sites: Sequence[Site], samples: Sequence[Mapping[str, Array]], ops: CustomOps = NO_CUSTOM_OPS
) -> Iterator[tuple[Site, Moments]]:
    """Yield the moments of each site's inputs on samples. `ops` are the custom operators that numpy computes.

    Raises:
        InvalidArgumentError: the model refuses a sample, or computes NaN or infinities on it.
    """
    for part in held_at_once(sites):
        found = {site.value: Moments(site.width) for site in part}
        for values in values_on(model, list(found), samples, ops):
            for name, moments in found.items():
                if not np.isfinite(values[name]).all():
                    raise InvalidArgumentError(
                        f"the model computes NaN or infinities in '{name}' on these samples: give others (--calibrate)"
                    )
                moments.add(values[name])
        yield from ((site, found[site.value]) for site in part)


def rows_of(weight: Weight) -> NDArray[np.float32]:
    """A weight of two axes as [out, in], in fp32."""
    values = array_of(weight.tensor).astype(np.float32, copy=False)
    return values if weight.axis == 0 else values.T


def scale_inputs(
    model: ModelProto, sites: Mapping[Site, Scaling], weights: Sequence[Weight], file: WeightFile
) -> ModelProto:
    """Make a copy of a model in which the inputs of the products are multiplied by 1 / scales, and their weights by the
    scales.

    Args:
        model: not changed.
        sites: the sites whose inputs are scaled, each with its scales.
        weights: the weights of the model.
        file: the scratch file for large weights.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph, names = copy.graph, Names(copy.graph)
    by_name = {weight.name: weight for weight in weights}
    nodes: dict[str, list[NodeProto]] = {}
    scaled: dict[str, TensorProto] = {}
    for site, scaling in sites.items():
        result, factor = names.value(f"{site.value}/scaled"), names.value(f"{site.value}/scales")
        scaled[factor] = file.tensor(factor, (1 / scaling.scales).astype(np.float32))
        first = True
        for name in site.weights:
            weight = by_name[name]
            along = scaling.scales if weight.inner == 1 else scaling.scales[:, np.newaxis]
            scaled[name] = file.tensor(name, array_of(weight.tensor) * along)
            for reader, _ in weight.readers:
                before = nodes.setdefault(reader, [])
                if first:
                    before.append(helper.make_node("Mul", [site.value, factor], [result], name=result))
                first = False
                node = next(each for each in graph.node if each.name == reader)
                node.input[0] = result
        info = next((each for each in (*graph.value_info, *graph.input) if each.name == site.value), None)
        if info is not None:
            graph.value_info.add().CopyFrom(info)
            graph.value_info[-1].name = result
    ordered = [
        NodeProto.FromString(each.SerializeToString())
        for node in graph.node
        for each in (*nodes.get(node.name, ()), node)
    ]
    kept = [TensorProto.FromString(each.SerializeToString()) for each in graph.initializer if each.name not in scaled]
    del graph.node[:]
    graph.node.extend(ordered)
    del graph.initializer[:]
    graph.initializer.extend([*kept, *scaled.values()])
    return copy


def _is_product(node: NodeProto, weight: str) -> bool:
    attributes: dict[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    is_plain = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes.get("transA", 0))
    return is_plain and list(node.input).count(weight) == 1 and node.input[1] == weight
