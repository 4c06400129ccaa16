"""The base class of passes, and the function that runs a list of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeAlias, TypeVar

from onnx import ModelProto

ModelT = TypeVar("ModelT")
_WatchedT = TypeVar("_WatchedT", contravariant=True)


class Pass(ABC, Generic[ModelT]):
    """A rewrite of a model that does not change its outputs.

    Each pass is a class in a file of its own. Its docstring describes the pattern that it finds (Given) and the
    replacement (Result).

    Attributes:
        name: the name of the pass in errors, reports and audits.
    """

    name: str

    @abstractmethod
    def __call__(self, model: ModelT) -> ModelT:
        """Returns the changed model. `model` itself may be changed too, and must not be used any more.

        Raises:
            TriuneError: the pass cannot rewrite the model as its docstring says; the message says which node and why.
        """


GraphPass: TypeAlias = Pass[ModelProto]
"""A pass over an ONNX model."""


class Watcher(Protocol[_WatchedT]):
    """A function that is called after each pass, to compare the model's outputs (`graph.check.Check`,
    `coreml.audit.Audit`).
    """

    def __call__(self, step: str, model: _WatchedT, /) -> None:
        """`step` is the name of the pass that has just run; `model` is the result, which must not be changed."""
        ...


def run_passes(model: ModelT, passes: Iterable[Pass[ModelT]], watch: Watcher[ModelT] | None = None) -> ModelT:
    """Run passes one after another; returns the changed model.

    Args:
        model: may be changed.
        passes: the passes, in order. The next one is taken from the iterable only after the previous one has run.
        watch: called after each pass.
    """
    for each in passes:
        model = each(model)
        if watch is not None:
            watch(each.name, model)
    return model
