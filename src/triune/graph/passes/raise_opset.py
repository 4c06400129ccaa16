"""Raise a model's operator set, and replace patterns of nodes by the newer operators that compute the same."""

from collections.abc import Sequence

from onnx import ModelProto

from triune.core.errors import UnsupportedError
from triune.graph.declare_older import OLDER, declare_older
from triune.graph.editing import opset_of
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy_and_infer import TidyAndInfer
from triune.graph.passes.upgrade import Upgrade
from triune.graph.weight_files import WeightFile
from triune.graph.weights import Large


class RaiseOpset(GraphPass):
    """Given a model of an older operator set, with patterns of nodes that one operator of the newest set computes
    (Gelu). Result: the same model in the newest set for which ONNX Runtime has kernels, with these operators. A model
    that would not get fewer nodes by that stays as it is.
    """

    name = "raise_opset"

    def __init__(self, file: WeightFile, forms: Sequence[GraphPass]) -> None:
        """Args:
        file: the scratch file for new large weights.
        forms: the passes that recover newer operators.
        """
        self._file = file
        self._forms = forms

    def __call__(self, model: ModelProto) -> ModelProto:
        """Returns the model in the newer operator set, or `model` itself if it stays as it is."""
        if opset_of(model) >= OLDER:
            return model
        raised = ModelProto()
        raised.CopyFrom(model)
        large = Large(self._file)
        large.take(raised)
        try:
            raised = Upgrade()(raised)
        except UnsupportedError:
            # Keep the model's operator set: some of its operators have no counterpart in the newer one.
            return model
        large.give_back(raised)
        raised = TidyAndInfer(self._file)(raised)
        declare_older(raised)
        num_nodes = len(raised.graph.node)
        for form in self._forms:
            raised = TidyAndInfer(self._file)(form(raised))
        return raised if opset_of(raised) == OLDER and len(raised.graph.node) < num_nodes else model
