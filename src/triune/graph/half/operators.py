"""Sets of ONNX operators by their effect on numbers, for all modules that search for values beyond fp16.

First come families of operators, then the sets that single modules use; the comment above these names the module. Sets
of the second kind tell through which operators a search continues.
"""

# Families.

RESHAPES = frozenset(["Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze"])
"""The results are the elements of the operand in another shape or order."""

ORDERED_RESHAPES = RESHAPES - {"Transpose"}
"""The results are the elements of the operand in the same order."""

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
"""The result of an infinite operand is finite."""

COPIES = RESHAPES | frozenset(
    [
        *("Slice", "Split", "Expand", "Tile", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"),
        *("Trilu", "Neg", "Abs"),
    ]
)
"""The results are elements of the first operand, or these with another sign."""

MERGES = frozenset(["Where", "Concat", "Max", "Min", "Pad", "ScatterND", "ScatterElements"])
"""The results are elements of several operands."""

# `bounds`: the interval in which the results lie.

KEEP_BOUNDS = COPIES - {"Trilu", "Neg", "Abs"} | {"ReverseSequence", "TopK", "ReduceMean", "MaxPool"} | EXTREMES
"""The results lie within the bounds of the first operand."""

KEEP_BOUNDS_OR_ZERO = frozenset(["Pad", "Trilu", "AveragePool"])
"""Operators whose results are elements of their operands (`KEEP_BOUNDS`), or 0."""

# `rules`: what becomes of numbers beyond fp16.

KEEP_SIZE = RESHAPES | frozenset(
    [
        *("Cast", "Split", "Slice", "Expand", "Tile"),
        *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Concat", "Pad", "Trilu", "Where"),
        *("DepthToSpace", "SpaceToDepth", "ReverseSequence", "TopK", "MaxPool", "AveragePool", "Resize", "GridSample"),
        *("Add", "Sub", "Max", "Min", "Clip", "Neg", "Abs", "Relu", "LeakyRelu", "PRelu", "Elu", "Gelu", "Softplus"),
        *("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "CumSum", "Floor", "Ceil", "Round", "Mod", "Sign"),
    ]
)
"""The results are about as large as the operands."""

NORMALIZE_SIZE = MATRIX_PRODUCTS | NORMALIZATIONS | {"Log"}
"""The results are of ordinary size whatever the size of the operands."""

FUSED_VIEWS = ORDERED_RESHAPES | {"Cast", "Expand"}
FUSED_WITH_PREVIOUS = FUSED_VIEWS | frozenset(["Reciprocal", "Div", "Mul", "Add", "Sub", "BatchNormalization"])
"""Compilers fuse them with a root or a matrix product before them."""

FP32_BY_CONSTANTS = QUANTIZERS | frozenset(["LSTM", "GRU", "RNN", "If", "Loop", "Shape", "Size"])
"""Only constants that fp16 does not hold keep them in fp32."""

# `made`: where numbers beyond fp16 begin.

UNDO_SQUARES = frozenset(["Sqrt", "Div", "Reciprocal", "Log"])
"""The results of squares are about as large as what was squared."""

READ_DIVISORS = UNDO_SQUARES | {"Clip", "Max", "Where", "Equal"}
"""They divide, or keep a divisor from 0 before it divides."""

GROW_INTEGERS = frozenset(["MatMul", "Conv", "Mul", "ReduceSum", "ReduceProd", "CumSum"])
"""The results of whole numbers are larger whole numbers."""

# `producers`: what whole numbers and outputs are made of.

SHIFTS = RESHAPES | LIMITS | {"Add", "Sub"}
"""The results are about as large as the first operand, and whole numbers where it is."""

SCALE_DOWN = DENSE_PRODUCTS | frozenset(
    [
        *("Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Sigmoid", "Tanh", "ReduceMean"),
        *("LayerNormalization", "BatchNormalization", "InstanceNormalization"),
    ]
)
"""The results of large whole numbers are numbers that fp16 holds."""

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
"""The results of large whole numbers are as large."""

COPY_TO_OUTPUT = RESHAPES | {"Cast", "Slice", "Split", "Concat", "Gather", "Expand", "Tile"}
"""The elements of the operand are elements of the output that follows."""

# `between` and `given_out`: copies between nodes in fp32, and of whole numbers to outputs.

COPY_BETWEEN = COPIES | MERGES | EXTREMES | {"Relu", "Clip"}
"""The results are elements of the operands, or these with another sign or within limits."""

COPY_INTEGERS = COPY_BETWEEN | {"Cast", "MaxPool", "TopK"}

# `exact`: what stands between a model's input and a comparison, a rounding or the place of the largest number.

COPY_ELEMENTS = COPY_BETWEEN | RECTIFIERS | {"MaxPool", "TopK", "ReverseSequence"}
"""Operators whose results are elements of their operands, some perhaps multiplied by a number or limited."""

# `back`: numbers beyond fp16 that are scaled back.

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
"""The results are scaled by what scales the operands, or nearly so."""

ACCUMULATIONS = MATRIX_PRODUCTS | {"ReduceSum", "CumSum"}
PAIRS = frozenset(["Add", "Sub", "Mul"])
ELEMENTWISE_OF_INPUTS = SCALE_WITH_OPERANDS | PAIRS | {"ReduceSum", "Div", "Reciprocal", "Sqrt", "Pow"}

# `exact`: arithmetic that rounding to fp16 would falsify.

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
            *("GatherElements", "GatherND", "Range", "CumSum", "ReduceSum", "Pad", "Trilu", "DequantizeLinear"),
        ]
    )
)
"""They compute coordinates and angles from the model's inputs and whole numbers."""

# `small`: numbers near 0 that logarithms, divisions and comparisons read.

PROBABILITIES = frozenset(["Softmax", "Sigmoid", "Exp", "Softplus", "Tanh", "Erf"])
"""The results of ordinary numbers may be near 0, or near 1."""

SMALL_PRODUCTS = DENSE_PRODUCTS | {"ReduceProd"}
"""The results of small numbers are smaller ones."""

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
"""The results of numbers near 0 or 1 may be near 0."""

GUARDS = RESHAPES | {"Clip", "Max", "Add", "Where", "Gather"}
"""They keep a number from 0 before its logarithm is taken."""

ZERO_TESTS = frozenset(["Sign", "Ceil", "NonZero"])

# `partners`, `levels`, `masks` and `products`: what stands before or after a node that computes in fp32.

SCALES = RESHAPES | {"Mul", "Div", "Neg"}
SQUARE_SUMS = DENSE_PRODUCTS | {"Mul", "ReduceSum"}
MEANS = TOTALS | {"GlobalAveragePool", "AveragePool", "MatMul", "Conv"}

SCORE_ARITHMETIC = SCALES | LIMITS | {"Add", "Sub", "Where", "Cast", "Slice", "Expand"}
"""They scale, mask, add up and limit the scores of a Softmax."""

COORDINATE_ARITHMETIC = SCORE_ARITHMETIC | {"Concat", "Split", "Tile", "Gather"}
"""They scale, add up and join coordinates in an image."""

SCALE_ARITHMETIC = SCALES | LIMITS | {"Where", "Equal", "Sub", "Add", "Abs", "Reciprocal"}
"""They make a quantization scale of the largest and the smallest number."""

MASK_SELECTIONS = RESHAPES | frozenset(
    [
        *("Where", "Trilu", "Slice", "Expand", "Tile", "Gather", "Concat", "Cast", "ScatterND", "Max", "Min"),
        "ScatterElements",
    ]
)
"""The results are elements of the operands, or 0 and 1."""

NOT_IN_MASKS = DENSE_PRODUCTS | frozenset(
    ["ConvTranspose", "Softmax", "LSTM", "GRU", "RNN", "LayerNormalization", "If", "Loop"]
)
"""No mask is made by them: what they make are scores."""

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
"""They stand between the product of queries and keys and the Softmax."""

OVERFLOW_TOLERANT = SATURATING | COMPARISONS | {"Softmax", "Exp", "IsNaN"}
"""An infinite operand does no more than a large one, or ends in a Softmax, which tells nothing of such scores."""

SHARES_TO_VALUES = RESHAPES | {"Where", "Concat", "Slice", "Split", "Expand", "Tile", "Cast", "Pad"}
"""They stand between a Softmax and the product with the values that it weighs."""

WEIGHT_ARITHMETIC = RESHAPES | {"DequantizeLinear", "Cast", "Concat", "Slice", "Mul", "Add", "Sub", "Gather"}
"""They make weights of constants."""

# `scores`: scales that are moved before a product.

SCALE_THROUGH = RESHAPES | {"Slice"}
"""The results are elements of the first operand: to scale either is the same."""

POOLING_SCALE_THROUGH = EXTREMES | {"MaxPool", "AveragePool", "ReduceMean"}
"""The same of a scale above 0 that is one number."""

PRODUCT_FOLLOWERS = MATRIX_PRODUCTS | RECTIFIERS | {"Add"}
