"""What counts of batches that begin before a window of measurement, or end after it."""

from triune.arbiter.window import Window


def test_a_batch_counts_for_the_time_that_lies_in_the_window() -> None:
    window = Window()
    window.began()
    window.began()
    window.close(100.0, num_starts=2)
    assert window.overlap_ns(60.0, 130.0) == 40
    assert window.overlap_ns(110.0, 130.0) == 0
    assert not window.is_over
    # Number 3 began after the end, and is not awaited.
    window.began()
    window.ended(3)
    window.ended(1)
    assert not window.is_over
    window.ended(2)
    assert window.is_over
    window.reopen(130.0)
    assert not window.is_closed
    assert window.overlap_ns(110.0, 150.0) == 20
