"""Find contradictions between the operands and attributes of norms, quantization, and products with their biases."""

from collections.abc import Iterator, Mapping

from triune.graph.contradictions.facts import (
    Dims,
    Facts,
    Rule,
    differ,
    must_be,
    must_be_an_axis,
    must_broadcast,
)


def _batch_norm(facts: Facts) -> Iterator[str]:
    given = facts.shape(0)
    if given is None:
        return
    if not given:
        yield f"{facts.described(0)} has to be of rank 1 or more"
        return
    channels = given[1] if len(given) > 1 else 1
    for index in range(1, 5):
        yield from must_be(facts, index, [channels])


def _instance_norm(facts: Facts) -> Iterator[str]:
    given = facts.shape(0)
    if given is None:
        return
    if len(given) < 3:
        yield f"{facts.described(0)} has to be of rank 3 or more"
        return
    for index in (1, 2):
        yield from must_be(facts, index, [given[1]])


def _group_norm(facts: Facts) -> Iterator[str]:
    given, groups = facts.shape(0), facts.attributes.get("num_groups", 1)
    if groups < 1:
        yield f"'num_groups' is {groups}, and has to be 1 or more"
    elif given is not None and len(given) < 2:
        yield f"{facts.described(0)} has to be of rank 2 or more"
    elif given is not None:
        if given[1] is not None and given[1] % groups:
            yield f"the {given[1]} channels of {facts.described(0)} have to be a multiple of 'num_groups' {groups}"
        for index in (1, 2):
            yield from must_be(facts, index, [given[1]])


def _last_axes_norm(facts: Facts) -> Iterator[str]:
    """Check LayerNormalization and RMSNormalization."""
    given = facts.shape(0)
    if given is None:
        return
    yield from must_be_an_axis(facts, "axis", facts.attributes.get("axis", -1), len(given))
    for index in (1, 2):
        yield from must_broadcast(facts, index, given)


def _lp_norm(facts: Facts) -> Iterator[str]:
    if facts.attributes.get("p", 2) not in (1, 2):
        yield f"'p' is {facts.attributes['p']}, and has to be 1 or 2"


def _quantized(facts: Facts) -> Iterator[str]:
    """Check QuantizeLinear and DequantizeLinear."""
    given, scale, zero = facts.shape(0), facts.shape(1), facts.shape(2)
    axis: int = facts.attributes.get("axis", 1)
    block: int = facts.attributes.get("block_size", 0)
    if scale is not None and zero is not None and not _is_one(scale) and not _is_one(zero):
        yield from must_be(facts, 2, scale)
    # A single scale applies to the whole tensor, whatever the axis is.
    if given is None or scale is None or _is_one(scale) or (len(given) == 1 and len(scale) == 1 and not block):
        return
    found = list(must_be_an_axis(facts, "axis", axis, len(given)))
    yield from found
    if found or not given:
        return
    if block:
        size: int | None = given[axis]
        blocks = None if size is None else -(-size // block)
        yield from must_be(facts, 1, [blocks if at == axis % len(given) else dim for at, dim in enumerate(given)])
    elif len(scale) == 1:
        yield from must_be(facts, 1, [given[axis]])


def _is_one(shape: Dims) -> bool:
    """Whether a tensor of this shape may have one element."""
    return all(dim in (None, 1) for dim in shape)


def _prelu(facts: Facts) -> Iterator[str]:
    given = facts.shape(0)
    if given is not None:
        yield from must_broadcast(facts, 1, given)


def _gemm(facts: Facts) -> Iterator[str]:
    left, right = facts.shape(0), facts.shape(1)
    if left is None or right is None:
        return
    if (len(left), len(right)) != (2, 2):
        yield f"{facts.described(0)} and {facts.described(1)} have to be of rank 2"
        return
    rows, inner = reversed(left) if facts.attributes.get("transA", 0) else left
    other, columns = reversed(right) if facts.attributes.get("transB", 0) else right
    if differ(inner, other):
        yield f"{facts.described(0)} and {facts.described(1)} have {inner} and {other} terms for each product"
    yield from must_broadcast(facts, 2, [rows, columns])


def _einsum(facts: Facts) -> Iterator[str]:
    equation = str(facts.attributes.get("equation", "")).replace(" ", "")
    sizes: dict[str, int] = {}
    for index, term in enumerate(equation.partition("->")[0].split(",")):
        shape = facts.shape(index)
        letters = term.replace("...", "")
        if shape is None:
            continue
        if len(letters) > len(shape) or ("..." not in term and len(letters) < len(shape)):
            yield f"the term '{term}' has not the dimensions of {facts.described(index)}"
            return
        before = len(term.partition("...")[0])
        rest = len(letters) - before
        pairs = zip(letters, [*shape[:before], *(shape[-rest:] if rest else ())], strict=True)
        for letter, size in pairs:
            if size is not None and size != 1 and differ(sizes.setdefault(letter, size), size):
                yield f"'{letter}' is {sizes[letter]} elsewhere and {size} in {facts.described(index)}"
                return


def _loss(facts: Facts) -> Iterator[str]:
    """Check NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss."""
    given = facts.shape(0)
    if given is None:
        return
    if len(given) < 2:
        yield f"{facts.described(0)} has to be of rank 2 or more"
        return
    yield from must_be(facts, 1, [given[0], *given[2:]])
    # The number of weights is not checked: every runtime ignores weights of classes that do not exist.
    yield from must_be(facts, 2, [None])


def _fmod(facts: Facts) -> Iterator[str]:
    if facts.attributes.get("fmod", 0) not in (0, 1):
        yield f"'fmod' is {facts.attributes['fmod']}, and has to be 0 or 1"


RULES: Mapping[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _last_axes_norm,
    "RMSNormalization": _last_axes_norm,
    "LpNormalization": _lp_norm,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": _quantized,
    "PRelu": _prelu,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "NegativeLogLikelihoodLoss": _loss,
    "SoftmaxCrossEntropyLoss": _loss,
    "Mod": _fmod,
}
"""The functions that find contradictions in norms, quantization and products, by operator."""
