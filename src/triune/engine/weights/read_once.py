"""A checkpoint whose tensors are read once, for several graphs of the same weights."""

from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.tensors import Tensor


class ReadOnce:
    """The tensors of a checkpoint. They stay in memory as long as this does."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._read: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint.tensor`."""
        if name not in self._read:
            self._read[name] = self._checkpoint.tensor(name)
        return self._read[name]
