"""Reads the one or several safetensors files of a directory as if they were one file. They are mapped into memory and
read lazily.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.files import non_file_kind
from triune.engine.weights.huggingface.files import read_json

_SINGLE = "model.safetensors"


class Store:
    """The tensors of a directory, as its files have them.

    Attributes:
        shapes: the shape of each tensor, by name.
        dtypes: safetensors' names of the element types, by name.
    """

    def __init__(self, folder: Path, single: str = _SINGLE) -> None:
        """Open the files, and check that the size and the offset of each tensor fit them.

        Args:
            folder: the directory.
            single: the name of the file if there is only one; if there are several, the index file has this name with
                `.index.json`.

        Raises:
            NotFoundError: there is neither this file nor the index file.
            InvalidArgumentError: a file is missing or broken, or the index names tensors that are not there.
        """
        self._files: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self._folder = folder
        index_name = f"{single}.index.json"
        index = read_json(folder / index_name)
        if index is None:
            if not (folder / single).exists():
                raise NotFoundError(f"{folder}: there is neither {single} nor {index_name} in it")
            self._open(single, None)
            return
        parts = _parts(index, f"{folder.name}/{index_name}")
        for name, tensors in parts.items():
            self._open(name, tensors)

    def read(self, name: str, rows: slice = slice(None)) -> Array:
        """Rows of a tensor, in its own dtype; BF16 as `ml_dtypes.bfloat16`. Read-only."""
        try:
            if rows == slice(None):
                values = cast("Array", self._files[name].get_tensor(name))
            else:
                values = cast("Array", self._files[name].get_slice(name)[rows])
        except (SafetensorError, TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{self._folder.name}: the tensor {name!r} cannot be read: {error}") from error
        values.flags.writeable = False
        return values

    def _open(self, file_name: str, tensors: set[str] | None) -> None:
        path = self._folder / file_name
        where = f"{self._folder.name}/{file_name}"
        try:
            kind = non_file_kind(path)
            if kind is not None:
                raise InvalidArgumentError(f"{where}: it is {kind}, not a file")
            file = cast("Any", safe_open(path, "np"))
        except (OSError, SafetensorError) as error:
            raise InvalidArgumentError(f"{where}: cannot be read: {error}") from error
        names = cast("list[str]", list(file.keys()))
        if tensors is not None and not tensors <= set(names):
            missing = sorted(tensors.difference(names))
            raise InvalidArgumentError(f"{where}: {len(missing)} tensors of the index are not in it: {missing[:3]}")
        for name in names:
            if name in self._files:
                raise InvalidArgumentError(f"{where}: the tensor {name!r} is also in another file")
            view = file.get_slice(name)
            self._files[name] = file
            self.shapes[name] = tuple(view.get_shape())
            self.dtypes[name] = view.get_dtype()


def _parts(index: Mapping[str, object], where: str) -> dict[str, set[str]]:
    """The names of the files that an index lists, each with the names of the tensors that should be in it."""
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise InvalidArgumentError(f"{where}: weight_map is missing, empty or no object")
    parts: dict[str, set[str]] = {}
    for tensor, file in cast("dict[str, object]", weights).items():
        # Only plain names of files are accepted: a path could lead out of the directory.
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise InvalidArgumentError(f"{where}: {tensor!r} is in {file!r}; expected the name of a .safetensors file")
        parts.setdefault(file, set()).add(tensor)
    return parts
