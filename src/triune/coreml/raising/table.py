"""Every operation and who raises it: the families' tables, put together."""

from triune.coreml.raising import (
    conv,
    elementwise_binary,
    elementwise_unary,
    linear,
    normalization,
    pool,
    recurrent,
    reduction,
    scatter_gather,
    slices,
    tensor_operation,
    tensor_transformation,
)
from triune.coreml.raising.block import Families
from triune.coreml.raising.control_flow import CONTROL_FLOW

FAMILIES = Families(
    {
        **conv.TABLE,
        **elementwise_binary.TABLE,
        **elementwise_unary.TABLE,
        **linear.TABLE,
        **normalization.TABLE,
        **pool.TABLE,
        **recurrent.TABLE,
        **reduction.TABLE,
        **scatter_gather.TABLE,
        **slices.TABLE,
        **tensor_operation.TABLE,
        **tensor_transformation.TABLE,
    },
    CONTROL_FLOW,
)
