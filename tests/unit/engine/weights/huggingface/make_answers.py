"""Writes answers.json: what transformers 5.24 (with torch 2.13) says of configs, tensors and rotary embeddings.

Run it where both are installed: `python make_answers.py`. The tests need neither.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hub
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_TEXT = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
_T5 = {"vocab_size": 100, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}


def _models() -> dict[str, Any]:
    llama3 = _LLAMA3 | {"rope_theta": 500000.0, "original_max_position_embeddings": 64}
    return {
        "llama": hub.LlamaForCausalLM(hub.LlamaConfig(**_TEXT, rope_parameters=llama3)),
        "llama_biased": hub.LlamaForCausalLM(
            hub.LlamaConfig(**_TEXT, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
        ),
        "mistral": hub.MistralForCausalLM(hub.MistralConfig(**_TEXT, sliding_window=32)),
        "qwen2": hub.Qwen2ForCausalLM(
            hub.Qwen2Config(**_TEXT, use_sliding_window=True, sliding_window=16, max_window_layers=1)
        ),
        "qwen3": hub.Qwen3ForCausalLM(hub.Qwen3Config(**_TEXT, head_dim=32)),
        "smollm3": hub.SmolLM3ForCausalLM(hub.SmolLM3Config(**_TEXT | {"num_hidden_layers": 4})),
        "gemma": hub.GemmaForCausalLM(hub.GemmaConfig(**_TEXT, head_dim=16)),
        "gemma2": hub.Gemma2ForCausalLM(
            hub.Gemma2Config(**_TEXT, head_dim=16, sliding_window=8, query_pre_attn_scalar=25)
        ),
        "gemma3_text": hub.Gemma3ForCausalLM(
            hub.Gemma3TextConfig(**_TEXT | {"num_hidden_layers": 6}, head_dim=16, sliding_window=8)
        ),
        "phi3": hub.Phi3ForCausalLM(
            hub.Phi3Config(
                **_TEXT, original_max_position_embeddings=64, rope_parameters=_LONG | {"rope_theta": 10000.0}
            )
        ),
        "gpt2": hub.GPT2LMHeadModel(
            hub.GPT2Config(
                vocab_size=100, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
            )
        ),
        "bert": hub.BertForSequenceClassification(
            hub.BertConfig(
                vocab_size=100,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=96,
                id2label={0: "no", 1: "yes", 2: "maybe"},
            )
        ),
        "t5": hub.T5ForConditionalGeneration(hub.T5Config(**_T5, decoder_start_token_id=0)),
        "t5_gated": hub.T5ForConditionalGeneration(
            hub.T5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
        ),
        "whisper": hub.WhisperForConditionalGeneration(
            hub.WhisperConfig(
                vocab_size=100,
                d_model=64,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=96,
                decoder_ffn_dim=96,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                decoder_start_token_id=3,
                suppress_tokens=[1, 2],
                begin_suppress_tokens=[3],
            )
        ),
    }


def _tensors(model: Any) -> dict[str, list[int]]:
    """Those that are saved: shared ones once."""
    seen: set[int] = set()
    found: dict[str, list[int]] = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            found[name] = list(tensor.shape)
    return found


def _ropes() -> dict[str, Any]:
    short, long = [1 + i / 20 for i in range(16)], [1 + i / 2 for i in range(16)]
    original = {"original_max_position_embeddings": 2048}
    settings: dict[str, tuple[int, dict[str, Any]]] = {
        "linear": (100, {"rope_type": "linear", "factor": 4.0}),
        "dynamic": (9000, {"rope_type": "dynamic", "factor": 2.0}),
        "yarn": (9000, {"rope_type": "yarn", "factor": 4.0, **original}),
        "yarn_given": (
            9000,
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "truncate": False,
                "attention_factor": 1.25,
                **original,
            },
        ),
        "llama3": (9000, {**_LLAMA3, **original}),
        "longrope_short": (2000, {"rope_type": "longrope", "short_factor": short, "long_factor": long, **original}),
        "longrope_long": (9000, {"rope_type": "longrope", "short_factor": short, "long_factor": long, **original}),
    }
    answers: dict[str, Any] = {}
    for name, (length, parameters) in settings.items():
        given = {"rope_theta": 10000.0, **parameters}
        sizes = {"hidden_size": 256, "num_attention_heads": 8, "max_position_embeddings": 4096}
        config = hub.LlamaConfig(**sizes, rope_parameters=dict(given))
        frequencies, factor = ROPE_INIT_FUNCTIONS[given["rope_type"]](config, "cpu", seq_len=length)
        rounded = [float(f"{each:.7g}") for each in frequencies.tolist()]
        answers[name] = {"length": length, "parameters": given, "frequencies": rounded, "factor": factor}
    return answers


def _main() -> None:
    torch.manual_seed(0)
    models = {
        name: {"config": json.loads(model.config.to_json_string(use_diff=False)), "tensors": _tensors(model)}
        for name, model in _models().items()
    }
    text = json.dumps({"models": models, "ropes": _ropes()}, separators=(",", ":"), sort_keys=True)
    Path(__file__).with_name("answers.json").write_text(text + "\n")


if __name__ == "__main__":
    _main()
