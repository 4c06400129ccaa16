"""Writes CTranslate2's files."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.engine.weights import Checkpoint
from triune.engine.weights.config import WhisperConfig

_CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def whisper_variables(checkpoint: Checkpoint) -> dict[str, Array]:
    """The variables that CTranslate2's converter would write for a Whisper checkpoint of Hugging Face."""
    config = checkpoint.config
    assert isinstance(config, WhisperConfig)
    found: dict[str, Array] = {}

    def get(name: str) -> NDArray[np.float32]:
        return checkpoint.tensor(name).dequantize()

    def norm(place: str, name: str) -> None:
        found[f"{place}/gamma"], found[f"{place}/beta"] = get(f"{name}.weight"), get(f"{name}.bias")

    def linear(place: str, *names: str) -> None:
        weights = [get(f"{name}.weight") for name in names]
        biases = [
            np.zeros(len(weight), np.float32) if name.endswith("k_proj") else get(f"{name}.bias")
            for name, weight in zip(names, weights, strict=True)
        ]
        found[f"{place}/weight"], found[f"{place}/bias"] = np.concatenate(weights), np.concatenate(biases)

    found["decoder/embeddings/weight"] = get("model.decoder.embed_tokens.weight")
    for part in ("weight", "bias"):
        for conv in ("conv1", "conv2"):
            found[f"encoder/{conv}/{part}"] = get(f"model.encoder.{conv}.{part}")
    for stack, layers, heads in (
        ("encoder", config.encoder_layers, config.encoder_attention_heads),
        ("decoder", config.decoder_layers, config.decoder_attention_heads),
    ):
        found[f"{stack}/num_heads"] = np.array(heads, np.int16)
        found[f"{stack}/position_encodings/encodings"] = get(f"model.{stack}.embed_positions.weight")
        norm(f"{stack}/layer_norm", f"model.{stack}.layer_norm")
        for layer in range(layers):
            name, place = f"model.{stack}.layers.{layer}", f"{stack}/layer_{layer}"
            norm(f"{place}/self_attention/layer_norm", f"{name}.self_attn_layer_norm")
            linear(f"{place}/self_attention/linear_0", *(f"{name}.self_attn.{each}_proj" for each in "qkv"))
            linear(f"{place}/self_attention/linear_1", f"{name}.self_attn.out_proj")
            if stack == "decoder":
                norm(f"{place}/attention/layer_norm", f"{name}.encoder_attn_layer_norm")
                linear(f"{place}/attention/linear_0", f"{name}.encoder_attn.q_proj")
                linear(f"{place}/attention/linear_1", *(f"{name}.encoder_attn.{each}_proj" for each in "kv"))
                linear(f"{place}/attention/linear_2", f"{name}.encoder_attn.out_proj")
            norm(f"{place}/ffn/layer_norm", f"{name}.final_layer_norm")
            linear(f"{place}/ffn/linear_0", f"{name}.fc1")
            linear(f"{place}/ffn/linear_1", f"{name}.fc2")
    numbers = {"alibi": 0, "scale_embeddings": 0, "start_from_zero_embedding": 0, "pre_norm": 1, "activation": 3}
    found |= {f"decoder/{name}": np.array(number, np.int8) for name, number in numbers.items()}
    return found


def file_bytes(
    variables: Mapping[str, Array],
    *,
    version: int = 6,
    kind: str = "WhisperSpec",
    others: Sequence[tuple[str, str]] = (("decoder/projection/weight", "decoder/embeddings/weight"),),
) -> bytes:
    """The content of model.bin."""
    parts = [struct.pack("<I", version), _text(kind), struct.pack("<II", 3, len(variables))]
    for name, values in variables.items():
        sizes = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        parts += [_text(name), sizes, struct.pack("<BI", _CODES[values.dtype.name], values.nbytes), values.tobytes()]
    parts.append(struct.pack("<I", len(others)))
    return b"".join([*parts, *(_text(each) for pair in others for each in pair)])


def write_directory(folder: Path, content: bytes, **settings: object) -> Path:
    """Write a model folder in CTranslate2's format, without a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"alignment_heads": [[0, 0]], "lang_ids": [5], **settings}))
    return folder


def _text(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw
