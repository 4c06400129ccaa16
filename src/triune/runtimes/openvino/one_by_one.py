"""Steps with reproducible results: a token's logits do not depend on the other tokens of the step.

OpenVINO sums in another order if a product has one row, or if a sequence has one new token in attention. So the last
bits of a token's logits would depend on the other tokens. Therefore each token becomes a separate sequence, which reads
the blocks of the sequence that it belongs to, and no product has a single row. All keys and values of a step are
written before any is read. Then a row's sums do not depend on the other rows (measured, not promised by OpenVINO;
`tests/unit/runtimes/openvino/test_reproducible.py` tries it).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import DecoderStep


def one_token_each(step: DecoderStep, block_size: int) -> DecoderStep:
    """Rewrite a step to sequences of one token each. The result has at least two tokens, and at least two rows of
    logits if there are any. If necessary, the last token is repeated, which writes the same numbers to the same
    position.

    Args:
        step: the step.
        block_size: the number of tokens in a block.
    """
    counts = np.diff(step.subsequence_begins)
    of_token = np.repeat(np.arange(len(counts)), counts)
    if len(of_token) == 1:
        of_token = np.repeat(of_token, 2)
    places = np.minimum(np.arange(len(of_token)), len(step.input_ids) - 1)
    pasts = step.past_lengths[of_token] + places - step.subsequence_begins[of_token]
    num_blocks = pasts // block_size + 1
    ends = np.cumsum(num_blocks)
    within: NDArray[np.int64] = np.arange(int(ends[-1])) - np.repeat(ends - num_blocks, num_blocks)
    blocks = step.block_indices[np.repeat(step.block_indices_begins[of_token], num_blocks) + within]
    rows = step.logits_indices
    return replace(
        step,
        input_ids=step.input_ids[places],
        position_ids=step.position_ids[places],
        past_lengths=pasts.astype(np.int32),
        subsequence_begins=np.arange(len(of_token) + 1, dtype=np.int32),
        block_indices=blocks.astype(np.int32),
        block_indices_begins=np.concatenate([[0], ends]).astype(np.int32),
        logits_indices=np.repeat(rows, 2) if len(rows) == 1 else rows,
        memory={name: each[of_token] for name, each in step.memory.items()},
        adapters=None if step.adapters is None else step.adapters[places],
    )
