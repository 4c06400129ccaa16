"""Every operation and who raises it: the families' tables, put together."""

from triune.coreml.raising import elementwise_unary
from triune.coreml.raising.block import Families
from triune.coreml.raising.control_flow import CONTROL_FLOW

FAMILIES = Families(
    {**elementwise_unary.TABLE},
    CONTROL_FLOW,
)
