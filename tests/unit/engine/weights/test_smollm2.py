"""The whole way on real weights: SmolLM2, whose GGUF file has Q4_1, Q8_0 and F32."""

import gguf
import numpy as np
import pytest

from support.smollm2 import smollm2_gguf
from triune.engine.weights import DenseTensor, PackedTensor, open_checkpoint
from triune.engine.weights.config import Layer, LlamaConfig, Rope, SpecialTokens


@pytest.fixture(scope="module")
def theirs() -> gguf.GGUFReader:
    return gguf.GGUFReader(smollm2_gguf())


def test_config() -> None:
    config = open_checkpoint(smollm2_gguf()).config
    assert isinstance(config, LlamaConfig)
    assert config.tokens == SpecialTokens(bos=1, eos=(2,), pad=2)
    assert config.layers == (Layer(0, Rope(100000.0, 64)),) * 30
    assert (config.hidden_size, config.intermediate_size, config.head_dim) == (576, 1536, 64)
    assert (config.num_attention_heads, config.num_key_value_heads) == (9, 3)
    assert config.tie_word_embeddings


def test_every_tensor_is_what_the_formats_own_library_reads(theirs: gguf.GGUFReader) -> None:
    checkpoint = open_checkpoint(smollm2_gguf())
    tensors = {tensor.name: tensor for tensor in theirs.tensors}
    assert len(checkpoint.names) == len(tensors) == 272
    for name in checkpoint.names:
        part = "token_embd" if name == "model.embed_tokens.weight" else "output_norm"
        if name.startswith("model.layers."):
            _, _, layer, *words, _ = name.split(".")
            part = f"blk.{layer}.{_WORDS['.'.join(words)]}"
        truth = gguf.quants.dequantize(tensors[f"{part}.weight"].data, tensors[f"{part}.weight"].tensor_type)
        ours = checkpoint.tensor(name)
        if part.endswith(("attn_q", "attn_k")):
            # llama.cpp rotates neighbours: rows 2i and 2i + 1 of a head are rows i and i + 32 of Hugging Face's.
            truth = truth.reshape(-1, 32, 2, 576).transpose(0, 2, 1, 3).reshape(truth.shape)
        assert ours.shape == truth.shape == checkpoint.shape(name)
        assert ours.dequantize().tobytes() == truth.tobytes(), name


_WORDS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def test_what_becomes_of_q4_1() -> None:
    name = "model.layers.3.mlp.down_proj.weight"
    dense = open_checkpoint(smollm2_gguf()).tensor(name)
    assert isinstance(dense, DenseTensor)
    kept = open_checkpoint(smollm2_gguf(), inexact="offsets").tensor(name)
    assert isinstance(kept, PackedTensor)
    assert (kept.bits, kept.regrouped) == (4, None)
    assert kept.dequantize().tobytes() == dense.values.tobytes()
    errors = {}
    for inexact in ("regroup", "widen"):
        packed = open_checkpoint(smollm2_gguf(), inexact=inexact).tensor(name)
        assert isinstance(packed, PackedTensor)
        assert packed.regrouped is not None
        assert packed.bits == {"regroup": 4, "widen": 8}[inexact]
        difference = packed.dequantize().astype(np.float64) - dense.values
        assert packed.regrouped.largest == pytest.approx(np.abs(difference).max(), rel=1e-4)
        assert packed.regrouped.rms == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-4)
        errors[inexact] = packed.regrouped.relative_rms
    assert 0.06 < errors["regroup"] < 0.09
    assert 0.003 < errors["widen"] < 0.006


def test_q8_0_is_kept_as_it_is() -> None:
    embedding = open_checkpoint(smollm2_gguf()).tensor("model.embed_tokens.weight")
    assert isinstance(embedding, PackedTensor)
    assert (embedding.shape, embedding.bits, embedding.block_size, embedding.form) == ((49152, 576), 8, 32, "Q8_0")
    assert embedding.is_signed
    assert embedding.scales.dtype == np.float16


# By transformers 5.24, out of the same file.
_KNOWN = {
    "The capital of France is": [504, 3575, 282, 4649, 314],
    "Hello, world! 12345 + 67.8": [19556, 28, 905, 17, 216, 33, 34, 35, 36, 37, 1232, 216, 38, 39, 30, 40],
    "  indented\n\tand tabs\n\n": [216, 641, 6574, 198, 197, 397, 29416, 1116],
    "naïve café — 東京 👩\u200d🚀": [
        3546, 46494, 37366, 1841, 17097, 247, 126, 16736, 122, 15107, 235, 119, 321, 231, 10813, 244, 218,
    ],
    "def f(x):\n    return x ** 2\n": [1604, 275, 24, 104, 727, 472, 1003, 1792, 1903, 216, 34, 198],
    "I'll, YOU'LL, it's 3's": [57, 3060, 28, 12246, 23, 16421, 28, 357, 506, 216, 35, 506],
}  # fmt: skip


@pytest.mark.parametrize("text", _KNOWN)
def test_texts_become_the_known_ids(text: str) -> None:
    tokenizer = open_checkpoint(smollm2_gguf()).tokenizer()
    assert tokenizer.encode(text) == _KNOWN[text]
    assert tokenizer.encode_all([text, text]) == [_KNOWN[text]] * 2
    assert tokenizer.decode(_KNOWN[text]) == text
    assert b"".join(tokenizer.token_bytes[token] for token in _KNOWN[text]).decode() == text


def test_chat_template() -> None:
    checkpoint = open_checkpoint(smollm2_gguf())
    template = checkpoint.chat_template
    assert template is not None
    prompt = template.render([{"role": "user", "content": "Hi"}])
    assert prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    tokenizer = checkpoint.tokenizer()
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    assert ids[0] == 1
    assert ids.count(2) == 2
    assert tokenizer.decode(ids, skip_special_tokens=False) == prompt
    assert tokenizer.encode("<|im_start|>user\nHi<|im_end|>") == [1, 4093, 198, 26843, 2]
