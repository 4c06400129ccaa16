"""SmolLM2 as a Core ML package with caches of two sizes, read step by step, against the engine's paged form."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import triune
from support.decoder_steps import Texts
from support.smollm2 import smollm2_gguf
from triune.api.ladders import open_ladder
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.weights import open_checkpoint
from triune.graph.verify import Verdict

pytest.importorskip("coremltools")
pytest.importorskip("openvino")

CONTEXTS = (64, 256)
NUM_TOKENS = 40
TEXT = (
    "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is Rome. Once upon a time "
    "there was a small boat that sailed across the sea, and"
)


@pytest.mark.timeout(3600)
def test_the_greedy_continuation_is_that_of_the_paged_form(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--whole"):
        pytest.skip("it takes minutes: run it by --whole")
    from triune.runtimes.openvino.decoder import OpenVinoDecoder

    package = tmp_path / "smollm2.mlpackage"
    done = triune.convert(smollm2_gguf(), package, contexts=CONTEXTS, cache="argument", verify=True)
    assert done.verdict is Verdict.RIGHT
    checkpoint = open_checkpoint(smollm2_gguf(), inexact="offsets")
    ids = checkpoint.tokenizer().encode(TEXT)
    assert len(ids) < CONTEXTS[0] < len(ids) + NUM_TOKENS, "the answer goes on in the second cache"
    graph = write_model(checkpoint.config, checkpoint, "paged", num_positions=CONTEXTS[-1])
    decoder = OpenVinoDecoder(graph, unit=Unit.CPU, num_threads=2, num_blocks=20, cache_type="fp32", is_exact=True)
    with closing(decoder), closing(open_ladder(package, CONTEXTS)) as ladder:
        text = Texts(decoder, [np.array([*ids, *[0] * NUM_TOKENS])])
        expected = [int(text.read({0: len(ids)})[0][-1].argmax())]
        held = ladder.start()
        (logits,) = ladder.read(held, 0, np.array(ids), [len(ids) - 1])
        found = [int(logits.argmax())]
        for place in range(len(ids), len(ids) + NUM_TOKENS - 1):
            text.texts[0][place] = expected[-1]
            expected.append(int(text.read({0: 1})[0][-1].argmax()))
            (logits,) = ladder.read(held, place, np.array(found[-1:]), [0])
            found.append(int(logits.argmax()))
    assert held.context == CONTEXTS[-1]
    assert found == expected
