"""Types and shapes of every value."""

import onnx.shape_inference
from onnx import ModelProto

from triune.core.errors import InvalidArgumentError


class Infer:
    """Given nodes. Result: `value_info` for what ONNX can infer of their outputs, shapes computed by nodes included.

    Not in its strict mode, which fails on bodies of ONNX's own functions (a Range of vectors in AffineGrid, 1.23).
    """

    name = "infer"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Raises InvalidArgumentError where ONNX gives up. Shapes that contradict each other are left for compilers."""
        try:
            return onnx.shape_inference.infer_shapes(model, data_prop=True)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
            raise InvalidArgumentError(
                f"the model's types do not fit together: {' '.join(str(error).split())}"
            ) from error
