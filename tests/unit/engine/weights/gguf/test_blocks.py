import gguf
import numpy as np
import pytest

from triune.engine.weights.gguf.blocks import BLOCKS
from triune.engine.weights.gguf.forms import FORMS

_FORMS = {form.name: form for form in FORMS.values()}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("seed", range(3))
def test_random_blocks_are_decoded_bit_by_bit_as_ggml_does(name: str, seed: int) -> None:
    form = _FORMS[name]
    rng = np.random.default_rng(seed)
    # Any bytes are a block; scales may be NaN, infinite or subnormal.
    rows = rng.integers(0, 256, (64, 3 * form.block_bytes), np.uint8)
    with np.errstate(all="ignore"):
        affine = BLOCKS[name].affine(rows, form.block_bytes)
        weights = affine.dequantize()
        truth = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[name])
    assert weights.shape == (64, 3 * form.block_size)
    # The bits of a NaN are no part of the format.
    assert np.array_equal(np.isnan(weights), np.isnan(truth))
    assert np.where(np.isnan(truth), 0, weights).tobytes() == np.where(np.isnan(truth), 0, truth).tobytes()


@pytest.mark.parametrize("name", BLOCKS)
def test_codes_fit_the_bits(name: str) -> None:
    form, blocks = _FORMS[name], BLOCKS[name]
    rows = np.random.default_rng(7).integers(0, 256, (512, form.block_bytes), np.uint8)
    affine = blocks.affine(rows, form.block_bytes)
    assert affine.codes.dtype == (np.int8 if affine.offsets is None else np.uint8)
    low, high = (
        (-(1 << blocks.bits - 1), (1 << blocks.bits - 1) - 1) if affine.offsets is None else (0, (1 << blocks.bits) - 1)
    )
    assert low <= affine.codes.min()
    assert affine.codes.max() <= high
    if blocks.bits == 8:
        assert affine.codes.max() > 15 or affine.codes.min() < -8


def test_sizes_are_those_of_ggml() -> None:
    theirs = {kind.name: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    # Q8_1 is a form of computations, which no file has.
    ours = {form.name: (form.block_size, form.block_bytes) for form in FORMS.values()}
    assert {name: sizes for name, sizes in theirs.items() if name != "Q8_1"} == {
        name: sizes for name, sizes in ours.items() if name != "Q8_1"
    }
    assert all(gguf.GGMLQuantizationType[form.name] == number for number, form in FORMS.items())
