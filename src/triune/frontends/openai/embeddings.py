"""Write the answers of `embeddings`."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from triune.core.datatypes import Array
from triune.core.energy import Bill, report_of
from triune.core.threads import pause
from triune.engine.generation import Placement
from triune.frontends.openai.requests import EmbeddingRequest
from triune.frontends.text.fields import FieldError

_PAUSE_BYTES = 256 << 10
_BYTES_PER_NUMBER = 24


def embedding_bytes(request: EmbeddingRequest, width: int) -> int:
    """About how much memory, in bytes, the response takes. `width` is the number of elements of an embedding."""
    return len(request.inputs) * width * _BYTES_PER_NUMBER


async def embedding_report(placements: Sequence[Placement], bill: Bill) -> dict[str, Any]:
    """The report that `triune: true` adds to an answer. Waits for the energy meter.

    Args:
        placements: where the model runs.
        bill: the units and the joules of the request.

    Returns:
        the unit that computed the most inputs, its runtime and precision; `units` with the number of inputs of each
        unit, if there are several; and the energy.
    """
    placement = max(placements, key=lambda each: bill.units.get(each.unit, 0))
    units = {each.unit.value: bill.units[each.unit] for each in placements if each.unit in bill.units}
    return {
        "unit": placement.unit.value,
        "runtime": placement.runtime,
        "precision": placement.precision,
        "reason": placement.reason,
        **({"units": units} if len(units) > 1 else {}),
        "energy": await report_of([bill]),
    }


def encode_embeddings(
    request: EmbeddingRequest, embeddings: Array, num_tokens: int, report: Mapping[str, Any] | None
) -> bytes:
    """Encode the answer. Runs in a thread, and pauses so that the event loop can run.

    Args:
        request: the request.
        embeddings: FP32 [inputs, width].
        num_tokens: the number of tokens of all inputs.
        report: the report that `triune: true` adds to the answer; None if it was not asked for.

    Raises:
        FieldError: `dimensions` is more than the model's width.
    """
    width = embeddings.shape[1]
    if request.dimensions is not None:
        if request.dimensions > width:
            raise FieldError(
                f"'dimensions' is {request.dimensions}; embeddings of this model have {width} numbers", "dimensions"
            )
        embeddings = _shortened(embeddings, request.dimensions)
    rows: list[orjson.Fragment] = []
    num_bytes = 0
    for index, row in enumerate(np.ascontiguousarray(embeddings, "<f4")):
        value: Any = base64.b64encode(row.data).decode() if request.is_base64 else row
        encoded = orjson.dumps(
            {"object": "embedding", "index": index, "embedding": value}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        rows.append(orjson.Fragment(encoded))
        num_bytes += len(encoded)
        if num_bytes > _PAUSE_BYTES:
            num_bytes = 0
            pause()
    document: dict[str, Any] = {
        "object": "list",
        "data": rows,
        "model": request.model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }
    if report is not None:
        document["triune"] = report
    return orjson.dumps(document)


def _shortened(embeddings: Array, width: int) -> Array:
    """The first `width` numbers of each embedding (a row of `embeddings`), scaled to Euclidean length 1."""
    part = embeddings[:, :width]
    lengths = np.linalg.norm(part, axis=1, keepdims=True)
    return np.divide(part, lengths, out=np.zeros_like(part), where=lengths > 0)
