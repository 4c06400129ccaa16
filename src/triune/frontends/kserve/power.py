"""Read the power mode of one request from an HTTP header or gRPC's metadata."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from triune.core.power import POWER_PARAMETER
from triune.core.requests import InferenceRequest

HEADER: Final = "triune-power-mode"
"""The name of the HTTP header and of the entry in gRPC's metadata."""

HEADER_BYTES: Final = HEADER.encode()


def in_mode(request: InferenceRequest, mode: str | bytes | None) -> InferenceRequest:
    """The request with the power mode of its header as a parameter. The dispatcher refuses an unknown mode.

    Args:
        request: the request. Its own parameter `triune_power_mode` wins.
        mode: the header's value; None if it is not there.
    """
    if mode is None or POWER_PARAMETER in request.parameters:
        return request
    name = mode.decode("latin-1") if isinstance(mode, bytes) else mode
    return replace(request, parameters={**request.parameters, POWER_PARAMETER: name})


def mode_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | bytes | None:
    """The value of the entry `triune-power-mode` (HEADER) in the metadata of a gRPC call; None if it is not there."""
    return next((value for name, value in metadata or () if name == HEADER), None)
