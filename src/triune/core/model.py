"""A model that is loaded and runs without a server: one notion for ONNX models, Core ML and Core AI programs."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.state import State


class Model(ABC):
    """One function of a model, ready to run. Close it, or use it as a context manager, to free it.

    `run` and `predict` are one method in two spellings: ONNX Runtime's, which may choose outputs, and Core ML's. Calls
    may come from several threads; those on one state take turns.

    Attributes:
        name: what messages call it: its file's name.
        function: which of its functions; "main" for models that have no others.
        output_names: what it computes, in its order.
    """

    def __init__(self, name: str, function: str, output_names: Sequence[str]) -> None:
        """Of a subclass that is about to be ready."""
        self.name: Final = name
        self.function: Final = function
        self.output_names: Final = tuple(output_names)
        self._is_closed = False

    def run(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, *, state: State | None = None
    ) -> dict[str, Any]:
        """Compute.

        Args:
            inputs: by name: arrays, or numbers, texts and lists of them where nothing is lost by making arrays of them;
                images as Pillow's, or as arrays.
            outputs: which of the outputs; all if None or empty.
            state: from `make_state`, which a model with states needs, and any may have; the call changes it.

        Returns:
            The outputs by name: arrays; of a Core ML classifier its label, and the probabilities by label.

        Raises:
            InvalidArgumentError: an input is missing, unknown or not what the model takes, an output is unknown, or a
                state is missing or another model's.
            UnavailableError: the model is closed.
        """
        if self._is_closed:
            raise UnavailableError(f"the model '{self.name}' is closed; load it again")
        if not outputs:
            return self._compute(inputs, self.output_names, state)
        strange = sorted(set(outputs) - set(self.output_names))
        if strange:
            raise InvalidArgumentError(f"the model has no output '{strange[0]}'; it has {', '.join(self.output_names)}")
        found = self._compute(inputs, outputs, state)
        return {name: found[name] for name in outputs}

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """As `run`, for those who come from Core ML: all outputs, and the state in the second place."""
        return self.run(inputs, state=state)

    def predict_batch(self, requests: Sequence[Mapping[str, Any]], state: State | None = None) -> list[dict[str, Any]]:
        """Compute several requests, one after the other."""
        return [self.run(inputs, state=state) for inputs in requests]

    async def predict_async(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """As `predict`, in another thread."""
        return await asyncio.to_thread(self.predict, inputs, state)

    @abstractmethod
    def make_state(self) -> State:
        """New buffers of zeros for the model's states; none if it has no states."""

    def close(self) -> None:
        """Free it. No call is under way. To close it again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._is_closed else ""
        return f"<Model '{self.name}' {self._place()}{closed}: {self._interface()}>"

    @abstractmethod
    def _compute(self, inputs: Mapping[str, Any], outputs: Sequence[str], state: State | None) -> dict[str, Any]:
        """The outputs, those that are named among them. Raises as `run`."""

    @abstractmethod
    def _free(self) -> None:
        """Free what computes. Called once."""

    @abstractmethod
    def _place(self) -> str:
        """What computes it, for `repr`: "on cpu (fp32)"."""

    @abstractmethod
    def _interface(self) -> str:
        """What it takes and gives, for `repr`: "x: FP32[2,4] -> y: FP32[2,4]"."""


def needs_state(names: Sequence[str]) -> InvalidArgumentError:
    """The error that a model with states was called without one."""
    return InvalidArgumentError(f"the model has states {list(names)}: give state=model.make_state()")
