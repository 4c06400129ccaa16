"""Models with one operator of ONNX Runtime's own (com.microsoft) or of ONNX's classical machine learning
(ai.onnx.ml).
"""

from collections.abc import Sequence

from support.contrib import (
    activations,
    attentions,
    blocks,
    features,
    forests,
    machines,
    norms,
    products,
    quantized,
    quantized_lstm,
    quantized_products,
)
from support.contrib.case import Case

FAMILIES: dict[str, Sequence[Case]] = {
    "activations": activations.CASES,
    "norms": norms.CASES,
    "products": products.CASES,
    "attentions": attentions.CASES,
    "quantized": quantized.CASES,
    "quantized products": quantized_products.CASES,
    "quantized LSTM": quantized_lstm.CASES,
    "blocks": blocks.CASES,
    "features": features.CASES,
    "machines": machines.CASES,
    "forests": forests.CASES,
}

CASES = [case for cases in FAMILIES.values() for case in cases]
