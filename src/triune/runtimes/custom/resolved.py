"""Makes ONNX files in which custom operators have their bodies, and keeps these files on disk."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from triune.graph.custom import CustomOps
from triune.graph.custom.resolve import told_hidden, with_bodies
from triune.graph.load import load, read_model
from triune.graph.optimizing.save import save
from triune.runtimes.cache_holds import collecting

if TYPE_CHECKING:
    from triune.runtimes.compiled_cache import CompiledCache

_log = logging.getLogger(__name__)

_SUFFIX: Final = ".onnx"
_FILENAME: Final = "model.onnx"


def resolved_file(path: Path, ops: CustomOps, cache: "CompiledCache | None" = None) -> Path:
    """The file in which a model's custom operators have their bodies, as functions of the model.

    Args:
        path: a model file.
        ops: the custom operators.
        cache: the folder for such files; None means the folder `custom` in Triune's cache folder.

    Returns:
        the new file; `path` itself if it is not an ONNX file, or uses no custom operator with a body.

    Raises:
        InvalidArgumentError: the file is not an ONNX model.
        UnavailableError: the cache cannot be written to.
    """
    if path.suffix != _SUFFIX or not ops.ops:
        return path
    model = read_model(path)
    for line in told_hidden(model, ops):
        _log.warning("'%s': %s", path, line)
    if with_bodies(model, ops) is None:
        return path
    # Import the cache only here: it imports the converters, which a server without custom operators does not need.
    from triune.runtimes.compiled_cache import CompiledCache, custom_ops_digest

    def make(folder: Path) -> None:
        folder.mkdir()
        whole = with_bodies(load(path), ops)
        assert whole is not None
        save(whole, folder / _FILENAME)

    kept = cache or CompiledCache(name="custom")
    # Without `collecting`, the cache would keep the entry until this process ends. The caller that loads the file keeps
    # the entry as long as it needs it.
    with collecting():
        return kept.get(custom_ops_digest(path, ops.digest()), make) / _FILENAME
