"""Packed layouts in safetensors: AWQ's, GPTQ's and MLX's.

A weight is stored as a code, a small unsigned integer: the weight is (code - zero point) * scale, or code * scale +
offset.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights.affine import Affine
from triune.engine.weights.fields import Fields
from triune.engine.weights.huggingface.store import Store
from triune.engine.weights.pack import Inexact, make_tensor, rows_in_part
from triune.engine.weights.tensors import Bits, DenseTensor, PackedTensor, Tensor, pack_nibbles

_AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
"""The order in which AWQ packs the codes of eight columns in 32 bits: the column of each code, beginning with the code
in the lowest bits.
"""

_MAX_GROUP: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Packing:
    """How a directory's weights are packed.

    Attributes:
        layout: "awq", "gptq" or "mlx".
        bits: the bits of a code.
        group_size: the number of codes in a row that share a scale; -1 if a whole row shares one.
        zero_offset: what must be added to the stored zero points: 1 in GPTQ's first format, which stores each zero
            point minus 1; else 0.
        of_module: by the name of a module, the bits and the group size that MLX's config states for that module alone.
    """

    layout: str
    bits: int
    group_size: int
    zero_offset: int
    of_module: Mapping[str, tuple[int, int]]

    @property
    def suffix(self) -> str:
        """The ending of the names of the tensors that hold codes: ".weight" in MLX's layout, else ".qweight"."""
        return ".weight" if self.layout == "mlx" else ".qweight"


def read_packing(config: Mapping[str, object], where: str) -> Packing | None:
    """Read from config.json how the weights are packed; None if they are not packed.

    Raises:
        UnsupportedError: they are packed in a way that is not known here.
    """
    fields = Fields(config, where)
    mlx = fields.inner("quantization")
    if mlx is not None:
        return _mlx_packing(mlx, cast("dict[str, object]", config["quantization"]))
    given = fields.inner("quantization_config")
    if given is None:
        return None
    if "quant_method" not in given and "group_size" in given:
        return _mlx_packing(given, cast("dict[str, object]", config["quantization_config"]))
    layout = given.choice("quant_method", {"awq": "awq", "gptq": "gptq"})
    bits = given.whole("bits", least=2, most=8)
    if bits not in ((4,) if layout == "awq" else (2, 4, 8)):
        raise UnsupportedError(f"{given.where}: {layout} of {bits} bits is not known here")
    if layout == "awq" and (given.text("version", "gemm").lower() != "gemm" or not given.flag("zero_point", True)):
        raise UnsupportedError(f"{given.where}: AWQ is known here in version 'gemm' with zero points only")
    form = given.choice("checkpoint_format", {"gptq": "gptq", "gptq_v2": "gptq_v2", "gemm": "gemm"}, "gptq")
    return Packing(
        layout, bits, given.whole("group_size", least=-1, most=_MAX_GROUP), int(layout == "gptq" and form == "gptq"), {}
    )


def _mlx_packing(fields: Fields, values: Mapping[str, object]) -> Packing:
    fields.choice("mode", {"affine": "affine"}, "affine")
    bits, group_size = _mlx_sizes(fields)
    of_module = {
        name: _mlx_sizes(Fields(cast("dict[str, object]", given), f"{fields.where}: {name}"))
        for name, given in values.items()
        if isinstance(given, dict)
    }
    return Packing("mlx", bits, group_size, 0, of_module)


def _mlx_sizes(fields: Fields) -> tuple[int, int]:
    bits = fields.whole("bits", least=2, most=8)
    if bits == 7:
        raise UnsupportedError(f"{fields.where}: MLX of {bits} bits is not known here")
    return bits, fields.whole("group_size", most=_MAX_GROUP)


def packed_shape(store: Store, module: str, packing: Packing) -> tuple[int, int]:
    """The shape [out, in] of a packed matrix.

    Raises:
        InvalidArgumentError: the tensors that it consists of do not fit each other.
    """
    parts = {"mlx": ("weight", "scales", "biases")}.get(packing.layout, ("qweight", "qzeros", "scales"))
    missing = [f"{module}.{part}" for part in parts if f"{module}.{part}" not in store.shapes]
    if missing:
        raise InvalidArgumentError(f"{module} is packed as {packing.layout}, but {', '.join(missing)} is missing")
    shapes = [store.shapes[f"{module}.{part}"] for part in parts]
    dtypes = [store.dtypes[f"{module}.{part}"] for part in parts]
    first, second, third = shapes
    shape = (0, 0)
    if len(first) == 2:
        bits, group = _sizes(module, packing)
        in_word = 32 // bits
        if packing.layout == "mlx":
            shape = (first[0], first[1] * 32 // bits)
        elif packing.layout == "awq":
            shape = (first[1] * in_word, first[0])
        else:
            shape = (first[1], first[0] * in_word)
        rows, columns = shape
        group = columns if group == -1 else group
        groups = columns // group
        fits = {
            "mlx": [(rows, columns * bits // 32), (rows, groups), (rows, groups)],
            "awq": [(columns, rows // in_word), (groups, rows // in_word), (groups, rows)],
            "gptq": [(columns // in_word, rows), (groups, rows // in_word), (groups, rows)],
        }[packing.layout]
        is_right = columns > 0 and columns % group == 0 and [first, second, third] == fits
        if is_right and dtypes[0] in {"I32", "U32"} and dtypes[-1] in {"F16", "BF16", "F32"}:
            return shape
    described = ", ".join(
        f"{part} {dtype}{list(each)}" for part, dtype, each in zip(parts, dtypes, shapes, strict=True)
    )
    raise InvalidArgumentError(
        f"{module}: {described} are no matrix in {packing.layout}'s layout of {packing.bits} bits"
    )


def read_packed(store: Store, module: str, packing: Packing, inexact: Inexact) -> Tensor:
    """Read a packed matrix, whose shapes `packed_shape` has checked. Weights of AWQ and GPTQ are kept exactly.

    Raises:
        InvalidArgumentError: a scale is not finite, or `g_idx` does not name a group for each column.
    """
    if packing.layout == "mlx":
        parts = _mlx_parts(store, module, *_sizes(module, packing))
        shape = packed_shape(store, module, packing)
        return make_tensor(parts, shape, f"MLX {_sizes(module, packing)[0]} bits", inexact, module)
    scales = np.ascontiguousarray(_plain(store.read(f"{module}.scales")).T)
    if not np.isfinite(scales).all():
        raise InvalidArgumentError(f"{module}: a scale of its weights is not finite: the file is damaged")
    words, zeros = (store.read(f"{module}.{part}").view(np.uint32) for part in ("qweight", "qzeros"))
    if packing.layout == "awq":
        codes, zero_points = _along_columns(words, 4, _AWQ_ORDER), _along_columns(zeros, 4, _AWQ_ORDER)
    else:
        places = range(32 // packing.bits)
        codes = _along_columns(words.T, packing.bits, places).T
        zero_points = _along_columns(zeros, packing.bits, places)
    codes = np.ascontiguousarray(codes.T)
    # Compute zero points as INT16: GPTQ's first format stores each minus 1, so one that is stored as 255 is 256.
    zero_points = np.ascontiguousarray(zero_points.T).astype(np.int16) + np.int16(packing.zero_offset)
    form = f"{packing.layout.upper()} {packing.bits} bits"
    num_columns, num_groups = codes.shape[1], scales.shape[1]
    order = _group_order(store, module, num_columns, num_groups)
    if order is not None or zero_points.max(initial=0) > 255:
        # `PackedTensor` supports only groups of neighbouring columns, and zero points of one byte, so dequantize
        # the weights.
        if order is None:
            order = _in_order(num_columns, num_groups)
        weights = codes.astype(np.float32)
        weights -= zero_points[:, order]
        weights *= scales[:, order].astype(np.float32)
        return DenseTensor(weights, form)
    bits: Bits = 4 if packing.bits <= 4 and zero_points.max(initial=0) <= 15 else 8
    packed = pack_nibbles(codes) if bits == 4 else codes
    return PackedTensor(packed, bits, scales, zero_points.astype(np.uint8), num_columns // num_groups, form)


def _sizes(module: str, packing: Packing) -> tuple[int, int]:
    return packing.of_module.get(module, (packing.bits, packing.group_size))


def _group_order(store: Store, module: str, columns: int, groups: int) -> Array | None:
    """The group of each column, INT [columns], from 0 to `groups` - 1, if GPTQ has reordered the columns; None if each
    group is of neighbouring columns.
    """
    name = f"{module}.g_idx"
    if name not in store.shapes:
        return None
    order = store.read(name)
    if order.shape != (columns,) or order.dtype.kind not in "iu" or order.min() < 0 or order.max() >= groups:
        raise InvalidArgumentError(
            f"{name}: {order.dtype}{list(order.shape)} is no group of 0 to {groups - 1} for each of {columns} columns"
        )
    return None if np.array_equal(order, _in_order(columns, groups)) else order


def _in_order(columns: int, groups: int) -> Array:
    return np.arange(columns) // (columns // groups)


def _along_columns(words: Array, bits: int, order: Iterable[int]) -> Array:
    """Unpack words, UINT32 [rows, words], into the numbers of `bits` bits in them, UINT8 [rows, words * 32 / bits].

    Each word holds 32 / bits neighbouring columns. `order` has the column of each number within its word, beginning
    with the number in the lowest bits.
    """
    mask = np.uint32((1 << bits) - 1)
    numbers = np.empty((words.shape[0], words.shape[1], 32 // bits), np.uint8)
    for place, column in enumerate(order):
        numbers[:, :, column] = (words >> np.uint32(place * bits)) & mask
    return numbers.reshape(words.shape[0], -1)


def _mlx_parts(store: Store, module: str, bits: int, group: int) -> Iterator[Affine]:
    rows, words = store.shapes[f"{module}.weight"]
    step = rows_in_part(words * 32 // bits)
    for begin in range(0, rows, step):
        part = slice(begin, min(begin + step, rows))
        codes = _bit_stream(store.read(f"{module}.weight", part).view(np.uint8), bits)
        scales = _plain(store.read(f"{module}.scales", part))
        offsets = store.read(f"{module}.biases", part).astype(np.float32)
        yield Affine(codes, 4 if bits <= 4 else 8, scales, offsets, group)


def _bit_stream(stored: Array, bits: int) -> Array:
    """Unpack bytes, UINT8 [rows, bytes], into the numbers of `bits` bits that follow each other in them.

    The lowest bits come first. Returns UINT8 [rows, bytes * 8 / bits].
    """
    if bits == 8:
        return stored
    each = np.unpackbits(stored, axis=1, bitorder="little").reshape(len(stored), -1, bits)
    return np.packbits(each, axis=2, bitorder="little")[..., 0]


def _plain(scales: Array) -> Array:
    """Scales as FP16 or FP32. Those in BF16 become FP32, which represents all of them."""
    return scales if scales.dtype.name in {"float16", "float32"} else scales.astype(np.float32)
