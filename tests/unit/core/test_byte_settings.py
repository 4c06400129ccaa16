import pytest

from triune.core.byte_settings import cache_bytes, check_byte_settings, folded_bytes
from triune.core.errors import InvalidArgumentError


def test_a_limit_is_a_number_of_bytes() -> None:
    assert folded_bytes({}) == folded_bytes({"TRIUNE_FOLDED_BYTES": " "}) == 256 << 20
    assert folded_bytes({"TRIUNE_FOLDED_BYTES": "0"}) == 0
    assert folded_bytes({"TRIUNE_FOLDED_BYTES": "1000000000"}) == 10**9


@pytest.mark.parametrize("text", ["1G", "-1", "1e9", "9" * 20, "٣"])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="TRIUNE_FOLDED_BYTES is '.*'; set it to a number of bytes"):
        folded_bytes({"TRIUNE_FOLDED_BYTES": text})
    with pytest.raises(InvalidArgumentError, match="TRIUNE_CACHE_BYTES is '.*'; set it to a number of bytes"):
        check_byte_settings({"TRIUNE_CACHE_BYTES": text})


def test_the_cache_has_a_limit() -> None:
    assert cache_bytes({}) == 32 << 30
    check_byte_settings({"TRIUNE_CACHE_BYTES": "1"})
