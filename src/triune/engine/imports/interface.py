"""The inputs and outputs of an exported decoder."""

from dataclasses import dataclass
from typing import Final

from onnx import GraphProto, TensorProto, ValueInfoProto

from triune.core.errors import UnsupportedError
from triune.graph.caches import PAST

_BRANCH: Final = "use_cache_branch"
"""An input of Optimum's merged exports: whether there are earlier tokens."""

_NUMBERS: Final = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True)
class Past:
    """The cache of one layer.

    Attributes:
        key: the input of earlier keys, [batch, heads, tokens, size].
        value: the input of earlier values, of the same shape.
        num_heads: the number of heads of keys and values.
        head_size: the size of a head.
    """

    key: str
    value: str
    num_heads: int
    head_size: int


@dataclass(frozen=True, slots=True)
class Interface:
    """The inputs and outputs of a decoder.

    Attributes:
        ids: the input of token ids, [batch, tokens].
        mask: the input of the mask of padding, [batch, earlier and new tokens]; "" if there is none.
        positions: the input of positions, [batch, tokens]; "" if there is none.
        logits: the output of logits.
        pasts: the caches, by layer.
    """

    ids: str
    mask: str
    positions: str
    logits: str
    pasts: tuple[Past, ...]


def read_interface(graph: GraphProto, head_size: int = 0) -> Interface:
    """Recognize a graph's inputs and outputs by their names.

    Args:
        graph: the graph.
        head_size: the size of a head in the config, for graphs whose caches do not state it; 0 if it is unknown.

    Raises:
        UnsupportedError: an input is not known, or one is missing or has a shape that does not fit.
    """
    constants = {each.name for each in graph.initializer}
    inputs = {each.name: each for each in graph.input if each.name not in constants}
    pasts: dict[int, dict[str, str]] = {}
    for name in inputs:
        if found := PAST.fullmatch(name):
            pasts.setdefault(int(found[1]), {})[found[2]] = name
    known = {"input_ids", "attention_mask", "position_ids", _BRANCH}
    others = [name for name in inputs if name not in known and not PAST.fullmatch(name)]
    if others:
        raise UnsupportedError(
            f"the decoder has the input '{others[0]}'; known are input_ids, attention_mask, position_ids and "
            "past_key_values.N.key and .value"
        )
    if "input_ids" not in inputs:
        raise UnsupportedError("the decoder has no input 'input_ids': export it with the embedding of tokens")
    for name in inputs.keys() & {"input_ids", "attention_mask", "position_ids"}:
        if (kind := inputs[name].type.tensor_type.elem_type) not in _NUMBERS:
            raise UnsupportedError(
                f"input '{name}' of the decoder is {TensorProto.DataType.Name(kind)}; known are integers, and floats"
            )
    outputs = [each.name for each in graph.output]
    if "logits" not in outputs:
        raise UnsupportedError(f"the decoder has no output 'logits'; it has {', '.join(outputs[:4])}")
    if sorted(pasts) != list(range(len(pasts))) or any(len(each) < 2 for each in pasts.values()) or not pasts:
        raise UnsupportedError(
            f"the decoder has caches of the layers {sorted(pasts)}; past_key_values.N.key and .value are needed for "
            "each layer from 0 on: export it with caches (task text-generation-with-past)"
        )
    sizes = _dims(inputs["input_ids"])
    if len(sizes) != 2 or any(sizes):
        raise UnsupportedError(
            f"input 'input_ids' of the decoder has the fixed shape {sizes}; export it with a free batch and a free "
            "number of tokens"
        )
    return Interface(
        "input_ids",
        "attention_mask" if "attention_mask" in inputs else "",
        "position_ids" if "position_ids" in inputs else "",
        "logits",
        tuple(_past(inputs, pasts[layer], head_size) for layer in range(len(pasts))),
    )


def fix_branch(graph: GraphProto) -> None:
    """Let a merged export always take the branch with caches, which may be empty."""
    if any(each.name == _BRANCH for each in graph.input):
        inputs = [each for each in graph.input if each.name != _BRANCH]
        del graph.input[:]
        graph.input.extend(inputs)
        graph.initializer.append(TensorProto(name=_BRANCH, data_type=TensorProto.BOOL, dims=[1], raw_data=b"\1"))


def _past(inputs: dict[str, ValueInfoProto], names: dict[str, str], head_size: int) -> Past:
    shapes = [_dims(inputs[names[kind]]) for kind in ("key", "value")]
    for shape in shapes:
        # Where the size of a head is free, as newer versions of onnxruntime-genai leave it, take it from the config.
        shape[3:] = [size or head_size for size in shape[3:]]
    key = shapes[0]
    if len(key) != 4 or not key[1] or not key[3] or key[0] or key[2] or shapes[1] != key:
        raise UnsupportedError(
            f"inputs '{names['key']}' and '{names['value']}' of the decoder have the shapes {shapes[0]} and "
            f"{shapes[1]}; needed is [free, heads, free, size], the same for both"
        )
    return Past(names["key"], names["value"], key[1], key[3])


def _dims(value: ValueInfoProto) -> list[int]:
    """The sizes of an input; 0 for free ones."""
    return [each.dim_value for each in value.type.tensor_type.shape.dim]
