"""Cases: recurrent networks, quantized activations, compressed weights, random numbers, lists, branches and loops."""

from typing import Any

import numpy as np

from contract.coreml.cases import Case, alike, inferred, known, uniform
from contract.coreml.elementwise import X
from support.mil_programs import mb, mil_types

_STEPS = uniform(4, 2, 3)
_HIDDEN = 2


def _recurrent(kind: str, gates: int, **parameters: Any) -> Case:
    both = 2 if parameters.get("direction") == "bidirectional" else 1
    weights = {
        "weight_ih": uniform(gates * _HIDDEN, 3, seed=1),
        "weight_hh": uniform(gates * _HIDDEN, _HIDDEN, seed=2),
        "bias": uniform(gates * _HIDDEN, seed=3),
    }
    if both == 2:
        weights |= {f"{name}_back": values[::-1].copy() for name, values in weights.items()}
    states = {"initial_h": uniform(2, both * _HIDDEN, seed=4)}
    if kind == "lstm":
        states["initial_c"] = uniform(2, both * _HIDDEN, seed=5)

    def build(v: Any) -> Any:
        return getattr(mb, kind)(x=v.x, **{name: getattr(v, name) for name in states}, **weights, **parameters)

    name = " ".join([kind, *(str(value) for value in parameters.values() if not isinstance(value, np.ndarray))])
    return alike(name, build, tolerance=1e-4, x=_STEPS, **states)


def _const(values: Any, dtype: Any) -> Any:
    """A constant of a type that numpy has not."""
    return np.array(values).astype(mil_types.nptype_from_builtin(dtype))


_RECURRENT = [
    *(
        _recurrent(kind, gates, direction=direction, output_sequence=is_whole)
        for kind, gates in {"rnn": 1, "gru": 3, "lstm": 4}.items()
        for direction in ("forward", "reverse")
        for is_whole in (True, False)
    ),
    _recurrent("lstm", 4, direction="bidirectional", output_sequence=True),
    _recurrent("lstm", 4, direction="bidirectional"),
    _recurrent("lstm", 4, peephole=uniform(3 * _HIDDEN, seed=6)),
    _recurrent("lstm", 4, clip=np.float32(0.3), output_sequence=True),
    _recurrent("lstm", 4, recurrent_activation="hard_sigmoid", cell_activation="relu", activation="scaled_tanh"),
    _recurrent("gru", 3, recurrent_activation="tanh", activation="sigmoid"),
    _recurrent("gru", 3, reset_after=True, input_bias=uniform(3 * _HIDDEN, seed=7), output_sequence=True),
    _recurrent("rnn", 1, activation="relu"),
]

_QUANTIZED = [
    inferred(
        "quantize",
        lambda v: mb.cast(
            x=mb.quantize(
                input=v.x,
                zero_point=np.array([3, -5], np.int8),
                scale=np.array([0.1, 0.01], np.float32),
                axis=0,
                output_dtype="int8",
            ),
            dtype="int32",
        ),
        x=X,
    ),
    known(
        "dequantize",
        lambda v: mb.dequantize(
            input=mb.quantize(input=v.x, scale=np.float32(0.5), zero_point=np.uint8(4), output_dtype="uint8"),
            scale=np.float32(0.5),
            zero_point=np.uint8(4),
        ),
        # 0.25 lies between two levels and goes to the even one; -3 and 200 are out of reach.
        [0, 1, -2, 125.5],
        x=np.array([0.25, 1, -3, 200], np.float32),
    ),
]

_COMPRESSED = [
    known(
        "affine weights",
        lambda v: mb.add(
            x=v.x,
            y=mb.constexpr_affine_dequantize(
                quantized_data=np.array([[10, 11], [5, 15]], np.uint8),
                zero_point=np.array([10, 5], np.uint8),
                scale=np.array([2.0, 0.5], np.float32),
                axis=0,
            ),
        ),
        [[0, 2], [0, 5]],
        target="iOS16",
        x=np.zeros((2, 2), np.float32),
    ),
    known(
        "a palette of 2 bits, packed",
        lambda v: mb.add(
            x=v.x,
            y=mb.constexpr_lut_to_dense(
                indices=np.array([0b11100100, 0b00000001], np.uint8),
                lut=np.array([0, 10, 20, 30], np.float32),
                shape=np.array([5], np.uint32),
            ),
        ),
        [0, 10, 20, 30, 10],
        target="iOS16",
        x=np.zeros(5, np.float32),
    ),
    known(
        "sparse weights, packed",
        lambda v: mb.add(
            x=v.x,
            y=mb.constexpr_sparse_to_dense(
                nonzero_data=np.array([3.0, 5.0], np.float32),
                mask=np.array([0b00001010], np.uint8),
                shape=np.array([5], np.uint32),
            ),
        ),
        [0, 3, 0, 5, 0],
        target="iOS16",
        x=np.zeros(5, np.float32),
    ),
    known(
        "int4 weights in blocks",
        lambda v: mb.add(
            x=v.x,
            y=mb.constexpr_blockwise_shift_scale(
                data=_const([[-8, 7, 1, 2]], mil_types.int4),
                scale=np.array([[1.0, 0.5]], np.float32),
                offset=_const([[1, 2]], mil_types.int4),
            ),
        ),
        [[-9, 6, -0.5, 0]],
        x=np.zeros((1, 4), np.float32),
    ),
    known(
        "a palette of vectors",
        lambda v: mb.add(
            x=v.x,
            y=mb.constexpr_lut_to_dense(
                indices=_const([[0, 1], [1, 0]], mil_types.uint1),
                lut=np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 2, 2),
                vector_axis=0,
            ),
        ),
        [[1, 3], [2, 4], [3, 1], [4, 2]],
        x=np.zeros((4, 2), np.float32),
    ),
    known(
        "a sparse palette, then whole",
        lambda v: mb.add(x=v.x, y=_sparse_palette()),
        [[7, 0], [0, 9]],
        x=np.zeros((2, 2), np.float32),
    ),
]


def _sparse_palette() -> Any:
    mask, data = mb.constexpr_lut_to_sparse(
        indices_mask=_const([[1, 0], [0, 1]], mil_types.uint1),
        indices_nonzero_data=_const([0, 1], mil_types.uint1),
        lut=np.array([7, 9], np.float32).reshape(1, 1, 2, 1),
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=data, mask=mask)


def _doubled_until(limit: int) -> Any:
    def build(v: Any) -> Any:
        return mb.while_loop(
            _cond=lambda i, _: mb.less(x=i, y=limit),
            _body=lambda i, x: (mb.add(x=i, y=1), mb.mul(x=x, y=2.0)),
            loop_vars=(mb.squeeze(x=v.i), v.x),
        )

    return build


def _listed(v: Any) -> Any:
    ls = mb.make_list(init_length=1, elem_shape=(2,), dtype="fp32", dynamic_length=True)
    ls = mb.list_write(ls=ls, index=0, value=v.x)
    ls = mb.list_write(ls=ls, index=1, value=mb.mul(x=v.x, y=2.0))
    ls = mb.list_scatter(ls=ls, indices=[2, 3], value=mb.stack(values=[v.x, v.x], axis=0))
    return mb.list_gather(ls=ls, indices=[1, 3]), mb.list_read(ls=ls, index=0), mb.list_length(ls=ls)


_FLOWING = [
    known(
        "a loop that ends at once",
        _doubled_until(0),
        5,
        [1.0, 3.0],
        i=np.array([5], np.int32),
        x=np.array([1, 3], np.float32),
    ),
    known("a loop", _doubled_until(8), 8, [8.0, 24.0], i=np.array([5], np.int32), x=np.array([1, 3], np.float32)),
    *(
        known(
            f"a branch, {is_taken}",
            lambda v: mb.cond(
                pred=mb.squeeze(x=mb.cast(x=v.p, dtype="bool")),
                _true_fn=lambda: mb.add(x=v.x, y=1.0),
                _false_fn=lambda: mb.mul(x=v.x, y=-1.0),
            ),
            [answer],
            p=np.array([is_taken], np.int32),
            x=np.array([3], np.float32),
        )
        for is_taken, answer in ((1, 4), (0, -3))
    ),
    known("a list", _listed, [[2, 6], [1, 3]], [1, 3], 4, x=np.array([1, 3], np.float32)),
]

CASES = [*_RECURRENT, *_QUANTIZED, *_COMPRESSED, *_FLOWING]
