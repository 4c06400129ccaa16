"""Reads a tensor of a GGUF file. A dense tensor is a view of the file; the blocks of a packed one are unpacked."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import UnsupportedError
from triune.engine.weights.affine import Affine
from triune.engine.weights.gguf.blocks import BLOCKS, Blocks
from triune.engine.weights.gguf.file import GgufFile
from triune.engine.weights.gguf.forms import Form
from triune.engine.weights.pack import Inexact, make_tensor, rows_in_part
from triune.engine.weights.tensors import DenseTensor, Tensor

_DENSE: Final[Mapping[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def read_tensor(file: GgufFile, name: str, inexact: Inexact, rows: Array | slice = slice(None)) -> Tensor:
    """Read a tensor, or only its rows `rows` in this order. The rows of a vector are its elements. `inexact` says how
    packed weights are converted (`Inexact`).

    Raises:
        UnsupportedError: its form is not one that Triune decodes.
        InvalidArgumentError: see `make_tensor`.
    """
    place = file.places[name]
    stored = file.rows(name)
    where = f"{file.name}: {name}"
    if (dtype := _DENSE.get(place.form.name)) is not None:
        return DenseTensor(stored.view(dtype).reshape(place.shape)[rows], place.form.name)
    blocks = BLOCKS.get(place.form.name)
    if blocks is None:
        known = ", ".join([*_DENSE, *BLOCKS])
        raise UnsupportedError(f"{where}: weights in the form {place.form.name} are not read; those in {known} are")
    if len(place.shape) == 2:
        stored = stored[rows]
    elif not isinstance(rows, slice):
        raise UnsupportedError(f"{where}: a packed tensor of {len(place.shape)} dimensions whose rows are in an order")
    shape = (len(stored), *place.shape[1:]) if len(place.shape) == 2 else place.shape
    return make_tensor(_parts(stored, blocks, place.form), shape, place.form.name, inexact, where)


def _parts(stored: Array, blocks: Blocks, form: Form) -> Iterator[Affine]:
    step = rows_in_part(stored.shape[1] // form.block_bytes * form.block_size)
    for begin in range(0, len(stored), step):
        yield blocks.affine(stored[begin : begin + step], form.block_bytes)
