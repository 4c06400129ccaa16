"""ONNX Runtime's own operators (com.microsoft), which its optimizer and its exporters write. One family a file."""

from triune.graph.decompose.context import Decomposition
from triune.graph.decompose.microsoft import (
    activations,
    convolutions,
    norms,
    products,
    quantized,
    quantized_products,
    standard,
)

TABLE: dict[str, Decomposition] = {
    **activations.TABLE,
    **norms.TABLE,
    **products.TABLE,
    **convolutions.TABLE,
    **quantized.TABLE,
    **quantized_products.TABLE,
    **standard.TABLE,
}
