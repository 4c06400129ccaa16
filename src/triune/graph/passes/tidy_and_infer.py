"""Remove unread values and infer types after a pass."""

from onnx import ModelProto

from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large


class TidyAndInfer(GraphPass):
    """Given a model in which some values have no type. Result: types for all values, and no values that are not read.

    Large weights are kept out of the model while types are inferred: ONNX's shape inference copies it, and fails beyond
    2 GiB.
    """

    name = "tidy_and_infer"

    def __init__(self, file: WeightFile | None = None) -> None:
        """`file` is the scratch file for large weights that are in no file yet; without it they stay in memory."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Return a model without unread values and with inferred types; `model` itself may be changed, too."""
        large = Large(self._file)
        large.take(model)
        model = Infer()(Tidy()(model))
        large.give_back(model)
        return model
