"""Tasks that outlive their callers."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from triune.core.errors import TriuneError

_T = TypeVar("_T")


class Tasks:
    """Runs operations on models. An operation goes on if its caller is cancelled, so that no model is left in an
    intermediate state.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start `work` as a task. `end` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Wait for `work`. It goes on if the caller is cancelled."""
        return await asyncio.shield(self.begin(work))

    async def end(self) -> None:
        """Wait until all tasks have ended, including those that are begun meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TriuneError):
            # Log any error except a TriuneError: it is a defect in Triune. A TriuneError is in the model's record.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a model operation failed", "exception": error}
            )
