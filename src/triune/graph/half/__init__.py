"""What is done to a graph that is to compute in fp16, so that it gives what it gave in fp32.

fp16 holds numbers up to 65504, and none between 0 and 6e-8. Most activations are within that; what is not has a few
reasons, each of which a module finds:

- `masks`: masks of -3.4e38 and their like, added to the scores of a Softmax, become masks that fp16 holds.
- `weights`: packed weights whose scales fp16 does not hold are made whole.
- `variances`: batch normalizations whose variances are beyond fp16 are folded in fp32.
- `norms`: in the layout of the Neural Engine norms are written such that they stay within fp16.
- `scores`: products of matrices that are scaled down afterwards are scaled before, layers by their weights (`scale` is
  what scales are, `operands` scales what products read).
- `levels`: numbers quantized by a scale that is made when the model runs.
- `wide`: constants that fp16 does not hold, and operators whose results leave its range: squares, exponentials, sums.
  These nodes, and those that follow until the values are back within fp16, are to compute in fp32.
- `back`: what is beyond fp16 until it is scaled back by far, or halved, is to compute in fp32.
- `exact`: places, angles, comparisons, remainders and differences of inputs and of whole numbers.
- `small`: numbers of which it counts how small they are: those that logarithms, divisions and comparisons with 0 read.
- `given_out`: whole numbers that the graph gives out, as floats, by copies.

What these ask:

- `ranges`: the ways in which values may be beyond fp16; `rules`: what operators do to them; `made`: where they begin;
  `products`: the same of products of matrices.
- `bounds`: the interval in which a value lies (`intervals`: its arithmetic); `reach`: how large constants make it.
- `operators`: ONNX's operators by what they do to numbers.
- `makers`, `partners`: which nodes make a value.
- `mask_sums`: sums of scores and masks, for `masks`. A sum that it does not know is computed in fp32, with its Softmax.
- `fit`: all of it in order.
"""

from triune.graph.half.fit import Fitted, fit_half, fit_halves

__all__ = ["Fitted", "fit_half", "fit_halves"]
