"""ONNX Runtime's own operators (com.microsoft), which its optimizer and exporters write, one family in each file."""

from triune.graph.decompose.context import Decomposition
from triune.graph.decompose.microsoft import (
    activations,
    attentions,
    convolutions,
    group_query,
    norms,
    products,
    quantized,
    quantized_lstm,
    quantized_products,
    rotary,
    standard,
)

TABLE: dict[str, Decomposition] = {
    **activations.TABLE,
    **norms.TABLE,
    **products.TABLE,
    **convolutions.TABLE,
    **attentions.TABLE,
    **group_query.TABLE,
    **rotary.TABLE,
    **quantized.TABLE,
    **quantized_products.TABLE,
    **quantized_lstm.TABLE,
    **standard.TABLE,
}
