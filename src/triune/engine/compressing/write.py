"""Write a checkpoint as a directory in the layout of MLX: config.json, safetensors and tokenizer."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.compressing.stored import Codes, Stored
from triune.engine.weights import Checkpoint, DenseTensor, open_checkpoint
from triune.engine.weights.config import LinearScaling, Llama3Scaling, LlamaConfig, Rope
from triune.engine.weights.gguf.file import open_gguf
from triune.engine.weights.gguf.vocabulary import special_texts
from triune.engine.weights.huggingface.files import read_json
from triune.engine.weights.tensors import pack_nibbles

_MOST_BYTES_OF_A_FILE: Final = 4 << 30
_COPIED: Final = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "README*")
"""Files that are copied from a directory, in addition to its weights and config.json."""


def write_mlx(
    source: Path, checkpoint: Checkpoint, matrices: Mapping[str, Stored], vectors: Mapping[str, NDArray[Any]],
    folder: Path,
) -> None:  # fmt: skip
    """Write a directory that `open_checkpoint` and mlx-lm read.

    Args:
        source: the checkpoint's path.
        checkpoint: the checkpoint, of LLaMA's family; the tokenizer, the config and all other tensors are taken from
            it.
        matrices: the compressed matrices by name.
        vectors: the weights of norms that changed, in the form in which the checkpoint stores them.
        folder: the folder to write, which must not exist.

    Raises:
        UnsupportedError: the config of a GGUF file has a setting that config.json cannot express.
        OSError, InvalidArgumentError: the disk is full, or the folder cannot be written.
    """
    folder.mkdir()
    settings = _settings(source, checkpoint)
    codes = {name: each for name, each in matrices.items() if isinstance(each, Codes)}
    if codes:
        settings["quantization"] = settings["quantization_config"] = _quantization(codes)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if source.is_dir():
        for pattern in _COPIED:
            for path in source.glob(pattern):
                if path.name != "config.json" and not path.name.endswith(".safetensors.index.json"):
                    shutil.copy(path, folder / path.name)
    else:
        _write_tokenizer(source, checkpoint, folder)
    _write_tensors(_tensors(checkpoint, matrices, vectors), folder)
    written = open_checkpoint(folder).config
    if written != checkpoint.config:
        raise UnsupportedError(
            f"{source.name}: config.json cannot say all of what the file's metadata do (read back it is {written}): "
            "compress the model's directory in Hugging Face's form instead"
        )


def _quantization(codes: Mapping[str, Codes]) -> dict[str, object]:
    """The entry `quantization` of config.json: bits and group size of most matrices, and by module those of matrices
    that differ.
    """
    sizes = [(each.bits, each.group) for each in codes.values()]
    bits, group = max(dict.fromkeys(sizes), key=sizes.count)
    found: dict[str, object] = {"group_size": group, "bits": bits, "mode": "affine"}
    for name, each in codes.items():
        if (each.bits, each.group) != (bits, group):
            found[name.removesuffix(".weight")] = {"group_size": each.group, "bits": each.bits}
    return found


def _tensors(
    checkpoint: Checkpoint, matrices: Mapping[str, Stored], vectors: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in checkpoint.names:
        matrix = matrices.get(name)
        if isinstance(matrix, Codes):
            module = name.removesuffix(".weight")
            packed = pack_nibbles(matrix.codes) if matrix.bits == 4 else matrix.codes
            yield name, np.ascontiguousarray(packed).view(np.uint32)
            yield f"{module}.scales", matrix.scales
            yield f"{module}.biases", matrix.offsets
        elif matrix is not None:
            yield name, matrix.values
        elif name in vectors:
            yield name, vectors[name]
        else:
            tensor = checkpoint.tensor(name)
            yield name, tensor.values if isinstance(tensor, DenseTensor) else tensor.dequantize()


def _write_tensors(tensors: Iterator[tuple[str, NDArray[Any]]], folder: Path) -> None:
    """Write tensors to safetensors files of at most 4 GiB each, with an index if there are several."""
    files: list[dict[str, NDArray[Any]]] = [{}]
    size = total = 0
    for name, values in tensors:
        if files[-1] and size + values.nbytes > _MOST_BYTES_OF_A_FILE:
            files.append({})
            size = 0
        files[-1][name] = np.ascontiguousarray(values)
        size += values.nbytes
        total += values.nbytes
    if len(files) == 1:
        _save(files[0], folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, each in enumerate(files, 1):
        file_name = f"model-{number:05}-of-{len(files):05}.safetensors"
        _save(each, folder / file_name)
        places |= dict.fromkeys(each, file_name)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _save(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    library: Any = safetensors_numpy
    try:
        library.save_file(dict(tensors), path, {"format": "mlx"})
    except SafetensorError as error:
        raise InvalidArgumentError(
            f"'{path.name}' cannot be written: {error}; make room, or name another place"
        ) from error


def _settings(source: Path, checkpoint: Checkpoint) -> dict[str, object]:
    """The content of config.json, without the settings of packed weights."""
    if source.is_dir():
        settings = read_json(source / "config.json") or {}
        return {name: each for name, each in settings.items() if name not in ("quantization", "quantization_config")}
    config = checkpoint.config
    assert isinstance(config, LlamaConfig)
    tokens = config.tokens
    ropes = {layer.rope for layer in config.layers}
    rope = next(iter(ropes))
    if len(ropes) > 1 or rope is None:
        raise UnsupportedError(f"{source.name}: its layers have different rotary embeddings; compress a directory")
    settings: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_act": config.hidden_act,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": rope.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
    }
    scaling = _scaling(rope, source.name)
    if scaling:
        settings["rope_scaling"] = scaling
    if rope.rotary_dim != config.head_dim:
        settings["partial_rotary_factor"] = rope.rotary_dim / config.head_dim
    for name, token in (("bos", tokens.bos), ("pad", tokens.pad), ("eos", list(tokens.eos) or None)):
        if token is not None:
            settings[f"{name}_token_id"] = token
    return settings


def _scaling(rope: Rope, name: str) -> dict[str, object]:
    match rope.scaling:
        case None:
            return {}
        case LinearScaling(factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3Scaling(factor, low, high, original):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
        case other:
            raise UnsupportedError(
                f"{name}: config.json cannot say how its rotary embedding is stretched ({type(other).__name__}): "
                "compress the model's directory in Hugging Face's form instead"
            )


def _write_tokenizer(source: Path, checkpoint: Checkpoint, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer().backend.to_str(), encoding="utf-8")
    texts: dict[str, object] = dict(special_texts(open_gguf(source).metadata))
    texts["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(texts, indent=2) + "\n", encoding="utf-8")
    template = checkpoint.chat_template
    if template is not None:
        (folder / "chat_template.jinja").write_text(template.source, encoding="utf-8")
