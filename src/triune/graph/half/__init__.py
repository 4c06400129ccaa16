"""Rewrite a graph for fp16, and find the nodes that must stay in fp32, so that its outputs stay those of fp32.

The largest number of fp16 is 65504, the smallest above 0 is 6e-8. Most activations lie between. Where they do not,
there are a few typical reasons, and one module finds each of them:

- `masks`: attention masks of -3.4e38, -1e9 and the like, added to the scores of a Softmax, become masks that fp16 can
  represent.
- `weights`: quantized weights whose scales fp16 cannot represent are dequantized.
- `variances`: batch normalizations whose variances are beyond fp16 are folded in fp32.
- `norms`: in a model that `graph.ane` has rewritten for the Neural Engine, normalizations divide by the largest element
  first, so that their squares stay within fp16.
- `scores`: a scale that follows a matrix product is moved to its operands, (q @ k) * s = (q * s) @ k, or into the
  weights of a layer (`scale`: reads scales from nodes; `operands`: scales operands).
- `levels`: dynamic quantization, by a scale that the model itself computes, is computed in fp32.
- `fp32_nodes`: nodes with constants that fp16 cannot represent, or with results that leave its range (squares,
  exponentials, sums), compute in fp32, and so do those that follow until the values are back within fp16.
- `states`: loops and recurrent layers carry their states in fp32.
- `scaled_back`: values beyond fp16 that a later node scales down again are computed in fp32.
- `exact`: coordinates, angles, comparisons, remainders and differences, computed from inputs and integers, for which
  the 11 bits of fp16's significand are too few, are computed in fp32.
- `cancelled`: what is computed elementwise from an input and nearly cancelled by a constant is computed in fp32, from
  the input on, if what follows magnifies the difference.
- `steps`: what lies between a Sigmoid, Tanh or Softmax and a rounding, a ranking or a comparison is computed in fp32,
  and so are fractions, `x - floor(x)`.
- `whole_numbers`: what is rounded to integers beyond 2048 is computed in fp32 since the last layer.
- `spectra`: Fourier transforms of inputs whose results are squared are computed in fp32.
- `near_zero`: small numbers that logarithms, divisions or comparisons with 0 read are computed in fp32: fp16 rounds
  numbers below 3e-8 to 0.
- `integer_outputs`: integers that are cast to floats and copied to an output are computed in fp32.

What these modules share:

- `ranges`: the ways in which values may leave fp16's range; `overflow`: the nodes at which they do (`products`: matrix
  products); `propagation`: which ranges a node passes on to its results.
- `bounds`: the interval in which a value lies (`intervals`: interval arithmetic); `constant_sizes`: the absolute values
  that constants give to elements of a value.
- `chains`: the factor that constants in a row make.
- `operators`: sets of ONNX operators by their effect on numbers.
- `producers`, `partners`: which nodes compute a value.
- `mask_sums`: finds the masks in a sum of scores and masks, for `masks`. Where that is not certain, the sum and its
  Softmax compute in fp32.
- `fit`: runs all of these in order.
"""

from triune.graph.half.fit import Fitted, fit_half, fit_halves

__all__ = ["Fitted", "fit_half", "fit_halves"]
