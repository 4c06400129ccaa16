"""Bodies that arrive in pieces."""

import numpy as np
import pytest

from triune.frontends.bodies.arriving import ArrivingBody


@pytest.mark.parametrize("sizes", [[], [5], [0, 7, 0], [1 << 20], [1 << 20, 1], [300_000] * 30, [3 << 20, 2]])
def test_the_whole_is_all_pieces(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    pieces = [rng.bytes(size) for size in sizes]
    body = ArrivingBody(sum(sizes) + 10)
    for piece in pieces:
        body.add(piece)
    assert body.num_bytes == sum(sizes)
    assert bytes(body.whole()) == b"".join(pieces)


def test_what_has_arrived_is_not_moved_again() -> None:
    body = ArrivingBody(1 << 30)
    body.add(bytes(2 << 20))
    where = np.frombuffer(body.whole(), np.uint8).ctypes.data
    for _ in range(100):
        body.add(bytes(1 << 18))
    assert np.frombuffer(body.whole(), np.uint8).ctypes.data == where
