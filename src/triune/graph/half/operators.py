"""Sets of ONNX operators by their effect on numbers, for all modules that search for values beyond fp16's range.

First come families of operators, then the sets that single modules use; the comment above a set names its module. Most
of the latter say through which operators a search from node to node continues.
"""

# Families of operators.

RESHAPES = frozenset(["Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze"])
"""Operators whose result has the elements of the operand in another shape or order."""

ORDERED_RESHAPES = RESHAPES - {"Transpose"}
"""Operators whose result has the elements of the operand in another shape, but in the same order."""

MATRIX_PRODUCTS = frozenset(["MatMul", "Gemm", "Conv", "ConvTranspose"])
DENSE_PRODUCTS = MATRIX_PRODUCTS - {"ConvTranspose"}
LAYERS = MATRIX_PRODUCTS - {"MatMul"}
COMPARISONS = frozenset(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
RANKINGS = frozenset(["ArgMax", "ArgMin", "TopK"])
EXTREMES = frozenset(["ReduceMax", "ReduceMin"])
TOTALS = frozenset(["ReduceSum", "ReduceMean"])
LIMITS = frozenset(["Max", "Min", "Clip"])
QUANTIZERS = frozenset(["QuantizeLinear", "DequantizeLinear"])
MULTIPLICATIONS = frozenset(["Mul", "Div", "PRelu"])
DIVISIONS = frozenset(["Reciprocal", "Div", "Pow"])
RECTIFIERS = frozenset(["Relu", "LeakyRelu"])
NORMALIZATIONS = frozenset(["Softmax", "LayerNormalization", "InstanceNormalization", "BatchNormalization"])

SATURATING = frozenset(["Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign"])
"""Operators whose result is finite even if the operand is infinite."""

COPIES = RESHAPES | frozenset(
    [
        *("Slice", "Split", "Expand", "Tile", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"),
        *("Trilu", "Neg", "Abs"),
    ]
)
"""Operators that copy elements of the first operand, perhaps with another sign."""

MERGES = frozenset(["Where", "Concat", "Max", "Min", "Pad", "ScatterND", "ScatterElements"])
"""Operators that copy elements of several operands."""

# Sets for the module `bounds`, which finds the interval in which results lie.

KEEP_BOUNDS = COPIES - {"Trilu", "Neg", "Abs"} | {"ReverseSequence", "TopK", "ReduceMean", "MaxPool"} | EXTREMES
"""Operators whose results lie within the bounds of the first operand."""

KEEP_BOUNDS_OR_ZERO = frozenset(["Pad", "Trilu", "AveragePool"])
"""Operators whose results are elements of their operands (`KEEP_BOUNDS`), or 0."""

# Sets for the module `propagation`, which follows numbers outside fp16's range through operators.

KEEP_SIZE = RESHAPES | frozenset(
    [
        *("Cast", "Split", "Slice", "Expand", "Tile"),
        *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Concat", "Pad", "Trilu", "Where"),
        *("DepthToSpace", "SpaceToDepth", "ReverseSequence", "TopK", "MaxPool", "AveragePool", "Resize", "GridSample"),
        *("Add", "Sub", "Max", "Min", "Clip", "Neg", "Abs", "Relu", "LeakyRelu", "PRelu", "Elu", "Gelu", "Softplus"),
        *("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "CumSum", "Floor", "Ceil", "Round", "Mod", "Sign"),
    ]
)
"""Operators whose results are about as large as their operands."""

NORMALIZE_SIZE = MATRIX_PRODUCTS | NORMALIZATIONS | {"Log"}
"""Operators whose results are of ordinary size, however large their operands are."""

FUSED_VIEWS = ORDERED_RESHAPES | {"Cast", "Expand"}
FUSED_WITH_PREVIOUS = FUSED_VIEWS | frozenset(["Reciprocal", "Div", "Mul", "Add", "Sub", "BatchNormalization"])
"""Operators that compilers fuse with a square root or a matrix product before them."""

FP32_BY_CONSTANTS = QUANTIZERS | frozenset(["LSTM", "GRU", "RNN", "If", "Loop", "Shape", "Size"])
"""Operators that compute in fp32 only if fp16 cannot represent one of their constants."""

# Sets for the module `overflow`, which finds where values leave fp16's range.

UNDO_SQUARES = frozenset(["Sqrt", "Div", "Reciprocal", "Log"])
"""Operators that, applied to squares, give results of about the size of what was squared."""

READ_DIVISORS = UNDO_SQUARES | {"Clip", "Max", "Where", "Equal"}
"""Operators that divide, or replace a divisor of 0 by another number."""

GROW_INTEGERS = frozenset(["MatMul", "Conv", "Mul", "ReduceSum", "ReduceProd", "CumSum"])
"""Operators that, applied to integers, give larger integers."""

# Sets for the module `producers`: operators that make large integers smaller, or copy values to outputs.

SHIFTS = RESHAPES | LIMITS | {"Add", "Sub"}
"""Operators whose results are about as large as the first operand, and integers if it has integers."""

SCALE_DOWN = DENSE_PRODUCTS | frozenset(
    [
        *("Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Sigmoid", "Tanh", "ReduceMean"),
        *("LayerNormalization", "BatchNormalization", "InstanceNormalization"),
    ]
)
"""Operators that, applied to large integers, give numbers within fp16's range."""

KEEP_INTEGER_SIZE = (
    SHIFTS
    | EXTREMES
    | frozenset(
        [
            *("Neg", "Abs", "Relu", "Concat", "Slice", "Split", "Gather", "Expand", "Tile", "Where", "Cast"),
            *("Floor", "Ceil", "Round", "ReduceSum", "CumSum"),
        ]
    )
)
"""Operators that, applied to large integers, give integers as large."""

COPY_TO_OUTPUT = RESHAPES | {"Cast", "Slice", "Split", "Concat", "Gather", "Expand", "Tile"}
"""Operators that copy elements of the operand to the result."""

# Sets for the modules `between` and `integer_outputs`: operators that copy values between nodes in fp32, or integers to
# outputs.

COPY_BETWEEN = COPIES | MERGES | EXTREMES | {"Relu", "Clip"}
"""Operators that copy elements of operands, perhaps with another sign or clipped."""

SCALE_INPUTS = COPY_BETWEEN | {"Mul", "Div", "Add", "Sub"}
"""Operators that copy, scale or shift a model's inputs before a node in fp32."""

COPY_INTEGERS = COPY_BETWEEN | {"Cast", "MaxPool", "TopK"}

# Sets for the module `exact`: operators that may be between a model's input and a comparison, a rounding or an ArgMax.

COPY_ELEMENTS = COPY_BETWEEN | RECTIFIERS | {"MaxPool", "TopK", "ReverseSequence"}
"""Operators that copy elements of operands, perhaps multiplied by a number or clipped."""

# Sets for the module `scaled_back`, which finds values beyond fp16's range that a later node scales down.

SCALE_WITH_OPERANDS = (
    RESHAPES
    | EXTREMES
    | frozenset(
        [
            *(
                "Add",
                "Sub",
                "Neg",
                "Abs",
                "Relu",
                "LeakyRelu",
                "Max",
                "Min",
                "Clip",
                "Where",
                "Concat",
                "Slice",
                "Split",
            ),
            *("ReduceMean", "MaxPool", "AveragePool", "Gather", "Expand", "Tile", "Pad"),
        ]
    )
)
"""Operators f for which f(s * x) is s * f(x), or nearly so: scaling the operands scales the results."""

ACCUMULATIONS = MATRIX_PRODUCTS | {"ReduceSum", "CumSum"}
PAIRS = frozenset(["Add", "Sub", "Mul"])
ELEMENTWISE_OF_INPUTS = SCALE_WITH_OPERANDS | PAIRS | {"ReduceSum", "Div", "Reciprocal", "Sqrt", "Pow"}

# Sets for the module `exact`: arithmetic whose results would be wrong if operands were rounded to fp16.

EXACT_ARITHMETIC = (
    RESHAPES
    | DENSE_PRODUCTS
    | EXTREMES
    | frozenset(
        [
            *(
                "Add",
                "Sub",
                "Mul",
                "Div",
                "Neg",
                "Abs",
                "Max",
                "Min",
                "Clip",
                "Where",
                "Pow",
                "Sqrt",
                "Reciprocal",
                "Exp",
            ),
            *("Floor", "Ceil", "Round", "Mod", "Cast", "Concat", "Slice", "Split", "Expand", "Tile", "Gather"),
            *("GatherElements", "GatherND", "Range", "CumSum", "ReduceSum", "Pad", "Trilu", "DequantizeLinear", "Sign"),
        ]
    )
)
"""Operators that compute coordinates and angles from the model's inputs and integers."""

FUNCTIONS = SATURATING | frozenset(
    [
        *("Softmax", "Exp", "Softplus", "Log", "ReduceMean", "ReduceProd", "AveragePool"),
        *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Atanh"),
    ]
)
"""Functions of one operand, and means, that may be between a model's inputs and an operator of `STEPS`."""

STEPS = frozenset(["Floor", "Ceil", "Round", "Mod"]) | RANKINGS | COMPARISONS
"""Operators whose result jumps where an operand passes an integer or another operand. So does a Cast to integers."""

# Sets for the module `near_zero`: operators on numbers near 0 that logarithms, divisions and comparisons read.

PROBABILITIES = frozenset(["Softmax", "Sigmoid", "Exp", "Softplus", "Tanh", "Erf"])
"""Operators that, applied to numbers of ordinary size, may give results near 0 or 1."""

SMALL_PRODUCTS = DENSE_PRODUCTS | {"ReduceProd"}
"""Operators that, applied to small numbers, give smaller ones."""

KEEP_SMALL = (
    COPIES
    | MERGES
    | EXTREMES
    | TOTALS
    | frozenset(
        [
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Pow",
            "Sqrt",
            "Reciprocal",
            "Clip",
            "Relu",
            "Cast",
            "TopK",
            "MaxPool",
            "CumSum",
            "Log",
        ]
    )
)
"""Operators that, applied to numbers near 0 or 1, may give results near 0."""

GUARDS = RESHAPES | {"Clip", "Max", "Add", "Where", "Gather"}
"""Operators by which models make an operand larger than 0 before they take its logarithm, as in log(Max(x, 1e-12))."""

ZERO_TESTS = frozenset(["Sign", "Ceil", "NonZero"])

# Sets for the modules `partners`, `levels`, `mask_sums` and `products`: operators that may be before or after a node
# that computes in fp32.

SCALES = RESHAPES | {"Mul", "Div", "Neg"}
SQUARE_SUMS = DENSE_PRODUCTS | {"Mul", "ReduceSum"}
MEANS = TOTALS | {"GlobalAveragePool", "AveragePool", "MatMul", "Conv"}

SCORE_ARITHMETIC = SCALES | LIMITS | {"Add", "Sub", "Where", "Cast", "Slice", "Expand"}
"""Operators that scale, mask, add and clip the scores of a Softmax."""

COORDINATE_ARITHMETIC = SCORE_ARITHMETIC | {"Concat", "Split", "Tile", "Gather"}
"""Operators that scale, add and concatenate coordinates in an image."""

SCALE_ARITHMETIC = SCALES | LIMITS | {"Where", "Equal", "Sub", "Add", "Abs", "Reciprocal"}
"""Operators that compute a quantization scale from the largest and the smallest element."""

MASK_SELECTIONS = RESHAPES | frozenset(
    [
        *("Where", "Trilu", "Slice", "Expand", "Tile", "Gather", "Concat", "Cast", "ScatterND", "Max", "Min"),
        "ScatterElements",
    ]
)
"""Operators that copy elements of operands, or give 0 or 1."""

NOT_IN_MASKS = DENSE_PRODUCTS | frozenset(
    ["ConvTranspose", "Softmax", "LSTM", "GRU", "RNN", "LayerNormalization", "If", "Loop"]
)
"""Operators that compute no attention mask: values that they compute count as scores."""

SCORES_TO_SOFTMAX = (
    RESHAPES
    | LIMITS
    | RECTIFIERS
    | frozenset(
        [
            *(
                "Add",
                "Sub",
                "Mul",
                "Div",
                "Neg",
                "Where",
                "Concat",
                "Slice",
                "Split",
                "Pad",
                "Expand",
                "Tile",
                "Gather",
            ),
            *("GatherElements", "Cast", "ReduceMax"),
        ]
    )
)
"""Operators that may stand between the product of queries and keys and the Softmax of attention."""

OVERFLOW_TOLERANT = SATURATING | COMPARISONS | {"Softmax", "Exp", "IsNaN"}
"""Operators for which an infinite operand gives (nearly) the result of a large one. For example, a Softmax of such
large scores is one-hot either way.
"""

SOFTMAX_TO_PRODUCT = RESHAPES | {"Where", "Concat", "Slice", "Split", "Expand", "Tile", "Cast", "Pad"}
"""Operators that may stand between the Softmax of attention and its product with the values."""

WEIGHT_ARITHMETIC = RESHAPES | {"DequantizeLinear", "Cast", "Concat", "Slice", "Mul", "Add", "Sub", "Gather"}
"""Operators that compute weights from constants, for instance from quantized ones."""

# Sets for the module `scores`, which moves scales from the result of a matrix product to its operands.

SCALE_THROUGH = RESHAPES | {"Slice"}
"""Operators that copy elements of the first operand, so that scaling the operand scales the result."""

POOLING_SCALE_THROUGH = EXTREMES | {"MaxPool", "AveragePool", "ReduceMean"}
"""Operators for which scaling the operand by one positive number gives the same as scaling the result."""

PRODUCT_FOLLOWERS = MATRIX_PRODUCTS | RECTIFIERS | {"Add"}
