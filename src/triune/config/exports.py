"""Recognises decoders that were exported to ONNX with key-value caches, with a tokenizer in the same folder."""

from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from triune.graph.caches import has_caches
from triune.graph.read_light import read_light

ONNX_FILENAME: Final = "model.onnx"
_TOKENIZER: Final = "tokenizer.json"
_CONFIGS: Final = ("genai_config.json", "config.json")


def is_exported_decoder(version_folder: Path) -> bool:
    """Whether a version's folder holds an exported decoder: model.onnx with caches, its config and its tokenizer."""
    path = version_folder / ONNX_FILENAME
    if not (path.is_file() and (version_folder / _TOKENIZER).is_file()):
        return False
    if not any((version_folder / name).is_file() for name in _CONFIGS):
        return False
    try:
        return has_caches(read_light(path).graph)
    except (OSError, DecodeError):
        # Count an invalid ONNX file as a tensor model: loading it as one raises the error.
        return False
