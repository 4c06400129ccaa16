"""A key that is equal for two servers if they have the same checkpoint."""

import hashlib
from pathlib import Path
from typing import Final

_SUFFIXES: Final = frozenset({".safetensors", ".json", ".model", ".gguf", ".onnx", ".data", ".onnx_data", ".bin"})
_NUM_BLOCKS: Final = 64
_BLOCK_BYTES: Final = 64 << 10


def weights_key(path: Path) -> bytes:
    """16 bytes that depend on the files of a checkpoint: on their names and sizes, and on 64 blocks of each, 4 MiB in
    all.

    The blocks are at equal distances, so that reading them takes milliseconds for a file of any size. The key reveals
    mistakes, but does not protect against attacks.

    Args:
        path: a GGUF file; an ONNX file, with the other files of its folder; or a directory of weights.
    """
    folder = path if path.is_dir() else path.parent
    files = [path] if path.suffix == ".gguf" else [each for each in folder.iterdir() if each.suffix in _SUFFIXES]
    digest = hashlib.blake2b(digest_size=16)
    for each in sorted(file for file in files if file.is_file()):
        num_bytes = each.stat().st_size
        name = "" if each == path else each.name
        digest.update(f"{name!r} {num_bytes}\n".encode("utf-8", "surrogatepass"))
        with each.open("rb") as file:
            for number in range(_NUM_BLOCKS):
                file.seek(max(0, num_bytes - _BLOCK_BYTES) * number // (_NUM_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
                if num_bytes <= _BLOCK_BYTES:
                    break
    return digest.digest()
