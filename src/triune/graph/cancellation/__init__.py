"""Find sums that cancel: for some values of an input, the two terms are nearly equal with opposite signs, so that the
rounding error of a term is as large as their sum.

- `curve`: samples of a value, each element of which is a function of one input element.
- `elementwise`: the curves that arithmetic and functions make; `layout`: those that reorder elements.
- `search`: follows inputs through a graph, and narrows the numbers to those where a sum is 0.
- `folded`: layers whose bias cancels a mean of their operand.
"""

from triune.graph.cancellation.curve import Curve
from triune.graph.cancellation.folded import FoldedMean, folded_means
from triune.graph.cancellation.search import cancelling_curves, first_elements

__all__ = ["Curve", "FoldedMean", "cancelling_curves", "first_elements", "folded_means"]
