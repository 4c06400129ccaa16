"""The functions that raise all operations of MIL: the tables of all families together."""

from triune.coreml.raising import (
    constexpr,
    conv,
    elementwise_binary,
    elementwise_unary,
    image_resizing,
    linear,
    lists,
    normalization,
    pool,
    quantization,
    random,
    recurrent,
    reduction,
    sampling,
    scatter_gather,
    slices,
    suppression,
    tensor_operation,
    tensor_transformation,
)
from triune.coreml.raising.block import Families
from triune.coreml.raising.control_flow import CONTROL_FLOW

FAMILIES = Families(
    {
        **constexpr.TABLE,
        **conv.TABLE,
        **elementwise_binary.TABLE,
        **elementwise_unary.TABLE,
        **image_resizing.TABLE,
        **linear.TABLE,
        **lists.TABLE,
        **normalization.TABLE,
        **pool.TABLE,
        **quantization.TABLE,
        **random.TABLE,
        **recurrent.TABLE,
        **reduction.TABLE,
        **sampling.TABLE,
        **scatter_gather.TABLE,
        **slices.TABLE,
        **suppression.TABLE,
        **tensor_operation.TABLE,
        **tensor_transformation.TABLE,
    },
    CONTROL_FLOW,
)
