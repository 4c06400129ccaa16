"""Writes GGUF files for tests. The format's own library also reads them, as a second opinion."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEXT, _ARRAY, _BOOL, _U32, _I32, _F32 = 8, 9, 7, 4, 5, 6


def write_gguf(
    path: Path,
    metadata: Mapping[str, object],
    tensors: Mapping[str, tuple[int, Sequence[int], bytes]],
    *,
    version: int = 3,
    alignment: int = 32,
) -> Path:
    """Write a file. Each of `tensors` has a type of ggml, its sizes with the innermost first, and its bytes."""
    head = [struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(metadata))]
    head += [text(key) + value(each) for key, each in metadata.items()]
    data = bytearray()
    for name, (kind, sizes, content) in tensors.items():
        data += bytes(-len(data) % alignment)
        head.append(text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, len(data)))
        data += content
    joined = b"".join(head)
    path.write_bytes(joined + bytes(-len(joined) % alignment) + data)
    return path


def text(content: str | bytes) -> bytes:
    """Encode a string in GGUF's format."""
    content = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(content)) + content


def value(given: object) -> bytes:
    """Encode a value with its type: integers as UINT32, lists of strings, numpy arrays of INT32 or FP32."""
    match given:
        case bool():
            return struct.pack("<IB", _BOOL, given)
        case int():
            return struct.pack("<II", _U32, given)
        case float():
            return struct.pack("<If", _F32, given)
        case str():
            return struct.pack("<I", _TEXT) + text(given)
        case list():
            return struct.pack("<IIQ", _ARRAY, _TEXT, len(given)) + b"".join(text(each) for each in given)
        case np.ndarray():
            kind = _F32 if given.dtype.kind == "f" else _I32
            return (
                struct.pack("<IIQ", _ARRAY, kind, given.size) + given.astype("<f4" if kind == _F32 else "<i4").tobytes()
            )
        case bytes():
            return given
        case _:
            raise TypeError(type(given))


LLAMA_SIZES = {"vocab": 40, "width": 64, "inner": 96, "heads": 4, "kv_heads": 2, "layers": 2}


def llama_metadata(**more: object) -> dict[str, object]:
    """The metadata of a tiny LLaMA. `more` has further keys, in which two underscores stand for a dot."""
    sizes = LLAMA_SIZES
    return {
        "general.architecture": "llama",
        "llama.block_count": sizes["layers"],
        "llama.context_length": 128,
        "llama.embedding_length": sizes["width"],
        "llama.feed_forward_length": sizes["inner"],
        "llama.attention.head_count": sizes["heads"],
        "llama.attention.head_count_kv": sizes["kv_heads"],
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        **{key.replace("__", "."): each for key, each in more.items()},
    }


def f32(*shape: int, seed: int = 0) -> tuple[int, list[int], bytes]:
    """A random FP32 tensor; its shape has the outermost size first."""
    return 0, list(reversed(shape)), random(*shape, seed=seed).tobytes()


def random(*shape: int, seed: int = 0) -> NDArray[Any]:
    """The random numbers of the tensor that `f32` makes."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def llama_tensors() -> dict[str, tuple[int, list[int], bytes]]:
    """The tensors of the tiny LLaMA of `llama_metadata`."""
    sizes = LLAMA_SIZES
    width, head = sizes["width"], sizes["width"] // sizes["heads"]
    tensors = {"token_embd.weight": f32(sizes["vocab"], width), "output_norm.weight": f32(width)}
    for layer in range(sizes["layers"]):
        shapes = {
            "attn_norm": (width,),
            "ffn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (sizes["kv_heads"] * head, width),
            "attn_v": (sizes["kv_heads"] * head, width),
            "attn_output": (width, width),
            "ffn_gate": (sizes["inner"], width),
            "ffn_up": (sizes["inner"], width),
            "ffn_down": (width, sizes["inner"]),
        }
        tensors |= {
            f"blk.{layer}.{name}.weight": f32(*shape, seed=layer * 16 + index)
            for index, (name, shape) in enumerate(shapes.items())
        }
    return tensors
