import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from support.gguf_files import f32, llama_metadata, llama_tensors, random, text, value, write_gguf
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.engine.weights import DenseTensor, open_checkpoint
from triune.engine.weights.config import FactorScaling, LinearScaling, LlamaConfig, YarnScaling
from triune.engine.weights.gguf.file import open_gguf


def _open(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    open_gguf(path)


def _head(num_tensors: int, num_keys: int, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, num_tensors, num_keys)


def _tensor(name: str | bytes, sizes: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def _key(name: str, kind: int, content: bytes = b"") -> bytes:
    return _head(0, 1) + text(name) + struct.pack("<I", kind) + content


_MANY = (1 << 64) - 1
_WRONG = {
    "nothing": (b"", "the file is empty"),
    "three bytes": (b"GGU", "the magic number needs 4 bytes at byte 0; the file ends 3 bytes later"),
    "another file": (b"\x93NUMPY" + bytes(100), "it starts with b'\\x93NUM', not b'GGUF'"),
    "a version of old": (_head(0, 0, 1), "the file is of version 1"),
    "big-endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "the file is big-endian (version 3)"),
    "many tensors": (_head(_MANY, 0), f"the number of tensors is {_MANY}; at most 65536 are read"),
    "more tensors than bytes": (_head(9, 0) + bytes(99), "and the 107 bytes left hold 4"),
    "many keys": (_head(0, _MANY), f"the number of metadata keys is {_MANY}; at most 65536"),
    "a long key": (_head(0, 1) + struct.pack("<Q", 1 << 40) + bytes(50), "has 1099511627776 bytes; at most 65536"),
    "a key past the end": (_head(0, 1) + struct.pack("<Q", 60) + bytes(20), "needs 60 bytes at byte 32"),
    "a key that is no text": (_head(0, 1) + text(b"\xff\xfe") + bytes(20), "metadata key 0 is not UTF-8"),
    "a type that is none": (_key("k", 13, bytes(8)), "'k' has the value type 13; known are 0 to 12"),
    "a boolean of 2": (_key("k", 7, b"\x02"), "'k' is a boolean of value 2"),
    "a long text": (_key("k", 8, struct.pack("<Q", _MANY)), f"'k' has {_MANY} bytes; at most"),
    "a long array": (_key("k", 9, struct.pack("<IQ", 4, _MANY)), f"'k' needs {_MANY * 4} bytes"),
    "a long array of texts": (_key("k", 9, struct.pack("<IQ", 8, _MANY)), f"the length of 'k' is {_MANY}; at most"),
    "texts past the end": (_key("k", 9, struct.pack("<IQQ", 8, 1, 99)), "element 0 of 'k' has 99 bytes"),
    "texts that are none": (_key("k", 9, struct.pack("<IQ", 8, 1) + text(b"\xff")), "element 0 of 'k' is not UTF-8"),
    "arrays in arrays": (_key("k", 9, struct.pack("<IQ", 9, 1) + bytes(20)), "is an array of arrays"),
    "a key twice": (_head(0, 2) + (text("k") + value(1)) * 2, "the metadata key 'k' is given twice"),
    "an odd alignment": (
        _head(0, 1) + text("general.alignment") + value(33),
        "general.alignment is 33; expected a power",
    ),
    "a huge alignment": (_head(0, 1) + text("general.alignment") + value(1 << 31), "expected a power of two from 8 to"),
    "no dimensions": (_head(1, 0) + _tensor("t", [], 0, 0) + bytes(64), "has 0 dimensions; expected 1 to 4"),
    "many dimensions": (_head(1, 0) + _tensor("t", [1] * 5, 0, 0) + bytes(64), "has 5 dimensions"),
    "a size of 0": (_head(1, 0) + _tensor("t", [0], 0, 0) + bytes(64), "has the sizes [0]; expected no 0"),
    "half a block": (_head(1, 0) + _tensor("t", [33, 2], 2, 0) + bytes(64), "the first a multiple of Q4_0's 32"),
    "a form that is none": (_head(1, 0) + _tensor("t", [32], 99, 0) + bytes(64), "has ggml's type 99"),
    "huge sizes": (_head(1, 0) + _tensor("t", [1 << 40, 1 << 40], 0, 0) + bytes(64), "lies at bytes 96 to"),
    "a file that is cut short": (
        _head(2, 0) + _tensor("t", [8], 0, 0) + _tensor("u", [64], 0, 32) + bytes(64),
        "cut short: it has 154 of 384 bytes; copy or download it again",
    ),
    "an offset past the end": (_head(1, 0) + _tensor("t", [8], 0, 1 << 50) + bytes(64), "lies at bytes"),
    "an odd offset": (
        _head(1, 0) + _tensor("t", [8], 0, 4) + bytes(64),
        "starts at offset 4, which is no multiple",
    ),
    "a tensor twice": (_head(2, 0) + _tensor("t", [8], 0, 0) * 2 + bytes(99), "the tensor 't' is given twice"),
    "tensors in each other": (
        _head(2, 0) + _tensor("t", [16], 0, 0) + _tensor("u", [8], 0, 32) + bytes(128),
        "the tensor 'u' starts at byte 128, within 't', which ends at 160",
    ),
    "a long name": (_head(1, 0) + _tensor("t" * 300, [8], 0, 0) + bytes(64), "has 300 bytes; at most 256"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_a_wrong_file_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    content, message = _WRONG[name]
    tracemalloc.start()
    try:
        with pytest.raises(TriuneError) as caught:
            _open(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)
    assert str(caught.value).startswith("model.gguf: ")


def test_a_hole_of_ten_gigabytes_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(_head(0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 30))
    with path.open("r+b") as file:
        file.truncate(10 << 30)
    with pytest.raises(InvalidArgumentError, match="the length of 'k' is 1073741824; at most 2097152 are read"):
        open_gguf(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_checkpoint(tmp_path / "none.gguf")
    (tmp_path / "loop.gguf").symlink_to("/dev/zero")
    with pytest.raises(InvalidArgumentError, match="it is a device, not a file"):
        open_checkpoint(tmp_path / "loop.gguf")


def test_a_small_llama(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", llama_metadata(), llama_tensors())
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    assert isinstance(config, LlamaConfig)
    assert (config.vocab_size, config.hidden_size, config.head_dim, config.num_hidden_layers) == (40, 64, 16, 2)
    assert config.tie_word_embeddings
    embedding = checkpoint.tensor("model.embed_tokens.weight")
    assert isinstance(embedding, DenseTensor)
    np.testing.assert_array_equal(embedding.values, random(40, 64))
    # A view of the file: nothing is copied, nothing can be changed.
    assert not embedding.values.flags.owndata
    assert not embedding.values.flags.writeable
    # As llama.cpp's converter orders the rows of a head: those of its two halves in turn.
    theirs = random(64, 64, seed=2)
    ours = checkpoint.tensor("model.layers.0.self_attn.q_proj.weight").dequantize()
    back = ours.reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    np.testing.assert_array_equal(back, theirs)
    with pytest.raises(NotFoundError, match=r"model\.gguf has no tensor 'blk"):
        checkpoint.tensor("blk.0.attn_q.weight")
    assert checkpoint.chat_template is None
    with pytest.raises(InvalidArgumentError, match=r"tokenizer\.ggml: model is None"):
        checkpoint.tokenizer()


def test_rotary_scalings(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"

    def scaling(tensors: dict[str, tuple[int, list[int], bytes]], **settings: object) -> object:
        checkpoint = open_checkpoint(write_gguf(path, llama_metadata(**settings), llama_tensors() | tensors))
        assert isinstance(checkpoint.config, LlamaConfig)
        rope = checkpoint.config.layers[0].rope
        assert rope is not None
        return rope.scaling

    assert scaling({}) is None
    linear = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    assert scaling({}, **linear) == LinearScaling(4.0)
    yarn = linear | {"llama__rope__scaling__type": "yarn", "llama__rope__scaling__original_context_length": 64}
    assert scaling({}, **yarn) == YarnScaling(4.0, 64, pytest.approx(1 + 0.1 * np.log(4)))
    factors = np.array([1, 1, 1, 2, 3, 4, 8, 8], np.float32)
    assert scaling({"rope_freqs.weight": (0, [8], factors.tobytes())}) == FactorScaling(tuple(factors.tolist()))
    with pytest.raises(InvalidArgumentError, match=r"'rope_freqs\.weight' has the shape \[4\]; expected 8 factors"):
        scaling({"rope_freqs.weight": f32(4)})
    with pytest.raises(InvalidArgumentError, match="a factor in 'rope_freqs.weight' is not a finite number above 0"):
        scaling({"rope_freqs.weight": (0, [8], bytes(32))})


@pytest.mark.parametrize(
    ("settings", "tensors", "kind", "message"),
    [
        ({"general__architecture": "mamba"}, {}, UnsupportedError, "the architecture 'mamba' is not known here"),
        ({"split__count": 3}, {}, UnsupportedError, "it is one of 3 files of a model; join them"),
        ({"llama__expert_count": 8}, {}, UnsupportedError, "1 settings are not known here: expert_count = 8"),
        (
            {"llama__block_count": 3},
            {},
            InvalidArgumentError,
            "9 of 29 tensors are missing: model.layers.2",
        ),
        ({"llama__embedding_length": 32}, {}, InvalidArgumentError, "by the file's metadata it has 32"),
        ({"llama__block_count": 1 << 31}, {}, InvalidArgumentError, "block_count is 2147483648; expected .* to 4096"),
        ({"llama__attention__head_count": 0}, {}, InvalidArgumentError, "attention.head_count is 0"),
        ({"llama__rope__scaling__type": "odd"}, {}, UnsupportedError, "rope.scaling.type is 'odd'; known here are"),
        ({"llama__attention__causal": False}, {}, UnsupportedError, "attention.causal is false"),
        ({}, {"blk.0.ffn_gate_inp.weight": f32(4, 64)}, UnsupportedError, "the tensor 'blk.0.ffn_gate_inp.weight'"),
        (
            {},
            {"blk.0.attn_k.weight": f32(64, 64)},
            InvalidArgumentError,
            "has 64 rows; by the file's metadata",
        ),
        ({}, {"blk.7.attn_v.weight": f32(32, 64)}, UnsupportedError, r"layers\.7\.self_attn\.v_proj"),
    ],
)
def test_models_that_are_refused(
    settings: dict[str, object],
    tensors: dict[str, tuple[int, list[int], bytes]],
    kind: type[TriuneError],
    message: str,
    tmp_path: Path,
) -> None:
    path = write_gguf(tmp_path / "model.gguf", llama_metadata(**settings), llama_tensors() | tensors)
    with pytest.raises(kind, match=message):
        open_checkpoint(path)


def test_weights_in_a_form_that_is_not_read(tmp_path: Path) -> None:
    tensors = llama_tensors() | {"blk.0.ffn_down.weight": (26, [96, 64], bytes(64 * 96 * 4))}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "model.gguf", llama_metadata(), tensors))
    with pytest.raises(UnsupportedError, match=r"blk\.0\.ffn_down\.weight: weights in the form I32 are not read"):
        checkpoint.tensor("model.layers.0.mlp.down_proj.weight")


@pytest.mark.parametrize(("form", "block_bytes", "at", "what"), [(2, 18, 18, "a scale"), (3, 20, 22, "an offset")])
def test_a_damaged_number_is_told(tmp_path: Path, form: int, block_bytes: int, at: int, what: str) -> None:
    blocks = bytearray(64 * 3 * block_bytes)
    blocks[at : at + 2] = b"\x00\x7e"
    tensors = llama_tensors() | {"blk.0.ffn_down.weight": (form, [96, 64], bytes(blocks))}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "model.gguf", llama_metadata(), tensors))
    with pytest.raises(InvalidArgumentError, match=rf"ffn_down\.weight: {what} of its weights is not finite"):
        checkpoint.tensor("model.layers.0.mlp.down_proj.weight")
