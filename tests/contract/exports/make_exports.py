"""Makes the models of `models/`: small decoders with seeded random weights, exported by the tools that people use.

Run it outside of Triune's environment, with the versions that made the stored files:

    pip install torch==2.13.0 transformers==4.57.6 optimum-onnx==0.1.0 onnx==1.23.2 onnxruntime==1.32.0 \
        onnxruntime-genai==0.11.4 onnx-ir==1.1.0 onnxscript==0.7.2
    python tests/contract/exports/make_exports.py tests/contract/exports/models
"""

import shutil
import sys
import tempfile
from pathlib import Path

import onnx
import torch
from onnxruntime_genai.models.builder import create_model
from optimum.exporters.onnx import main_export
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

WIDTH = 32
COMMON = {
    "vocab_size": 258,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
}

OPTIMUM = {
    "llama": LlamaConfig(**COMMON | {"head_dim": 8}),
    # Optimum writes its attention without the soft cap of scores, as `sdpa` computes it.
    "gemma2": Gemma2Config(
        **COMMON | {"head_dim": 8}, sliding_window=6, final_logit_softcapping=3.0, query_pre_attn_scalar=20
    ),
    "gpt2": GPT2Config(
        vocab_size=258,
        n_positions=128,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        n_inner=48,
        initializer_range=0.3,
        bos_token_id=256,
        eos_token_id=257,
    ),
}

GENAI = {
    "llama-int4": (LlamaConfig(**COMMON), "int4", {"int4_block_size": "16"}),
    "qwen2-int8": (Qwen2Config(**COMMON), "int4", {"int4_block_size": "16", "int4_algo_config": "rtn_last"}),
    "mistral": (MistralConfig(**COMMON | {"sliding_window": 6}), "fp32", {}),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, and two special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({each: i for i, each in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def save(config, folder: Path) -> None:
    """Write the config with seeded weights, and the tokenizer."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for each in model.parameters():
            if each.ndim == 1:
                each.add_(torch.randn(each.shape) * 0.1)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def keep(made: Path, target: Path) -> None:
    """Keep what serving reads, with the weights in the model's file."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "genai_config.json", "tokenizer.json"):
        if (made / name).exists():
            shutil.copyfile(made / name, target / name)
    model = onnx.load(made / "model.onnx")
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    del model.graph.value_info[:]
    onnx.save(model, target / "model.onnx")


def main(folder: Path) -> None:
    """Make all of them, each in a folder of its own."""
    for name, config in OPTIMUM.items():
        with tempfile.TemporaryDirectory() as scratch:
            source, made = Path(scratch) / "source", Path(scratch) / "made"
            save(config, source)
            main_export(str(source), output=made, task="text-generation-with-past", do_validation=False)
            keep(made, folder / f"optimum-{name}")
    for name, (config, precision, options) in GENAI.items():
        with tempfile.TemporaryDirectory() as scratch:
            source, made = Path(scratch) / "source", Path(scratch) / "made"
            save(config, source)
            create_model(None, str(source), str(made), precision, "cpu", str(Path(scratch) / "cache"), **options)
            keep(made, folder / f"genai-{name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
