"""Changes to a graph that is to compute in fp16, so that its outputs stay those of fp32.

The largest number of fp16 is 65504, the smallest above 0 is 6e-8. Most activations lie between. Where they do not, one
of a few reasons applies, and a module finds each of them:

- `masks`: masks of -3.4e38 and their like, added to the scores of a Softmax, become masks that fp16 holds.
- `weights`: packed weights whose scales fp16 does not hold are unpacked.
- `variances`: batch normalizations whose variances are beyond fp16 are folded in fp32.
- `norms`: in the layout of the Neural Engine normalizations are written so that they stay within fp16.
- `scores`: matrix products that are scaled down afterwards are scaled before, layers by their weights (`scale`: what a
  scale is; `operands`: scales operands).
- `levels`: numbers that are quantized by a scale which the model itself computes.
- `fp32_nodes`: constants that fp16 does not hold, and operators whose results leave its range: squares, exponentials,
  sums. These nodes, and those that follow until the values are back within fp16, are to compute in fp32.
- `scaled_back`: numbers beyond fp16 that a later node scales down again are computed in fp32.
- `exact`: coordinates, angles, comparisons, remainders and differences of inputs and of whole numbers.
- `near_zero`: small numbers whose size matters: logarithms, divisions and comparisons with 0 read them.
- `integer_outputs`: whole numbers that become outputs of floats by copies.

These modules use:

- `ranges`: the ways in which values may leave fp16; `overflow`: the nodes at which they do (`products`: the matrix
  products); `propagation`: what the nodes after it do to them.
- `bounds`: the interval in which a value lies (`intervals`: interval arithmetic); `constant_sizes`: how large constants
make a value.
- `operators`: sets of ONNX operators by their effect on numbers.
- `producers`, `partners`: which nodes compute a value.
- `mask_sums`: sums of scores and masks, for `masks`. A sum that it does not know is computed in fp32, with its Softmax.
- `fit`: runs all of these in order.
"""

from triune.graph.half.fit import Fitted, fit_half, fit_halves

__all__ = ["Fitted", "fit_half", "fit_halves"]
