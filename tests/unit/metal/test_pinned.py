"""Page-locked memory for results. Ordinary memory stands for it here."""

import ctypes
from typing import Any

import numpy as np
import pytest

from triune.metal.pinned import LEAST_BYTES, PinnedMemory, block_size

FLOAT = np.dtype(np.float32)
ONE = (LEAST_BYTES // 4,)


class Locking:
    """Allocates, as long as it may, and knows what is not freed."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.num = 0
        self.may = True

    def allocate(self, num_bytes: int) -> int | None:
        if not self.may:
            return None
        self.num += 1
        block = ctypes.create_string_buffer(num_bytes)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.blocks[address]


def given(memory: PinnedMemory, shape: tuple[int, ...] = ONE) -> np.ndarray:
    array = memory.array(shape, FLOAT)
    assert array is not None
    array[:] = 7
    return array


def test_memory_is_reused_when_the_array_and_its_views_are_gone() -> None:
    locking = Locking()
    memory = PinnedMemory(locking, 10 * LEAST_BYTES)
    first = given(memory)
    assert first.shape == ONE
    assert first.dtype == FLOAT
    assert first.ctypes.data in locking.blocks
    row = np.asarray(first[3:5], FLOAT).reshape(1, 2)
    del first
    second = given(memory)
    assert locking.num == 2
    second[:] = 9
    assert row.tolist() == [[7, 7]]
    del row, second
    kept = [given(memory), given(memory)]
    assert locking.num == 2
    assert memory.num_bytes == 2 * LEAST_BYTES
    assert len({each.ctypes.data for each in kept}) == 2


def test_arrays_of_other_types_and_shapes_use_it_again() -> None:
    locking = Locking()
    memory = PinnedMemory(locking, 10 * LEAST_BYTES)
    del_me = given(memory, (3, LEAST_BYTES // 8))
    del del_me
    # Six parts of 2^14 elements and a little less need a block of the same size.
    again = memory.array((LEAST_BYTES * 3 // 2 - 100,), np.dtype(np.int8))
    assert again is not None
    assert locking.num == 1


def test_small_results_and_those_beyond_the_limit_are_not_locked() -> None:
    locking = Locking()
    memory = PinnedMemory(locking, 2 * LEAST_BYTES)
    assert memory.array((LEAST_BYTES // 4 - 1,), FLOAT) is None
    assert memory.array((0, 8), FLOAT) is None
    assert memory.array((LEAST_BYTES,), FLOAT) is None
    kept = [given(memory), given(memory)]
    assert memory.array(ONE, FLOAT) is None
    kept.pop()
    kept.append(given(memory))
    assert locking.num == 2


def test_blocks_of_other_sizes_make_room() -> None:
    locking = Locking()
    memory = PinnedMemory(locking, 4 * LEAST_BYTES)
    kept = [given(memory) for _ in range(4)]
    held = kept.pop()
    del kept
    large = given(memory, (2 * ONE[0],))
    # Two of the three idle blocks are freed.
    assert {held.ctypes.data, large.ctypes.data} < set(locking.blocks)
    assert len(locking.blocks) == 3
    assert memory.num_bytes == 4 * LEAST_BYTES


def test_without_memory_to_lock_there_is_no_array() -> None:
    locking = Locking()
    locking.may = False
    memory = PinnedMemory(locking, 10 * LEAST_BYTES)
    assert memory.array(ONE, FLOAT) is None
    assert memory.num_bytes == 0
    locking.may = True
    assert given(memory).sum() == 7 * ONE[0]


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 65536, 65537, 12_582_912, 12_582_913, (1 << 28) - 1])
def test_a_block_is_at_most_a_quarter_larger(num_bytes: int) -> None:
    assert num_bytes <= block_size(num_bytes) <= num_bytes * 1.25


def test_few_sizes_of_blocks_occur() -> None:
    assert len({block_size(number) for number in range(1 << 16, 1 << 20, 999)}) == 17
