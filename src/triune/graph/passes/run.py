"""What a pass is, and how passes are run and checked."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeAlias, TypeVar

from onnx import ModelProto

ModelT = TypeVar("ModelT")
_WatchedT = TypeVar("_WatchedT", contravariant=True)


class Pass(ABC, Generic[ModelT]):
    """One change of a model, after which it computes the same.

    Each pass is a class in a file of its own. Its docstring says what it finds (Given) and what it writes (Result).

    Attributes:
        name: what errors, reports and audits call it.
    """

    name: str

    @abstractmethod
    def __call__(self, model: ModelT) -> ModelT:
        """Returns the changed model. `model` itself may be changed too, and must not be used any more.

        Raises:
            TriuneError: the model cannot be brought to what the pass promises; says which node and why.
        """


GraphPass: TypeAlias = Pass[ModelProto]
"""A pass over an ONNX model."""


class Watcher(Protocol[_WatchedT]):
    """Told of each pass that ran: checks and audits (`graph.check.Check`, `coreml.audit.Audit`)."""

    def __call__(self, step: str, model: _WatchedT, /) -> None:
        """`step` is the name of the pass that has just run; `model` is the result, which must not be changed."""
        ...


def run_passes(model: ModelT, passes: Iterable[Pass[ModelT]], watch: Watcher[ModelT] | None = None) -> ModelT:
    """The model after all passes.

    Args:
        model: may be changed.
        passes: in order. Each is asked for when the one before it has run.
        watch: told of each pass after it ran.
    """
    for each in passes:
        model = each(model)
        if watch is not None:
            watch(each.name, model)
    return model
