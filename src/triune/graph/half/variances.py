"""Batch normalizations whose variances fp16 does not hold."""

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from triune.graph.half.limits import LARGEST, SMALLEST_NORMAL
from triune.graph.names import Names
from triune.graph.values import Values, attributes_of


def fold_variances(model: ModelProto) -> None:
    """Given BatchNormalization of constants whose variance or mean is beyond fp16. Result: one of variance 1.

    The scale becomes scale / sqrt(variance + epsilon), computed in fp64.

    Args:
        model: normalized; changed. Graphs within its nodes stay as they are.
    """
    values, names = Values(model.graph), Names(model.graph)
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or attributes_of(node).get("training_mode", 0):
            continue
        constants = [values.constant(name) for name in node.input[1:5]]
        scale, _, mean, variance = (None if each is None else each.astype(np.float64) for each in constants)
        if scale is None or mean is None or variance is None:
            continue
        variance = variance + attributes_of(node).get("epsilon", 1e-5)
        largest = max(variance.max(initial=1), np.abs(mean).max(initial=0))
        if variance.min(initial=1) >= SMALLEST_NORMAL and largest <= LARGEST:
            continue
        ones = np.ones(variance.shape, np.float32)
        folded = {1: (scale / np.sqrt(variance)).astype(np.float32), 4: ones}
        for place, array in folded.items():
            name = names.value(f"{node.output[0]}/folded/{place}")
            model.graph.initializer.append(numpy_helper.from_array(array, name))
            node.input[place] = name
        kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("epsilon", 0.0)])
