"""scaled_dot_product_attention, against coremltools' own values."""

from typing import Any

import numpy as np
import pytest

from support.mil_programs import mb, run

SHAPE = (2, 3, 5, 4)


@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("is_dynamic", [True, False])
def test_attention(mask: str | None, is_dynamic: bool) -> None:
    generator = np.random.default_rng(1)
    query, key, value = (generator.normal(size=(2, 3, length, 4)).astype(np.float32) for length in (5, 6, 6))
    chosen = generator.random((5, 6)) > 0.4
    chosen[:, 0] = True
    more: dict[str, Any] = {}
    if mask == "bool":
        more["attn_mask"] = chosen
    elif mask == "float":
        more["attn_mask"] = generator.normal(size=(2, 1, 5, 6)).astype(np.float32)
    inputs = {"query": query, "key": key, "value": value}
    expected: list[Any] = []

    def build(given: Any) -> Any:
        expected.append(mb.scaled_dot_product_attention(**inputs, **more).val)
        return mb.scaled_dot_product_attention(query=given.query, key=given.key, value=given.value, **more)

    (output,) = run(build, inputs, "iOS18", is_dynamic=is_dynamic)
    np.testing.assert_allclose(output, expected[0], atol=1e-6)


def test_attention_in_fp16_stays_in_range() -> None:
    x = np.full((1, 4, 64), 60, np.float16)
    (output,) = run(
        lambda given: mb.scaled_dot_product_attention(query=given.x, key=given.x, value=given.x), {"x": x}, "iOS18"
    )
    np.testing.assert_array_equal(output, x)
