"""A model's weights, config and tokenizer on disk: a GGUF file, or a directory in Hugging Face's form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from triune.engine.weights.config import ModelConfig
from triune.engine.weights.tensors import Tensor

Inexact: TypeAlias = Literal["dequantize", "regroup", "widen"]
"""What becomes of a packed form that codes, scales and whole zero points cannot hold exactly (Q4_1, Q4_K, Q5_K, MLX's):
"dequantize" gives the exact weights, dense; "regroup" the nearest packed tensor of as many bits (8 for those of 5);
"widen" one of 8 bits, with a sixteenth of the error. `PackedTensor.regrouped` tells what was lost."""


class Checkpoint(Protocol):
    """An opened checkpoint. Its files are mapped into memory, a tensor is read when asked for, in any thread."""

    @property
    def config(self) -> ModelConfig:
        """The architecture and its sizes."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The names of the tensors, in Hugging Face's form: `model.layers.0.self_attn.q_proj.weight`."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it. Raises as `tensor` does."""
        ...

    def tensor(self, name: str) -> Tensor:
        """A tensor; matrices are [out, in], whatever the file has. Each call reads it again.

        Raises:
            NotFoundError: there is no such tensor.
            InvalidArgumentError: the file's bytes are no such tensor.
        """
        ...


def open_checkpoint(path: Path, *, inexact: Inexact = "dequantize") -> Checkpoint:
    """Open a `.gguf` file, or a directory with `config.json` and safetensors.

    Raises:
        NotFoundError: there is neither.
        InvalidArgumentError: a file is truncated, or not what it claims to be.
        UnsupportedError: the architecture, an option of its config or a form of its weights is unknown.
    """
    raise NotImplementedError
