"""Check that a program has room on its disk before Core AI's library writes it: at a disk error the library would end
the process.
"""

import errno
import os
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from onnx import ModelProto

from triune.graph.all_tensors import tensors_of
from triune.graph.weight_files import num_bytes

_MORE_BYTES: Final = 1 << 20
"""The most bytes that an asset takes besides its program: the metadata and a hash."""

_PLENTY_BYTES: Final = 256 << 20
_PLENTY_TIMES: Final = 4
"""If at least `_PLENTY_BYTES` + `_PLENTY_TIMES` times the bytes of the models' weights are free, there is room for the
program in any case, and its size is not measured.
"""


def require_room(module: Any, asset: Path, models: Iterable[ModelProto]) -> None:
    """Check that the file system of `asset` has room for a program.

    Args:
        module: the program's module of `coreai.authoring`.
        asset: where the asset will be.
        models: the models that the program was made of.

    Raises:
        OSError: there is no room, or no file may be so large; the number is ENOSPC or EFBIG.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    free = shutil.disk_usage(asset.parent).free
    most = free if limit == resource.RLIM_INFINITY else min(free, limit)
    weights = sum(num_bytes(tensor) for model in models for tensor in tensors_of(model))
    if most >= _PLENTY_BYTES + _PLENTY_TIMES * weights:
        return
    counted = _Count()
    module._mlir_module.operation.write_bytecode(counted)
    needed = counted.num_bytes + _MORE_BYTES
    if needed > most:
        number = errno.ENOSPC if needed > free else errno.EFBIG
        raise OSError(number, os.strerror(number), f"{asset}")


class _Count:
    """A file that counts the bytes that are written to it."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def write(self, data: bytes) -> None:
        """Count `data`."""
        self.num_bytes += len(data)
