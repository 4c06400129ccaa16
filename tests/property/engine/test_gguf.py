"""Files that were cut, or had bytes changed, are refused with a typed error or read: nothing else happens."""

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.examples import examples
from support.gguf_files import llama_metadata, llama_tensors, write_gguf
from triune.core.errors import TriuneError
from triune.engine.weights import open_checkpoint
from triune.engine.weights.pack import Inexact

_MODES: list[Inexact] = ["dequantize", "offsets", "regroup", "widen"]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    tensors = llama_tensors()
    for number, name in enumerate(["Q4_0", "Q4_1", "Q8_0"]):
        kind = gguf.GGMLQuantizationType[name]
        shape = (96, 64)
        packed = gguf.quants.quantize(np.random.default_rng(number).standard_normal(shape, np.float32), kind)
        for layer in range(2):
            tensors[f"blk.{layer}.{['ffn_gate', 'ffn_up', 'ffn_gate'][number]}.weight"] = (
                int(kind),
                [64, 96],
                packed.tobytes(),
            )
    vocabulary = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [
            "<unk>",
            "<s>",
            "</s>",
            *(f"<0x{byte:02X}>" for byte in range(32)),
            "a",
            "b",
            "ab",
            "▁",
            "▁a",
        ],
        "tokenizer.ggml.scores": np.arange(40, 0, -1).astype(np.float32),
        "tokenizer.ggml.token_type": np.array([2, 3, 3, *[6] * 32, *[1] * 5]),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{% for m in messages %}{{ bos_token ~ m.content }}{% endfor %}",
    }
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", llama_metadata() | vocabulary, tensors)
    checkpoint = open_checkpoint(path)
    assert checkpoint.tokenizer().encode("ab") == [1, 38, 37]
    assert checkpoint.chat_template is not None
    return path.read_bytes()


_CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)


@given(changes=_CHANGES, in_head=st.booleans(), cut=st.none() | st.floats(0, 1), mode=st.sampled_from(_MODES))
@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_files(
    content: bytes, tmp_path: Path, changes: list[tuple[float, int]], in_head: bool, cut: float | None, mode: Inexact
) -> None:
    changed = bytearray(content)
    # The head is a small part of the file, and the one where most can go wrong.
    size = content.index(b"output_norm") + 3000 if in_head else len(content)
    for place, byte in changes:
        changed[int(place * (size - 1))] = byte
    path = tmp_path / "model.gguf"
    path.write_bytes(changed if cut is None else changed[: int(cut * len(changed))])
    tracemalloc.start()
    try:
        _use(path, mode)
    except TriuneError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20


def _use(path: Path, mode: Inexact) -> None:
    checkpoint = open_checkpoint(path, inexact=mode)
    for name in checkpoint.names:
        tensor = checkpoint.tensor(name)
        assert tensor.shape == checkpoint.shape(name)
        assert tensor.dequantize().dtype == np.float32
    template = checkpoint.chat_template
    tokenizer = checkpoint.tokenizer()
    tokenizer.decode(tokenizer.encode("a ab"))
    if template is not None:
        template.render([{"role": "user", "content": "ab"}])
