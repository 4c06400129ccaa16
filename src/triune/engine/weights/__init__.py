"""Weights, configs and tokenizers of models on disk."""

from triune.engine.weights.checkpoint import Checkpoint
from triune.engine.weights.open import open_checkpoint
from triune.engine.weights.pack import Inexact
from triune.engine.weights.tensors import DenseTensor, PackedTensor, Regrouped, Tensor

__all__ = ["Checkpoint", "DenseTensor", "Inexact", "PackedTensor", "Regrouped", "Tensor", "open_checkpoint"]
