"""Tell which parts of a checkpoint's files no graph reads."""

from collections.abc import Sequence
from typing import Final

from triune.engine.weights.agree import BERT_HEADS
from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.config import BertConfig
from triune.engine.weights.huggingface.checkpoint import HuggingFaceCheckpoint

_OF_PRETRAINING: Final = (
    "the heads that predict masked words and next sentences, which are not built: the outputs are the encoder's"
)
_OF_PICTURES: Final = "the part for pictures, which is not built: the graph reads texts"


def left_out(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What the files of a checkpoint have beyond the graph: a sentence for each part; empty if the graph is all of
    it. Copies of other tensors, and tables that the graph computes, do not count.
    """
    found: list[tuple[Sequence[str], str]] = []
    if isinstance(checkpoint.config, BertConfig):
        found.append(([name for name in checkpoint.names if name.startswith(BERT_HEADS)], _OF_PRETRAINING))
    if isinstance(checkpoint, HuggingFaceCheckpoint):
        found.append((checkpoint.names_of_pictures, _OF_PICTURES))
    return tuple(f"tensors such as {names[0]} are left out: {part}" for names, part in found if names)
