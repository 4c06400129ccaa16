"""Contradictions in operators that read or write elements by index: constant indices that are out of range, and shapes
that do not fit each other.
"""

from collections.abc import Iterator, Mapping

from triune.graph.contradictions.facts import Facts, Rule, differ, must_be, must_be_an_axis


def _indices(facts: Facts, index: int, size: int | None, axis: int) -> Iterator[str]:
    """Find constant indices, operand `index`, that are not within the `size` elements along `axis` of operand 0."""
    found = facts.integers(index)
    if size is None or not found:
        return
    for each in (min(found), max(found)):
        if not -size <= each < size:
            yield (
                f"'{facts.name(index)}' holds the index {each}, and {facts.described(0)} has {size} elements along "
                f"axis {axis}: an index is from {-size} to {size - 1}"
            )
            return


def _gather(facts: Facts) -> Iterator[str]:
    axis = facts.attributes.get("axis", 0)
    yield from must_be_an_axis(facts, "axis", axis, facts.rank(0))
    yield from _indices(facts, 1, facts.size(0, axis), axis)


def _elements(facts: Facts) -> Iterator[str]:
    """Check GatherElements and ScatterElements."""
    axis, data, indices = facts.attributes.get("axis", 0), facts.shape(0), facts.shape(1)
    yield from must_be_an_axis(facts, "axis", axis, facts.rank(0))
    yield from _indices(facts, 1, facts.size(0, axis), axis)
    if data is not None and indices is not None and len(data) != len(indices):
        yield f"{facts.described(0)} and {facts.described(1)} have to be of one rank"
    elif data is not None and indices is not None:
        for along, (size, count) in enumerate(zip(data, indices, strict=True)):
            if along != axis % len(data) and size is not None and count is not None and count > size:
                yield f"{facts.described(1)} is larger than {facts.described(0)} along axis {along}"
    if facts.node.op_type == "ScatterElements" and indices is not None:
        yield from must_be(facts, 2, indices)


def _nd(facts: Facts) -> Iterator[str]:
    """Check GatherND and ScatterND."""
    data, indices, batch = facts.shape(0), facts.shape(1), facts.attributes.get("batch_dims", 0)
    if data is None or indices is None:
        return
    if not data or not indices:
        yield f"{facts.described(0)} and {facts.described(1)} have to be of rank 1 or more"
        return
    if batch >= min(len(data), len(indices)):
        yield f"'batch_dims' is {batch}, and {facts.described(0)} and {facts.described(1)} need more dimensions"
        return
    if any(differ(*pair) for pair in zip(data[:batch], indices[:batch], strict=True)):
        yield f"{facts.described(0)} and {facts.described(1)} differ in the first {batch} dimensions"
    length = indices[-1]
    if length is None:
        return
    if not 0 < length <= len(data) - batch:
        yield (
            f"the last size of {facts.described(1)} is the number of axes that an index covers: of "
            f"{facts.described(0)} 1 to {len(data) - batch}"
        )
        return
    if facts.node.op_type == "ScatterND":
        yield from must_be(facts, 2, [*indices[:-1], *data[length:]])
    array = facts.constant(1)
    if array is None:
        return
    for place, size in enumerate(data[batch : batch + length]):
        along = array[..., place]
        wrong = along[:0] if size is None else along[(along < -size) | (along >= size)]
        if wrong.size:
            yield (
                f"'{facts.name(1)}' holds the index {int(wrong.flat[0])}, and {facts.described(0)} has {size} elements "
                f"along axis {batch + place}"
            )
            return


def _top_k(facts: Facts) -> Iterator[str]:
    axis, k = facts.attributes.get("axis", -1), facts.integers(1)
    size = facts.size(0, axis)
    yield from must_be_an_axis(facts, "axis", axis, facts.rank(0))
    if k is not None and len(k) != 1:
        yield f"'{facts.name(1)}' has to be one number, and holds {len(k)}"
    elif k is not None and (k[0] < 0 or (size is not None and k[0] > size)):
        most = "the size of the axis" if size is None else str(size)
        yield f"the number of elements is {k[0]}, and of {facts.described(0)} along axis {axis} it is from 0 to {most}"


def _one_hot(facts: Facts) -> Iterator[str]:
    axis, rank, depth = facts.attributes.get("axis", -1), facts.rank(0), facts.constant(1)
    if rank is not None and not -rank - 1 <= axis <= rank:
        yield f"'axis' is {axis}, and of a result of {rank + 1} dimensions it is from {-rank - 1} to {rank}"
    if depth is not None and depth.size != 1:
        yield f"the depth '{facts.name(1)}' has to be one number, and holds {depth.size}"
    elif depth is not None and depth.reshape(-1)[0] < 1:
        yield f"the depth '{facts.name(1)}' is {depth.reshape(-1)[0]}, and has to be 1 or more"
    yield from must_be(facts, 2, [2])


def _reverse_sequence(facts: Facts) -> Iterator[str]:
    batch, time = facts.attributes.get("batch_axis", 1), facts.attributes.get("time_axis", 0)
    if {batch, time} != {0, 1}:
        yield f"'batch_axis' is {batch} and 'time_axis' {time}: one has to be 0 and the other 1"
        return
    yield from must_be(facts, 1, [facts.size(0, batch)])
    lengths, most = facts.integers(1), facts.size(0, time)
    if lengths and most is not None and (min(lengths) < 0 or max(lengths) > most):
        yield f"the lengths '{facts.name(1)}' are {min(lengths)} to {max(lengths)}, and a sequence has {most} steps"


def _suppression(facts: Facts) -> Iterator[str]:
    """Check NonMaxSuppression."""
    yield from must_be(facts, 0, [None, None, 4])
    yield from must_be(facts, 1, [None, None, None])
    boxes, scores = facts.shape(0), facts.shape(1)
    if boxes is None or scores is None or (len(boxes), len(scores)) != (3, 3):
        return
    if differ(boxes[0], scores[0]) or differ(boxes[1], scores[2]):
        yield f"boxes {facts.described(0)} and scores {facts.described(1)} differ in the number of images or of boxes"


def _compress(facts: Facts) -> Iterator[str]:
    if "axis" in facts.attributes:
        yield from must_be_an_axis(facts, "axis", facts.attributes["axis"], facts.rank(0))
    if facts.rank(1) not in (None, 1):
        yield f"the condition {facts.described(1)} has to be of rank 1"


RULES: Mapping[str, Rule] = {
    "Gather": _gather,
    "GatherElements": _elements,
    "ScatterElements": _elements,
    "GatherND": _nd,
    "ScatterND": _nd,
    "TopK": _top_k,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "NonMaxSuppression": _suppression,
    "Compress": _compress,
}
"""The functions that find contradictions in operators with indices, by operator."""
