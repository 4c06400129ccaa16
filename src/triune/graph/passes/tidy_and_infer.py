"""Types and shapes of values that a pass has made."""

from onnx import ModelProto

from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large


class TidyAndInfer(GraphPass):
    """Given a model of large weights, some of whose values have no types. Result: nothing that nobody reads, and types.

    Large weights are set aside meanwhile: ONNX's shape inference copies all that it is given, and ends at 2 GiB.
    """

    name = "tidy_and_infer"

    def __init__(self, file: WeightFile | None = None) -> None:
        """`file` takes the large weights whose numbers are in no file yet; without it they stay in the model."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        large = Large(self._file)
        large.take(model)
        model = Infer()(Tidy()(model))
        large.give_back(model)
        return model
