"""How many bytes arrays take."""

import numpy as np
import pytest

from triune.core.sizes import BYTES_ELEMENT_BYTES, array_bytes, content_bytes


@pytest.mark.parametrize("elements", [[], [b""], [b"one", b"", b"three"], ["one", "three"]], ids=repr)
def test_objects_are_counted_by_number_and_contents_by_length(elements: list[bytes | str]) -> None:
    array = np.array(elements, object)
    assert array_bytes(array) == len(elements) * (8 + BYTES_ELEMENT_BYTES)
    assert content_bytes(array) == sum(map(len, elements))


def test_numbers_have_no_contents() -> None:
    array = np.zeros((3, 5), np.float16)
    assert (array_bytes(array), content_bytes(array)) == (30, 0)


def test_a_view_is_counted_as_an_array_of_its_elements() -> None:
    array = np.array([[b"a", b"bc"], [b"def", b"ghij"]], object)[:, 1]
    assert (array_bytes(array), content_bytes(array)) == (2 * (8 + BYTES_ELEMENT_BYTES), 6)


def test_what_has_no_length_is_left_to_the_encoder() -> None:
    assert content_bytes(np.array([b"one", None], object)) == 0
