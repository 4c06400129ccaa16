import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.decoders.cases import CONFIGS, SeededWeights
from support.ladders import graph_decoder
from triune.core.decoder import CacheType, DecoderExecutable
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.models.builder import Weights
from triune.engine.weights.lora import Adapter
from triune.runtimes import missing
from triune.runtimes.reference_decoder import ReferenceDecoder

NUM_BLOCKS = 12
"""Blocks of a cache: those of three texts of up to 40 tokens, if a block holds 16."""


@dataclass
class Bench:
    """An implementation of the seam."""

    name: str
    _loaded: list[DecoderExecutable] = field(default_factory=list)

    def load(
        self,
        case: str,
        weights: Weights | None = None,
        *,
        cache_type: CacheType = "fp32",
        num_blocks: int = NUM_BLOCKS,
        adapters: Sequence[Adapter] = (),
    ) -> DecoderExecutable:
        """A decoder of the case in fp32, its weights seeded ones if none are given."""
        config = CONFIGS[case]
        model = write_model(config, weights or SeededWeights(config), "paged", adapters=adapters)
        if self.name == "reference":
            decoder: DecoderExecutable = ReferenceDecoder(model, num_blocks=num_blocks)
        elif self.name == "ladder":
            decoder = graph_decoder(config, weights or SeededWeights(config), model, num_blocks)
        elif self.name == "mlx":
            from triune.runtimes.mlx.decoder import MlxDecoder

            decoder = MlxDecoder(model, num_blocks=num_blocks, precision="fp32", cache_type=cache_type)
        else:
            from triune.runtimes.openvino.decoder import OpenVinoDecoder

            options = {"unit": Unit.CPU, "num_threads": 1, "num_blocks": num_blocks}
            decoder = OpenVinoDecoder(model, cache_type=cache_type, is_exact=True, **options)
        self._loaded.append(decoder)
        return decoder

    def close(self) -> None:
        """Close what was loaded."""
        for decoder in self._loaded:
            decoder.close()


def other_form(case: str) -> DecoderExecutable:
    """The case in a decoder of a block size that no other has."""
    config = CONFIGS[case]
    return ReferenceDecoder(write_model(config, SeededWeights(config), "paged"), num_blocks=9, block_size=5)


NOT_ON_LADDERS = {
    # A block is a whole sequence: none is shared, full, or one of several.
    "test_tokens_that_do_not_fit_are_refused",
    "test_sequences_share_blocks_of_an_equal_beginning",
    "test_steps_that_do_not_fit_are_refused",
    "test_sequences_together_get_what_each_gets_alone",
    "test_sequences_that_gave_up_their_blocks_go_on_where_they_were",
    "test_blocks_come_back_from_files_after_a_restart",
}
"""Tests of what decoders with explicit caches do not claim; nor do they take LoRA adapters."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bench" not in metafunc.fixturenames:
        return
    names = ["reference", "openvino", "mlx"]
    if metafunc.function.__name__ not in NOT_ON_LADDERS and not metafunc.module.__name__.endswith("test_adapters"):
        names.append("ladder")
    metafunc.parametrize("bench", names, indirect=True)


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param in ("openvino", "mlx") and (reason := missing().get(request.param)):
        pytest.skip(reason)
    bench = Bench(request.param)
    yield bench
    bench.close()


@functools.cache
def answers() -> dict[str, NDArray[np.float32]]:
    """What Hugging Face's transformers answer, by case."""
    with np.load(Path(__file__).parent / "answers.npz") as file:
        return dict(file)
