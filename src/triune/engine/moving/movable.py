"""The interface of a text model whose running answers can be moved to another server and back."""

from collections.abc import AsyncGenerator, Callable
from typing import Protocol, runtime_checkable

from triune.core.units import Unit
from triune.engine.generation import Delta, Placement
from triune.engine.moving.wire import MovedAnswer


@runtime_checkable
class MovableTextModel(Protocol):
    """A `TextModel` whose answers can be moved. Used on the event loop's thread."""

    @property
    def placement(self) -> Placement:
        """Where the model runs."""
        ...

    def holds(self, request_id: str) -> bool:
        """Whether an answer with this id (`Generation.id`) is running."""
        ...

    async def export(self, request_id: str, grant: Callable[[int], object]) -> MovedAnswer:
        """Remove an answer that is under way, and return its state. Its generator ends with the reason MOVED, after all
        tokens so far.

        Args:
            request_id: the request's id.
            grant: the function that is called with the memory that the export takes, in bytes. If it raises an error,
                the answer goes on here.

        Raises:
            NotFoundError: there is no such answer.
            UnsupportedError: the answer may call tools, or the model has no key that identifies its weights
                (`weights.key`).
            UnavailableError: the answer ended meanwhile, or takes more memory than was granted.
        """
        ...

    async def move(self, request_id: str, unit: Unit) -> None:
        """Move a running answer to another unit of this model. Its generator continues.

        Raises:
            NotFoundError: there is no such answer.
            InvalidArgumentError: the model does not run on the unit.
            UnavailableError: the answer has ended meanwhile.
        """
        ...

    def set_drained(self, unit: Unit, why: str) -> int:
        """Have a unit of this model compute no new answers, unless their requests name it, and move its present ones to
        other units. An empty `why` ends that.

        Args:
            unit: the unit.
            why: the reason, for the reports of the answers that move.

        Returns:
            The number of answers that the unit computes now; those that move leave it with its next step.

        Raises:
            InvalidArgumentError: the model does not run on the unit.
            UnsupportedError: the model has no other unit that computes new answers.
        """
        ...

    def resume(self, moved: MovedAnswer) -> AsyncGenerator[Delta]:
        """Continue an answer that another server began. Yields only the text after its tokens so far; otherwise this is
        like `TextModel.generate`.

        Raises:
            InvalidArgumentError: the answer was computed with other weights, does not fit the model, or has ended.
            AlreadyExistsError: an answer with its id is under way.
            UnavailableError, InternalError: see `TextModel.generate`.
        """
        ...
