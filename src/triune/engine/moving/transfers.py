"""Exports and imports running answers of one engine, by their ids."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from triune.core.decoder import DecoderExecutable
from triune.core.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.printable import printable
from triune.core.units import Unit
from triune.engine.group import Group
from triune.engine.moving.wire import MovedAnswer
from triune.engine.replicas.replicas import Replicas
from triune.engine.tools.reasoning import REASONING_MARKERS

_MORE_TOKENS: Final = 64
"""At most this many tokens may be generated between the request for an export and the copy of the keys and values."""


@dataclass(frozen=True, slots=True)
class Movable:
    """What an engine must know to move its answers to other servers.

    Attributes:
        weights_key: identifies the model's weights (`weights.key`).
        token_bytes: the bytes of the keys and values of a token in FP32.
    """

    weights_key: bytes
    token_bytes: int

    @classmethod
    def of(cls, weights_key: bytes, decoder: DecoderExecutable) -> "Movable":
        """Make a Movable whose `token_bytes` are those of one token's keys and values in the decoder's cache."""
        return cls(weights_key, sum(each.nbytes for each in decoder.read_tokens([0], 1)))


class Transfers:
    """Moves running answers of one engine to other servers and back. Used on the event loop's thread."""

    def __init__(self, name: str, movable: Movable | None, replicas: Replicas) -> None:
        """Args:
        name: the model's name.
        movable: the data that are needed to move answers to another server; None if no answer may be moved.
        replicas: the replicas that compute the answers.
        """
        self._name = name
        self._movable = movable
        self._replicas = replicas
        self._adapters = replicas.all[0].core.adapters
        self._groups: dict[str, Group] = {}

    def holds(self, request_id: str) -> bool:
        """Whether an answer with this id is running: see `MovableTextModel.holds`."""
        return request_id in self._groups

    def add(self, group: Group) -> None:
        """Register a request by its id, if it has an id and one answer. Raises AlreadyExistsError if the id is in
        use.
        """
        name = group.request.id
        if not name or len(group.answers) > 1:
            return
        if name in self._groups:
            raise AlreadyExistsError(
                f"an answer '{printable(name[:64])}' is under way; a second one cannot have its id"
            )
        self._groups[name] = group

    def remove(self, group: Group) -> None:
        """Remove a request that has ended from those whose answers can be moved."""
        if self._groups.get(group.request.id) is group:
            del self._groups[group.request.id]

    async def export(self, request_id: str, grant: Callable[[int], object]) -> MovedAnswer:
        """Remove a running answer, and return its state: see `MovableTextModel.export`."""
        group, shown = self._group(request_id), printable(request_id[:64])
        (answer,), request = group.answers, group.request
        movable = self._movable
        may_call = bool(request.shown_specials - REASONING_MARKERS)
        if may_call or movable is None:
            why = "it may call tools" if may_call else "the model's weights have no key"
            raise UnsupportedError(f"answer '{shown}' cannot be moved, since {why}")
        max_tokens = len(answer.job.prompt) + answer.num_tokens + _MORE_TOKENS
        # Ask for twice the memory: for the keys and values, and for the bytes to which they are encoded.
        grant(2 * max_tokens * movable.token_bytes)
        state = await self._replicas.of(answer.job).thread.export(answer.job, max_tokens=max_tokens)
        if answer.finish_reason is not None:
            raise UnavailableError(f"answer '{shown}' ended while it was being moved")
        answer.move()
        group.tell()
        digest = self._adapters[state.adapter] if state.adapter is not None else b""
        return MovedAnswer(self._name, movable.weights_key, digest, request, state)

    async def move(self, request_id: str, unit: Unit) -> None:
        """Move a running answer to another unit: see `MovableTextModel.move`."""
        (answer,) = self._group(request_id).answers
        await self._replicas.moves.move(answer.job, self._replicas.on(unit), "asked", "it was asked for")

    def _group(self, request_id: str) -> Group:
        group = self._groups.get(request_id)
        if group is None:
            raise NotFoundError(f"model '{self._name}' has no answer '{printable(request_id[:64])}' under way")
        return group

    def check(self, moved: MovedAnswer) -> None:
        """Check that an answer was computed with this model's weights, and with one of its LoRA adapters.

        Raises:
            InvalidArgumentError: the answer was computed with other weights or another adapter.
        """
        key = self._movable.weights_key if self._movable is not None else b""
        if moved.weights != key or not key:
            raise InvalidArgumentError(
                f"the sequence is of weights {moved.weights.hex()[:32]}, and model '{self._name}' has "
                f"{key.hex() or 'none with a key'}: import it where the same files are served"
            )
        name = moved.state.adapter
        if name is not None and self._adapters.get(name) != moved.adapter:
            raise InvalidArgumentError(
                f"the sequence is of LoRA adapter '{printable(name[:128])}', which model '{self._name}' does not have "
                "with the same weights: load the same files"
            )
