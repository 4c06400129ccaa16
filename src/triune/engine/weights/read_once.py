"""A checkpoint whose tensors are read once, for several graphs of the same weights."""

from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.tensors import Tensor


class ReadOnce:
    """The tensors of a checkpoint. Those that were read stay in memory as long as this object does."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._read: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        """The tensor `name`, as `Checkpoint.tensor` gives it. Only the first call reads it."""
        if name not in self._read:
            self._read[name] = self._checkpoint.tensor(name)
        return self._read[name]
