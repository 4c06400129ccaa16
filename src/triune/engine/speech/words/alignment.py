"""Find the frames of sound in which each token of a text is spoken, from cross-attention (openai/whisper, `timing.py`).

Some heads of Whisper's decoder attend to the sound of the next token. Their weights are smoothed. Dynamic time warping
then finds the best path through the weights that goes forward in both text and sound.
"""

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

_FILTER_FRAMES: Final = 7
"""Each attention weight is replaced by the median over this many neighbouring frames."""


def first_frames(scores: NDArray[np.float32], num_frames: int) -> NDArray[np.int64]:
    """The frame in which each token begins.

    Args:
        scores: FP32 [heads, rows, frames], the cross-attention scores. Row N belongs to the decoder's input token that
            predicts token N.
        num_frames: the number of frames with sound; later frames are silence, with which the window is padded.

    Returns:
        INT64 [rows], ascending.
    """
    weights = _softmax(scores[:, :, :num_frames])
    spread = weights.std(axis=1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return _begins(_median(weights).mean(axis=0))


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _median(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median of [heads, tokens, frames] over neighbouring frames. Beyond the ends, frames are mirrored; if there
    are too few frames for that, the numbers stay unchanged.
    """
    beside = _FILTER_FRAMES // 2
    if x.shape[-1] <= beside:
        return x
    mirrored = np.pad(x, ((0, 0), (0, 0), (beside, beside)), mode="reflect")
    return np.sort(sliding_window_view(mirrored, _FILTER_FRAMES, axis=-1), axis=-1)[..., beside]


def _begins(weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first column of each row on the path of the largest sum through [rows, columns], from the first corner to the
    last, by steps to the next row, the next column, or both.
    """
    rows, columns = weights.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0
    # The step by which the path reaches each cell: 0 from the previous row and column, 1 from the previous row, 2 from
    # the previous column.
    came = np.zeros((rows, columns), np.int8)
    for diagonal in range(rows + columns - 1):
        first, last = max(0, diagonal - columns + 1), min(rows - 1, diagonal)
        row = np.arange(first, last + 1, dtype=np.int64)
        column: NDArray[np.int64] = diagonal - row
        ways = np.stack([cost[row, column], cost[row, column + 1], cost[row + 1, column]])
        both = (ways[0] < ways[1]) & (ways[0] < ways[2])
        way = np.where(both, 0, np.where((ways[1] < ways[0]) & (ways[1] < ways[2]), 1, 2))
        came[row, column] = way
        cost[row + 1, column + 1] = ways[way, np.arange(last - first + 1)] - weights[row, column]
    begins = np.zeros(rows, np.int64)
    at, frame = rows - 1, columns - 1
    while at or frame:
        begins[at] = frame
        way = 2 if not at else 1 if not frame else int(came[at, frame])
        at -= way != 2
        frame -= way != 1
    begins[0] = 0
    return begins
