"""Find contradictions between the operands and attributes of operators over sequences: LSTM, GRU and RNN, attention,
rotary embeddings.
"""

from collections.abc import Iterator, Mapping

from triune.graph.contradictions.facts import Dims, Facts, Rule, differ, must_be

_NUM_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(facts: Facts) -> Iterator[str]:
    """Check LSTM, GRU and RNN with inputs X, W, R, B, the lengths, initial_h, and for LSTM initial_c and P."""
    given, weight, recurrent = facts.shape(0), facts.shape(1), facts.shape(2)
    stated = facts.attributes.get("hidden_size")
    if stated is not None and stated < 1:
        yield f"'hidden_size' is {stated}, and has to be 1 or more"
        return
    if any(shape is not None and len(shape) != 3 for shape in (given, weight, recurrent)):
        yield f"{facts.described(0)}, {facts.described(1)} and {facts.described(2)} have to be of rank 3"
        return
    gates = _NUM_GATES[facts.node.op_type]
    hidden = stated if stated is not None else (recurrent[2] if recurrent is not None else None)
    num = 2 if facts.attributes.get("direction") == "bidirectional" else 1
    rows = None if hidden is None else gates * hidden
    is_batch_first = bool(facts.attributes.get("layout", 0))
    batch = None if given is None else given[0 if is_batch_first else 1]
    state = [batch, num, hidden] if is_batch_first else [num, batch, hidden]
    yield from must_be(facts, 1, [num, rows, None if given is None else given[2]])
    yield from must_be(facts, 2, [num, rows, hidden])
    yield from must_be(facts, 3, [num, None if rows is None else 2 * rows])
    yield from must_be(facts, 4, [batch])
    yield from must_be(facts, 5, state)
    if facts.node.op_type == "LSTM":
        yield from must_be(facts, 6, state)
        yield from must_be(facts, 7, [num, None if hidden is None else 3 * hidden])


def _heads(facts: Facts, index: int, attribute: str) -> Dims | None:
    """The shape of queries, keys or values as (batch, heads, length, size); None if it is not known."""
    shape = facts.shape(index)
    if shape is None or len(shape) != 3:
        return shape
    heads = facts.attributes.get(attribute)
    batch, length, hidden = shape
    return [batch, heads, length, hidden // heads if hidden is not None and heads else None]


def _attention(facts: Facts) -> Iterator[str]:
    for index, name in enumerate(["q_num_heads", "kv_num_heads", "kv_num_heads"]):
        shape, heads = facts.shape(index), facts.attributes.get(name)
        if shape is None:
            continue
        if len(shape) not in (3, 4) or (len(shape) == 3 and not heads):
            yield f"{facts.described(index)} has to be of rank 4, or of rank 3 with '{name}'"
            return
        if len(shape) == 3 and heads and shape[2] is not None and shape[2] % heads:
            yield f"the last size of {facts.described(index)} has to be a multiple of '{name}' {heads}"
            return
    query, key, value = (
        _heads(facts, index, name) for index, name in enumerate(["q_num_heads", "kv_num_heads", "kv_num_heads"])
    )
    for index, other in ((1, key), (2, value)):
        if query is not None and other is not None and differ(query[0], other[0]):
            yield f"{facts.described(0)} and {facts.described(index)} have to be of one batch size"
    if query is not None and key is not None:
        if differ(query[3], key[3]):
            yield f"heads of {facts.described(0)} are of size {query[3]}, and those of {facts.described(1)} of {key[3]}"
        if query[1] is not None and key[1] is not None and (not key[1] or query[1] % key[1]):
            yield f"{query[1]} heads of queries have to be a multiple of the {key[1]} of keys"
    if key is not None and value is not None and (differ(key[1], value[1]) or differ(key[2], value[2])):
        yield f"keys {facts.described(1)} and values {facts.described(2)} have to be of the same heads and length"
    yield from _past_and_mask(facts, query, key, value)


def _past_and_mask(facts: Facts, query: Dims | None, key: Dims | None, value: Dims | None) -> Iterator[str]:
    """Check the optional operands of Attention: mask, past keys, past values and lengths."""
    length = None if key is None else key[2]
    if facts.name(4):
        past = facts.size(4, 2)
        length = None if length is None or past is None else length + past
        for index, new in ((4, key), (5, value)):
            if new is not None:
                yield from must_be(facts, index, [new[0], new[1], None, new[3]])
    mask = facts.shape(3)
    if mask is not None and query is not None:
        wanted = [query[0], query[1], query[2], length]
        sizes = zip(reversed(mask[:-1]), reversed(wanted[:-1]), strict=False)
        is_longer = bool(mask) and mask[-1] is not None and length is not None and mask[-1] > max(length, 1)
        if len(mask) > 4 or is_longer or any(one != 1 and differ(one, other) for one, other in sizes):
            yield f"the mask {facts.described(3)} does not fit {wanted}: batch, heads, queries and keys"
    if query is not None:
        yield from must_be(facts, 6, [query[0]])


def _rotary(facts: Facts) -> Iterator[str]:
    given, cos, sin = facts.shape(0), facts.shape(1), facts.shape(2)
    if cos is not None and sin is not None:
        yield from must_be(facts, 2, cos)
    heads = facts.attributes.get("num_heads", 0)
    if given is None:
        return
    if len(given) not in (3, 4) or (len(given) == 3 and not heads):
        yield f"{facts.described(0)} has to be of rank 4, or of rank 3 with 'num_heads'"
        return
    if len(given) == 3 and given[2] is not None and given[2] % heads:
        yield f"the last size of {facts.described(0)} has to be a multiple of 'num_heads' {heads}"
        return
    size = given[3] if len(given) == 4 else None if given[2] is None else given[2] // heads
    turned = facts.attributes.get("rotary_embedding_dim", 0) or size
    if turned is not None and (turned % 2 or (size is not None and turned > size)):
        yield f"{turned} numbers of each head are rotated: they have to be an even number, at most the {size} of a head"
        return
    half = None if turned is None else turned // 2
    length = given[1] if len(given) == 3 else given[2]
    if facts.name(3):
        yield from must_be(facts, 1, [None, half])
        yield from must_be(facts, 3, [given[0], length])
    else:
        yield from must_be(facts, 1, [given[0], length, half])


RULES: Mapping[str, Rule] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "RotaryEmbedding": _rotary,
}
"""The functions that find contradictions in operators over sequences, by operator."""
