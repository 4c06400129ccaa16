"""What a pass is, and how passes are run and checked."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeAlias, TypeVar

from onnx import ModelProto

ModelT = TypeVar("ModelT")
_WatchedT = TypeVar("_WatchedT", contravariant=True)


class Pass(ABC, Generic[ModelT]):
    """One change of a model, after which it computes the same.

    Each pass is a class in a file of its own. Its docstring says what it finds in a model (Given) and what it writes
    instead (Result).

    Attributes:
        name: what errors, reports and audits call it.
    """

    name: str

    @abstractmethod
    def __call__(self, model: ModelT) -> ModelT:
        """Returns the changed model. `model` itself may be changed too, and must not be used any more.

        Raises:
            TriuneError: the model cannot be brought to what the pass promises; the message says which node and why.
        """


GraphPass: TypeAlias = Pass[ModelProto]
"""A pass over an ONNX model."""


class Watcher(Protocol[_WatchedT]):
    """A function that is called after each pass: a check or an audit (`graph.check.Check`, `coreml.audit.Audit`)."""

    def __call__(self, step: str, model: _WatchedT, /) -> None:
        """`step` is the name of the pass that has just run; `model` is the result, which must not be changed."""
        ...


def run_passes(model: ModelT, passes: Iterable[Pass[ModelT]], watch: Watcher[ModelT] | None = None) -> ModelT:
    """Run passes one after another; returns the changed model.

    Args:
        model: may be changed.
        passes: the passes, in order. The iterable is advanced only after the previous pass has run.
        watch: called after each pass.
    """
    for each in passes:
        model = each(model)
        if watch is not None:
            watch(each.name, model)
    return model
