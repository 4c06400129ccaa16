"""Small graphs with intermediate results that fp16 cannot represent, although it can represent their outputs."""

from support.half_cases.case import HalfCase, chosen, joined, misses
from support.half_cases.given_out import GIVEN_OUT
from support.half_cases.guards import GUARDS
from support.half_cases.integers import INTEGERS
from support.half_cases.masks import MASKS
from support.half_cases.norms import NORMS
from support.half_cases.overflows import OVERFLOWS
from support.half_cases.places import PLACES
from support.half_cases.products import PRODUCTS
from support.half_cases.quantized import QUANTIZED
from support.half_cases.scaled import SCALED
from support.half_cases.scores import SCORES
from support.half_cases.small import SMALL
from support.half_cases.sources import of_fp16
from support.half_cases.states import STATES

__all__ = ["CASES", "SOURCES", "HalfCase", "chosen", "joined", "misses", "of_fp16"]

CASES = (
    *GUARDS,
    *NORMS,
    *OVERFLOWS,
    *INTEGERS,
    *QUANTIZED,
    *SCORES,
    *SCALED,
    *PLACES,
    *SMALL,
    *PRODUCTS,
    *GIVEN_OUT,
    *MASKS,
    *STATES,
)

SOURCES = of_fp16((*GUARDS, *NORMS, *SCORES, *SCALED, *MASKS))
"""Of those that mean something in fp16: as sources in it, and what is right."""
