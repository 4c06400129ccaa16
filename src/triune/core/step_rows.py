"""Unpacks a step's tokens to rows of one length, one row for each sequence, and finds the cache slots of their keys and
values.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import DecoderStep

ROW_NAMES: Final = frozenset({"token_rows", "token_places", "token_counts", "block_table"})
"""The names of the arrays that `rows_of` gives."""


def rows_of(step: DecoderStep) -> dict[str, NDArray[np.int64]]:
    """Make the inputs of graphs that unpack the tokens of each sequence to a row.

    Returns:
        `token_rows` INT64 [sequences, longest], the packed token at each position of a row, and 0 beyond the end of the
            row's sequence; `token_places` INT64 [tokens], the position of each token in the flattened `token_rows`;
            `token_counts` INT64 [sequences], the number of tokens in each row; `block_table` INT64 [sequences, most
            blocks], the blocks of each sequence, and 0 beyond its last one.
    """
    rows, is_token = _rows(step.subsequence_begins)
    places, is_block = _rows(step.block_indices_begins)
    return {
        "token_rows": rows,
        "token_places": np.flatnonzero(is_token),
        "token_counts": is_token.sum(axis=1),
        "block_table": np.where(is_block, step.block_indices[places], 0).astype(np.int64),
    }


def slots_of(step: DecoderStep, block_size: int) -> NDArray[np.int64]:
    """The cache slots to which the keys and values of a step's tokens are written: INT64 [tokens], in tokens from the
    beginning of the cache's first block.
    """
    new = np.diff(step.subsequence_begins)
    within = np.arange(len(step.input_ids)) - np.repeat(step.subsequence_begins[:-1], new)
    positions = np.repeat(step.past_lengths, new) + within
    blocks = step.block_indices[np.repeat(step.block_indices_begins[:-1], new) + positions // block_size]
    return blocks.astype(np.int64) * block_size + positions % block_size


def _rows(begins: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Unpack packed parts, which begin at `begins`, to rows of the longest part's length.

    Returns:
        INT64 [parts, longest], the packed index of each position, 0 beyond the end of a part; and BOOL [parts,
        longest], whether the position is inside its part.

    """
    counts = np.diff(begins)
    steps: NDArray[np.int64] = np.arange(int(counts.max()), dtype=np.int64)
    is_inside: NDArray[np.bool_] = steps < counts[:, np.newaxis]
    return np.where(is_inside, begins[:-1, np.newaxis] + steps, 0), is_inside
