"""Whisper's config and the names of its tensors, from a CTranslate2 file."""

from collections.abc import Collection, Iterator
from typing import Final, Literal, cast

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights.config import SpecialTokens, WhisperConfig
from triune.engine.weights.config.heads import require_heads
from triune.engine.weights.ctranslate2.file import CTranslate2File
from triune.engine.weights.fields import MAX_LAYERS, Fields

_ACTIVATIONS: Final = {0: "relu", 2: "silu", 3: "gelu"}
_SETTINGS: Final = {"alibi": 0, "scale_embeddings": 0, "start_from_zero_embedding": 0, "pre_norm": 1}
"""Settings of a CTranslate2 decoder, each with the value that it has in Whisper. A file with another value is refused.
"""


_OTHERS: Final = frozenset(
    {
        *(f"{stack}/{each}" for stack in ("encoder", "decoder") for each in ("num_heads", "activation", *_SETTINGS)),
        *(f"decoder/{each}" for each in ("alignment_heads", "alignment_layer", "projection/weight")),
    }
)
"""Variables that are no tensors of the graph. `decoder/projection/weight` is the embedding."""


def read_config(file: CTranslate2File, fields: Fields, tokens: SpecialTokens) -> WhisperConfig:
    """Read the config from the variables, their shapes and values; config.json has the suppressed tokens and the heads
    that align words.

    Raises:
        UnsupportedError: the file has another kind of model, or a setting that Whisper does not have.
        InvalidArgumentError: a variable that the config is read from is missing or of another shape.
    """
    if file.kind != "WhisperSpec":
        raise UnsupportedError(f"{fields.where}: the model is a {file.kind}; known here is WhisperSpec")
    for name, wanted in _SETTINGS.items():
        found = file.whole(f"decoder/{name}")
        if found != wanted:
            raise UnsupportedError(f"{fields.where}: decoder/{name} is {found}; in Whisper it is {wanted}")
    activation = file.whole("decoder/activation")
    if activation not in _ACTIVATIONS:
        raise UnsupportedError(f"{fields.where}: the activation {activation} is not known here")
    config = WhisperConfig(
        vocab_size=_size(file, "decoder/embeddings/weight", 2, 0),
        num_mel_bins=_size(file, "encoder/conv1/weight", 3, 1),
        d_model=_size(file, "decoder/embeddings/weight", 2, 1),
        encoder_layers=_layers(file, "encoder"),
        encoder_attention_heads=file.whole("encoder/num_heads"),
        encoder_ffn_dim=_size(file, "encoder/layer_0/ffn/linear_0/weight", 2, 0),
        decoder_layers=_layers(file, "decoder"),
        decoder_attention_heads=file.whole("decoder/num_heads"),
        decoder_ffn_dim=_size(file, "decoder/layer_0/ffn/linear_0/weight", 2, 0),
        max_source_positions=_size(file, "encoder/position_encodings/encodings", 2, 0),
        max_target_positions=_size(file, "decoder/position_encodings/encodings", 2, 0),
        activation_function=cast("Literal['gelu', 'relu', 'silu']", _ACTIVATIONS[activation]),
        suppress_tokens=fields.ids("suppress_ids"),
        begin_suppress_tokens=fields.ids("suppress_ids_begin"),
        alignment_heads=fields.pairs("alignment_heads"),
        tokens=tokens,
    )
    require_heads(config, fields.where)
    return config


def require_no_others(file: CTranslate2File, used: Collection[str], where: str) -> None:
    """Raise UnsupportedError if there are variables that the graph would not use, such as scales of int8 weights."""
    others = [name for name in file.variables if name not in used and name not in _OTHERS]
    if others:
        raise UnsupportedError(
            f"{where}: {len(others)} variables are no part of Whisper in fp16 or fp32: {', '.join(others[:3])}; "
            "convert the model with --quantization float16"
        )


def names_of(config: WhisperConfig) -> Iterator[tuple[str, str, slice | None]]:
    """For each tensor of the graph, yield its name, the CTranslate2 variable that has it, and the variable's rows; None
    for all.
    """
    width = config.d_model
    for part in ("weight", "bias"):
        yield f"model.encoder.conv1.{part}", f"encoder/conv1/{part}", None
        yield f"model.encoder.conv2.{part}", f"encoder/conv2/{part}", None
    yield "model.decoder.embed_tokens.weight", "decoder/embeddings/weight", None
    for stack, num_layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        yield f"model.{stack}.embed_positions.weight", f"{stack}/position_encodings/encodings", None
        yield from _norm(f"model.{stack}.layer_norm", f"{stack}/layer_norm")
        for layer in range(num_layers):
            name, place = f"model.{stack}.layers.{layer}", f"{stack}/layer_{layer}"
            own = f"{place}/self_attention"
            yield from _norm(f"{name}.self_attn_layer_norm", f"{own}/layer_norm")
            yield from _linears(f"{name}.self_attn", f"{own}/linear_0", ("q_proj", "k_proj", "v_proj"), width)
            yield from _linears(f"{name}.self_attn", f"{own}/linear_1", ("out_proj",), width)
            if stack == "decoder":
                cross = f"{place}/attention"
                yield from _norm(f"{name}.encoder_attn_layer_norm", f"{cross}/layer_norm")
                yield from _linears(f"{name}.encoder_attn", f"{cross}/linear_0", ("q_proj",), width)
                yield from _linears(f"{name}.encoder_attn", f"{cross}/linear_1", ("k_proj", "v_proj"), width)
                yield from _linears(f"{name}.encoder_attn", f"{cross}/linear_2", ("out_proj",), width)
            yield from _norm(f"{name}.final_layer_norm", f"{place}/ffn/layer_norm")
            for index in (1, 2):
                for part in ("weight", "bias"):
                    yield f"{name}.fc{index}.{part}", f"{place}/ffn/linear_{index - 1}/{part}", None


def _linears(name: str, variable: str, kinds: tuple[str, ...], width: int) -> Iterator[tuple[str, str, slice | None]]:
    """For each of the linear layers `kinds`, yield what `names_of` yields: a tensor's name, the CTranslate2 variable
    that has it, and the variable's rows (None for all). The variable has `width` rows for each layer, in this order.
    Layers of keys ("k_proj") have no bias: the variable has zeros there.
    """
    for at, kind in enumerate(kinds):
        rows = slice(at * width, (at + 1) * width) if len(kinds) > 1 else None
        yield f"{name}.{kind}.weight", f"{variable}/weight", rows
        if kind != "k_proj":
            yield f"{name}.{kind}.bias", f"{variable}/bias", rows


def _norm(name: str, variable: str) -> Iterator[tuple[str, str, slice | None]]:
    yield f"{name}.weight", f"{variable}/gamma", None
    yield f"{name}.bias", f"{variable}/beta", None


def _layers(file: CTranslate2File, stack: str) -> int:
    count = next(at for at in range(MAX_LAYERS + 1) if f"{stack}/layer_{at}/ffn/linear_0/weight" not in file.variables)
    if not 1 <= count < MAX_LAYERS:
        raise InvalidArgumentError(f"the file has {count} layers of the {stack}; 1 to {MAX_LAYERS - 1} are read")
    return count


def _size(file: CTranslate2File, name: str, rank: int, axis: int) -> int:
    variable = file.variables.get(name)
    if variable is None or len(variable.shape) != rank or not variable.shape[axis]:
        shape = None if variable is None else list(variable.shape)
        raise InvalidArgumentError(
            f"the variable {name!r} has the shape {shape}; expected {rank} dimensions, none empty"
        )
    return variable.shape[axis]
