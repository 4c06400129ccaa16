"""How far the outputs of a compressed model are from those of its source."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InternalError

_SUM_ERROR = 1e-2
"""The largest difference from 1 of the sum of a row that counts as probabilities: a softmax in fp16 rounds."""


def percent(share: float) -> str:
    """A share in percent; only 1 is "100.00%", what is nearly 1 has four digits: "99.9990%"."""
    return f"{min(share, 0.999999):.4%}" if 0.9999 < share < 1 else f"{share:.2%}"


@dataclass(frozen=True, slots=True)
class OutputAccuracy:
    """The difference of one output, over all samples.

    Attributes:
        name: the name of the output.
        largest: the largest absolute value of the source.
        largest_error: the largest absolute difference.
        mean_error: the mean absolute difference.
        sqnr_db: 10 log10(sum x^2 / sum (x - y)^2), x the source; infinite if nothing differs.
        cosine: the mean cosine similarity of the rows along the last axis; 1 for integers that are equal.
        top1: the fraction of rows along the last axis whose largest element is at the same index; None if the last axis
            has one element.
        equal: the fraction of equal elements of integers and booleans; None for floats.
        is_classes: whether the rows are probabilities of classes, for which only the index of the largest element
            matters.
        is_finite: whether the result has no NaN and no infinity where the source has none.
        num_elements: the number of elements.
        num_compared: the number of elements that are finite in the source.
    """

    name: str
    largest: float
    largest_error: float
    mean_error: float
    sqnr_db: float
    cosine: float
    top1: float | None
    equal: float | None
    is_classes: bool
    is_finite: bool
    num_elements: int
    num_compared: int

    @property
    def agreement(self) -> float:
        """How far the output agrees, 0 to 1: `equal` for integers and booleans, `top1` for probabilities of classes,
        else `cosine`; 0 if the output has NaN or infinities that the source lacks, or the source has nothing else.
        """
        if not self.is_finite or self.num_elements > self.num_compared == 0:
            return 0.0
        if self.equal is not None:
            return self.equal
        return self.top1 if self.is_classes and self.top1 is not None else self.cosine

    @property
    def measure(self) -> str:
        """The name of the measure that `agreement` uses."""
        if self.equal is not None:
            return "equal elements"
        return "top-1" if self.is_classes else "cosine"


@dataclass(frozen=True, slots=True)
class TextAccuracy:
    """How far the predictions of a decoder are from those of its source, on a text.

    Attributes:
        num_tokens: the number of predicted tokens.
        perplexity_before: the perplexity of the source, exp(-mean log p(token)).
        perplexity: the perplexity of the result.
        top1: the fraction of positions at which both have the same most probable token.
        divergence: the mean Kullback-Leibler divergence of the result's probabilities from the source's, in nats.
        is_finite: whether no logit is NaN or infinite.
    """

    num_tokens: int
    perplexity_before: float
    perplexity: float
    top1: float
    divergence: float
    is_finite: bool

    @property
    def agreement(self) -> float:
        """exp(-divergence), or 0 if a logit is NaN or infinite.

        On text that the source generates, it is the geometric mean over the tokens of p / q: p is the probability that
        the result gives to a token, q the one that the source gives to it. Perplexity on a given text is not used,
        since it may fall although the model has become worse.
        """
        if not self.is_finite or not math.isfinite(self.divergence):
            return 0.0
        return math.exp(-self.divergence)


class Accuracy:
    """Adds up the differences of each output over samples."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}

    def add(self, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> None:
        """Compare the outputs for one sample.

        Raises:
            InternalError: an actual output has another shape than the expected one.
        """
        for name, array in expected.items():
            other = actual[name]
            if array.shape != other.shape and array.size != 1:
                raise InternalError(
                    f"output '{name}' is of shape {list(other.shape)} after the compression, {list(array.shape)} before"
                )
            self._sums.setdefault(name, _Sums()).add(array, other.reshape(array.shape))

    def outputs(self) -> Sequence[OutputAccuracy]:
        """The accuracy of each output."""
        return [each.result(name) for name, each in self._sums.items()]


class _Sums:
    def __init__(self) -> None:
        self.signal = self.noise = self.errors = self.cosines = 0.0
        self.largest = self.largest_error = 0.0
        self.num_elements = self.num_compared = self.num_rows = self.num_same_top = self.num_equal = 0
        self.is_float = False
        self.is_finite = self.is_classes = True
        self.has_rows = False

    def add(self, one: Array, other: Array) -> None:
        if one.dtype.kind not in "biufV":
            self.num_elements += one.size
            self.num_compared += one.size
            self.num_equal += int(np.count_nonzero(one == other))
            self.is_classes = False
            return
        self.is_float = one.dtype.kind in "fV"
        same = np.count_nonzero((one == other) | ((one != one) & (other != other)))
        x, y = one.astype(np.float64), other.astype(np.float64)
        known = np.isfinite(x)
        self.is_finite = self.is_finite and bool(np.isfinite(y[known]).all())
        x, y = np.where(known, x, 0.0), np.where(known & np.isfinite(y), y, 0.0)
        difference = np.abs(x - y)
        self.num_elements += one.size
        self.num_compared += int(np.count_nonzero(known))
        self.num_equal += int(same)
        self.signal += float(np.sum(x * x))
        self.noise += float(np.sum(difference * difference))
        self.errors += float(np.sum(difference))
        self.largest = max(self.largest, float(np.max(np.abs(x), initial=0.0)))
        self.largest_error = max(self.largest_error, float(np.max(difference, initial=0.0)))
        self._add_rows(x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1), y)

    def _add_rows(self, rows: Array, other: Array) -> None:
        others = other.reshape(rows.shape)
        self.num_rows += len(rows)
        products = np.sum(rows * others, axis=1)
        sizes = np.sqrt(np.sum(rows * rows, axis=1) * np.sum(others * others, axis=1))
        alike = (rows == others).all(axis=1)
        cosines = np.where(alike, 1.0, products / np.where(sizes > 0, sizes, 1.0))
        self.cosines += float(np.sum(np.clip(cosines, -1.0, 1.0)))
        if rows.shape[1] > 1:
            self.has_rows = True
            self.num_same_top += int(np.count_nonzero(np.argmax(rows, axis=1) == np.argmax(others, axis=1)))
        is_share = rows.shape[1] > 1 and bool((rows >= 0).all())
        self.is_classes = self.is_classes and is_share and bool((np.abs(rows.sum(axis=1) - 1) < _SUM_ERROR).all())

    def result(self, name: str) -> OutputAccuracy:
        count, rows = max(self.num_elements, 1), max(self.num_rows, 1)
        if self.noise:
            sqnr = float(10 * np.log10(self.signal / self.noise)) if self.signal else float("-inf")
        else:
            sqnr = float("inf")
        return OutputAccuracy(
            name=name,
            largest=self.largest,
            largest_error=self.largest_error,
            mean_error=self.errors / count,
            sqnr_db=sqnr,
            cosine=self.cosines / rows if self.num_rows else 1.0,
            top1=self.num_same_top / rows if self.has_rows else None,
            equal=None if self.is_float else self.num_equal / count,
            is_classes=self.is_classes and self.is_float,
            is_finite=self.is_finite,
            num_elements=self.num_elements,
            num_compared=self.num_compared,
        )
