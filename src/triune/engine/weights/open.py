"""Opens checkpoints of any form."""

from pathlib import Path

from triune.core.errors import NotFoundError
from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.ctranslate2.checkpoint import FILENAME, CTranslate2Checkpoint
from triune.engine.weights.gguf.checkpoint import GgufCheckpoint
from triune.engine.weights.huggingface.checkpoint import HuggingFaceCheckpoint
from triune.engine.weights.pack import Inexact


def open_checkpoint(path: Path, *, inexact: Inexact = "dequantize") -> Checkpoint:
    """Open a `.gguf` file, a directory with `config.json` and safetensors, or a CTranslate2 directory with `model.bin`.
    `inexact` says how packed weights are converted that cannot be kept as they are (`Inexact`).

    Raises:
        NotFoundError: there is no such checkpoint.
        InvalidArgumentError: a file is truncated, or not what it claims to be.
        UnsupportedError: the architecture, an option of its config or a form of its weights is unknown.
    """
    if path.is_dir():
        if (path / FILENAME).exists() and next(path.glob("*.safetensors"), None) is None:
            return CTranslate2Checkpoint(path)
        return HuggingFaceCheckpoint(path, inexact)
    if not path.exists():
        raise NotFoundError(f"{path}: there is no such file or directory")
    return GgufCheckpoint(path, inexact)
