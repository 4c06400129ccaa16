"""Integers that become float outputs only by copies, so that their values must not change."""

import numpy as np

from support.half_cases.case import floats, half_case, noise, number

_NUMBERS = np.array([[30522, 2049, 65535, 70000]], np.int32)

GIVEN_OUT = (
    half_case("whole_numbers_cast", "y = Cast <to = 1> (x)", bound=0, x=_NUMBERS),
    half_case(
        "whole_numbers_joined",
        "f = Cast <to = 1> (x) y = Concat <axis = 1> (f, s)",
        bound=0,
        x=_NUMBERS,
        s=floats(1, 2, 3),
    ),
    half_case(
        "whole_numbers_joined_with_scores",
        "f = Cast <to = 1> (x) m = MatMul (s, w) p = Sigmoid (m) y = Concat <axis = 1> (f, p)",
        {"w": noise(3, 4)},
        bound=1e-8,
        x=_NUMBERS,
        s=floats(1, 2, 3),
    ),
    half_case(
        "whole_numbers_chosen",
        """f = Cast <to = 1> (x) r = Reshape (f, to) g = Gather <axis = 0> (r, i) t = Transpose (g)
          w = Where (b, t, none) y = Squeeze (w)""",
        {"to": np.array([4, 1]), "i": np.array([3, 1]), "b": np.array([[True, True]]), "none": number(-1)},
        bound=0,
        x=_NUMBERS,
    ),
    half_case(
        "whole_numbers_counted_from_one",
        "f = Cast <to = 1> (x) a = Add (f, one) m = Mul (a, two) y = Concat <axis = 1> (m, s)",
        {"one": number(1), "two": number(2)},
        bound=0,
        x=_NUMBERS,
        s=floats(1, 2, 3),
    ),
    half_case(
        "whole_numbers_of_a_table",
        "a = ArgMax <axis = 1> (s) g = Gather (t, a) f = Cast <to = 1> (g) y = Concat <axis = 1> (f, s)",
        {"t": np.array([7, 30522, 70000])},
        bound=0,
        s=np.eye(3, dtype=np.float32),
    ),
    half_case(
        "rounded_numbers_joined", "f = Floor (x) y = Concat <axis = 1> (f, x)", bound=1e-3, x=floats(30522.5, 2049.2)
    ),
)
