"""Write the pieces of a graph to files, from which runtimes load them. All files refer to one copy of the weights."""

import os
import shutil
from pathlib import Path, PurePath

from onnx import TensorProto

from triune.graph.split import Piece
from triune.graph.weight_files import num_bytes, refer


class PieceFolder:
    """A folder of pieces, and of the files with their large weights.

    A weight file is linked into the folder, or copied once if the folder is on another file system. All pieces refer to
    it, so that weights that several pieces read are stored once.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` exists and is empty."""
        self._folder = folder
        self._linked: dict[str, str] = {}
        self._num_pieces = 0

    def save(self, piece: Piece) -> Path:
        """Write a piece as an ONNX file; returns its path. The locations of its external data become relative.

        Raises:
            OSError: a file cannot be read or written.
        """
        for tensor in piece.model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                entries = {entry.key: entry.value for entry in tensor.external_data}
                name = self._weights(entries["location"])
                refer(tensor, PurePath(name), int(entries.get("offset", "0")), num_bytes(tensor))
        path = self._folder / f"piece-{self._num_pieces}.onnx"
        self._num_pieces += 1
        path.write_bytes(piece.model.SerializeToString())
        return path

    def _weights(self, location: str) -> str:
        """The name in the folder of a weight file."""
        if location not in self._linked:
            name = f"weights-{len(self._linked)}"
            source, target = Path(location).resolve(), self._folder / name
            try:
                os.link(source, target)
            except OSError:
                # Copy a file that cannot be linked: the folder may be on another file system, or the file system may
                # have no links.
                shutil.copyfile(source, target)
            self._linked[location] = name
        return self._linked[location]
