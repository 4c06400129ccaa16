"""The samples on which a tensor model's units are compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triune.backends.gate.sample import Sample
from triune.config.model_config import ModelConfig
from triune.config.samples import trial_inputs
from triune.core.datatypes import Array
from triune.core.runtime import Executable

_SCORES: Final = ("logits", "scores", "probabilities", "probs", "softmax")
"""Parts of the names that exporters give to outputs with scores of classes."""


@dataclass(frozen=True, slots=True)
class _ArraySample:
    """A sample of arrays.

    Attributes:
        inputs: the arrays by name.
        outputs: the names of the outputs to compute.
    """

    inputs: Mapping[str, Array]
    outputs: Sequence[str]

    def __call__(self, executable: Executable, /) -> Mapping[str, Array]:
        """Run the executable."""
        return executable.run(self.inputs, self.outputs)


def samples_of(config: ModelConfig, folder: Path) -> Iterator[Sample]:
    """The samples of a model, the most likely ones first. They are created one after another when they are needed.

    Args:
        config: the model's configuration.
        folder: the model's folder, for its warm-up files.
    """
    outputs = list(config.outputs)
    return (_ArraySample(inputs, outputs) for inputs in trial_inputs(config, folder))


def scores_of(config: ModelConfig) -> frozenset[str]:
    """The outputs that are scores of classes: outputs with labels, or with a name such as "scores"."""
    return frozenset(
        name
        for name, tensor in config.outputs.items()
        if tensor.labels or any(word in name.lower() for word in _SCORES)
    )
