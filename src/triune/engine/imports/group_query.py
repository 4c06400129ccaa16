"""Finds GroupQueryAttention, the operator of ONNX Runtime in which onnxruntime-genai exports decoders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.imports.found import FoundAttention, Rotary
from triune.engine.imports.interface import Past
from triune.engine.imports.probe import Probe
from triune.graph.index import Index, label
from triune.graph.values import attributes_of


def find_group_query(
    index: Index, node: NodeProto, past: Past, probes: Sequence[Probe], num_positions: int
) -> FoundAttention:
    """Read the attention that a GroupQueryAttention computes.

    Args:
        index: the graph.
        node: the node, which reads the keys of `past`.
        past: the caches of its layer.
        probes: the graph computed for several fixed sizes.
        num_positions: the longest context in tokens.

    Raises:
        InvalidArgumentError: the node's rotary embedding has fewer than `num_positions` positions.
        UnsupportedError: the node uses something that `triune::PagedAttention` does not have.
    """
    given, flags = {at: name for at, name in enumerate(node.input) if name}, attributes_of(node)
    _refuse_others(given, flags)
    if (given.get(3), given.get(4)) != (past.key, past.value):
        raise UnsupportedError(f"it reads '{given.get(3)}' and '{given.get(4)}'; expected are the caches of one layer")
    heads, kv_heads = int(flags["num_heads"]), int(flags["kv_num_heads"])
    if kv_heads != past.num_heads:
        raise UnsupportedError(f"it has {kv_heads} heads of keys; its cache has {past.num_heads}")
    dims, needed = index.dims(given[0]), (heads if 1 in given else heads + 2 * kv_heads) * past.head_size
    if dims is not None and isinstance(dims[-1], int) and dims[-1] != needed:
        raise UnsupportedError(f"its queries '{given[0]}' have {dims[-1]} features; by the caches they have {needed}")
    for probe in probes:
        _require_plain_sequences(probe, given)
    rotary = None
    if flags.get("do_rotary", 0):
        if not {7, 8} <= given.keys():
            raise InvalidArgumentError(f"{label(node)} has 'do_rotary', and no tables of cosines and sines")
        table = index.constant(given[7])
        if table is None or table.ndim != 2:
            raise UnsupportedError(
                f"its table of cosines '{given[7]}' is no constant; expected is one of two dimensions"
            )
        if len(table) < num_positions:
            raise InvalidArgumentError(
                f"{label(node)} has {len(table)} positions, and a context of {num_positions} tokens is asked for: set "
                "'context_tokens'"
            )
        width = 2 * table.shape[1]
        rotary = Rotary(
            given[7],
            given[8],
            0 if width == past.head_size else width,
            bool(flags.get("rotary_interleaved", 0)),
        )
    window = int(flags.get("local_window_size", -1))
    is_packed = 1 not in given
    return FoundAttention(
        output=node.output[0],
        query="" if is_packed else given[0],
        key="" if is_packed else given[1],
        value="" if is_packed else given[2],
        packed=given[0] if is_packed else "",
        is_flat=True,
        num_heads=heads,
        scale=float(flags.get("scale", 0.0)) or past.head_size**-0.5,
        sliding_window=max(window, 0),
        softcap=float(flags.get("softcap", 0.0)),
        rotary=rotary,
    )


def _refuse_others(given: Mapping[int, str], flags: Mapping[str, Any]) -> None:
    """Raises UnsupportedError if the node uses what `triune::PagedAttention` does not have."""
    if any(flags.get(name, "NONE") not in ("NONE", b"NONE") for name in ("k_quant_type", "v_quant_type")):
        raise UnsupportedError("its cache of keys and values is quantized; expected is a cache of floats")
    if 11 in given or flags.get("smooth_softmax", 0) == 1:
        raise UnsupportedError("it has a sink of attention (head_sink, smooth_softmax), which no runtime here has")
    if others := sorted(at for at in given if at > 11):
        raise UnsupportedError(f"it has the input {others[0]}, which is not known here; known are 0 to 10")
    if not flags.get("causal", 1):
        raise UnsupportedError("it is not causal; expected is attention to earlier tokens")


def _require_plain_sequences(probe: Probe, given: Mapping[int, str]) -> None:
    """Raise UnsupportedError unless a node's sequence lengths and position ids are those of sequences without
    padding, and its bias of the scores, if it has one, is 0 for all tokens up to the query's own.
    """
    sizes = probe.sizes
    expected = {
        5: ("seqlens_k", np.full(sizes.batch, sizes.total - 1)),
        6: ("total_sequence_length", np.array(sizes.total)),
        9: ("position_ids", np.tile(sizes.positions, (sizes.batch, 1))),
    }
    for at, (what, wanted) in expected.items():
        if at in given:
            found = probe.known(given[at])
            if found is None or not np.array_equal(found.reshape(-1), wanted.reshape(-1)):
                shown = "a value of the tokens" if found is None else found.reshape(-1).tolist()[:8]
                raise UnsupportedError(
                    f"its {what} '{given[at]}' is {shown} for {sizes.past} earlier and {sizes.new} new tokens; "
                    f"expected is {wanted.reshape(-1).tolist()[:8]}"
                )
    if 10 in given:
        bias = probe.known(given[10])
        causal = np.tril(np.ones((sizes.new, sizes.total), bool), sizes.past)
        if bias is None or np.broadcast_to(bias, (*bias.shape[:-2], *causal.shape))[..., causal].any():
            raise UnsupportedError(f"it adds the bias '{given[10]}' to the scores; expected is none")
