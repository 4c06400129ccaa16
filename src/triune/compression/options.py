"""The options of a compression."""

from dataclasses import dataclass
from enum import Enum

from triune.core.errors import InvalidArgumentError

GROUPS = (32, 64, 128)
"""Numbers of weights with a common scale for which runtimes have fast kernels."""


class WeightForm(Enum):
    """The form in which weights are stored."""

    INT8 = "int8"
    INT4 = "int4"
    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"
    PALETTE = "palette"
    SPARSE = "sparse"


class Method(Enum):
    """How the integers of quantized weights are chosen."""

    NEAREST = "nearest"
    """Each weight is rounded to the nearest level."""
    GPTQ = "gptq"
    """Weights are rounded one after the other, and those still to be rounded make up for the errors so far (`gptq`)."""
    AWQ = "awq"
    """Before weights are rounded, those of input channels with large activations are scaled up, and the activations of
    these channels are scaled down (`awq`).
    """
    AWQ_GPTQ = "awq-gptq"
    """`AWQ`, and then `GPTQ` on the scaled weights."""
    SMOOTHQUANT = "smoothquant"
    """For 8-bit activations: channels with large activations are scaled down before rounding, and the weights of these
    channels are scaled up (`smooth`).
    """
    BEST = "best"
    """Try every other method that applies to the form, and keep the result that agrees best with the source."""

    @property
    def is_awq(self) -> bool:
        """Whether AWQ scales the inputs of products."""
        return self in (Method.AWQ, Method.AWQ_GPTQ)

    @property
    def is_gptq(self) -> bool:
        """Whether GPTQ rounds the weights."""
        return self in (Method.GPTQ, Method.AWQ_GPTQ)


class Per(Enum):
    """How many weights share a scale or a palette: all of a tensor, or those of an output channel."""

    TENSOR = "tensor"
    CHANNEL = "channel"


class Activations(Enum):
    """How activations are quantized."""

    INT8 = "int8"
    """Activations are quantized to 8 bits in ranges that calibration found, by QuantizeLinear and DequantizeLinear."""
    DYNAMIC = "dynamic"
    """Activations are quantized to 8 bits in the range that they have in each run, by DynamicQuantizeLinear and
    MatMulInteger. This is done for products of matrices only.
    """


class Calibration(Enum):
    """How the range of an activation is found."""

    MINMAX = "minmax"
    """The smallest and the largest value that occurred."""
    PERCENTILE = "percentile"
    """A range that leaves out one value of 100,000."""
    ENTROPY = "entropy"
    """The range whose quantized distribution is nearest to the real one, by the Kullback-Leibler divergence."""


_INTEGERS = (WeightForm.INT4, WeightForm.INT8)


@dataclass(frozen=True, slots=True)
class Options:
    """A form of weights and activations.

    Attributes:
        weights: the form of weights.
        per: whether a tensor or each output channel has a scale. With palettes: whether a tensor or each group of
            `group` output channels has a palette.
        group: the number of weights along the input channels that share a scale. With palettes: the number of output
            channels that share a palette. None for no groups.
        is_symmetric: whether an integer q stands for scale * q, without a zero point.
        bits: the bits of an index into a palette.
        sparsity: the fraction of weights that become 0; None for none.
        n_m: (n, m): of each m weights in a row along the input channels, n stay; None for no such pattern.
        activations: how activations are quantized; None for not at all.
        calibration: how the ranges of activations are found.
        method: how levels are found for integers.
    """

    weights: WeightForm
    per: Per = Per.CHANNEL
    group: int | None = None
    is_symmetric: bool = True
    bits: int = 4
    sparsity: float | None = None
    n_m: tuple[int, int] | None = None
    activations: Activations | None = None
    calibration: Calibration = Calibration.MINMAX
    method: Method = Method.NEAREST

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InvalidArgumentError(f"a palette's index has {self.bits} bits (--bits); it may have 1 to 8")
        if self.group is not None and self.group not in GROUPS and self.weights is not WeightForm.PALETTE:
            raise InvalidArgumentError(f"groups of {self.group} weights (--group): choose 32, 64 or 128")
        if self.group is not None and self.group < 1:
            raise InvalidArgumentError(f"a group of {self.group} channels (--group) has none; give 1 or more")
        if self.group is not None and self.per is Per.TENSOR:
            raise InvalidArgumentError("one scale for a tensor (--per tensor) has no groups: leave --group out")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise InvalidArgumentError(f"a sparsity of {self.sparsity} (--sparsity): give a share between 0 and 1")
        if self.sparsity is not None and self.n_m is not None:
            raise InvalidArgumentError("zeros come by a share (--sparsity) or by a pattern (--n-m), not by both")
        if self.n_m is not None and not 0 < self.n_m[0] < self.n_m[1]:
            raise InvalidArgumentError(f"the pattern {self.n_m[0]}:{self.n_m[1]} (--n-m): n of each m stay, 0 < n < m")
        if self.weights is WeightForm.SPARSE and self.sparsity is None and self.n_m is None:
            raise InvalidArgumentError("sparse weights need a share of zeros (--sparsity 0.5) or a pattern (--n-m 2:4)")
        if self.weights is WeightForm.SPARSE and self.group is not None:
            raise InvalidArgumentError("sparse weights have no groups: leave --group out")
        if self.weights is WeightForm.FP32:
            raise InvalidArgumentError("weights in fp32 (--weights) have nothing to compress: choose a smaller form")
        if self.is_float and (self.group is not None or self.has_zeros or self.activations is not None):
            raise InvalidArgumentError(
                f"weights in {self.weights.value} have no scales and no zeros: leave --group, --sparsity, --n-m and "
                "--activations out"
            )
        if self.method is not Method.NEAREST and (self.weights not in _INTEGERS or self.has_zeros):
            raise InvalidArgumentError(
                f"--method {self.method.value} finds levels of integers: give --weights int8 or int4, without zeros"
            )
        if (self.method is Method.SMOOTHQUANT) and self.activations is None:
            raise InvalidArgumentError(
                "--method smoothquant makes room for activations in 8 bits: give --activations int8 or dynamic with it"
            )
        if (self.method.is_gptq or self.method.is_awq) and self.activations is Activations.INT8:
            raise InvalidArgumentError(
                f"--method {self.method.value} finds levels of weights alone; with --activations int8 ONNX Runtime's "
                "quantizer finds them: give --method smoothquant, or leave it out"
            )
        if self.method is not Method.NEAREST and self.per is Per.TENSOR:
            raise InvalidArgumentError(
                f"--method {self.method.value} takes a scale for each channel or group: leave --per tensor out"
            )
        if self.weights is WeightForm.PALETTE and self.has_zeros:
            raise InvalidArgumentError(
                "a palette has no exact 0: leave --sparsity and --n-m out, or give --weights int8 or int4 with them"
            )
        if self.activations is not None and (self.weights is not WeightForm.INT8 or self.group is not None):
            raise InvalidArgumentError(
                "activations of 8 bits (--activations) are multiplied with weights of 8 bits without groups: give "
                "--weights int8, and leave --group out"
            )
        if self.activations is not None and not self.is_symmetric:
            raise InvalidArgumentError(
                "with activations of 8 bits (--activations) weights have no zero point: leave --asymmetric out"
            )

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods to try: one, or for BEST all that apply, the simplest first."""
        if self.method is not Method.BEST:
            return (self.method,)
        match self.activations:
            case None:
                return Method.NEAREST, Method.GPTQ, Method.AWQ, Method.AWQ_GPTQ
            case Activations.INT8:
                return Method.NEAREST, Method.SMOOTHQUANT
            case Activations.DYNAMIC:
                return Method.NEAREST, Method.GPTQ, Method.SMOOTHQUANT

    @property
    def is_float(self) -> bool:
        """Whether weights stay floats: FP32, FP16 or BF16."""
        return self.weights in (WeightForm.FP16, WeightForm.BF16, WeightForm.FP32)

    @property
    def has_zeros(self) -> bool:
        """Whether the form sets some weights to 0."""
        return self.sparsity is not None or self.n_m is not None

    @property
    def described(self) -> str:
        """The form in words, such as "int4, groups of 32, symmetric"."""
        words = [self.weights.value]
        if self.weights is WeightForm.PALETTE:
            words.append(f"{self.bits} bits")
            words.append(f"one for each {self.group} channels" if self.group else "one for a tensor")
        elif self.weights in _INTEGERS:
            words.append(f"groups of {self.group}" if self.group else f"a scale for each {self.per.value}")
            words.append("symmetric" if self.is_symmetric else "asymmetric")
        if self.method not in (Method.NEAREST, Method.BEST):
            words.append(f"by {self.method.value}")
        if self.sparsity is not None:
            words.append(f"{self.sparsity:.0%} zeros")
        if self.n_m is not None:
            words.append(f"{self.n_m[0]} of {self.n_m[1]} stay")
        if self.activations is Activations.INT8:
            words.append(f"activations int8 by {self.calibration.value}")
        elif self.activations is Activations.DYNAMIC:
            words.append("activations int8, in the range of each run")
        return ", ".join(words)
