"""Configs, tensors and rotary embeddings as transformers has them; `make_answers.py` says how they were asked."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights import DenseTensor, open_checkpoint
from triune.engine.weights.config import (
    BertConfig,
    Gpt2Config,
    Llama3Scaling,
    LlamaConfig,
    LongScaling,
    SpecialTokens,
    T5Config,
    WhisperConfig,
)
from triune.engine.weights.fields import Fields
from triune.engine.weights.huggingface.rope import read_ropes
from triune.engine.weights.left_out import left_out

_ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_text())


def _write(folder: Path, name: str, **changes: object) -> Path:
    answer = _ANSWERS["models"][name]
    (folder / "config.json").write_text(json.dumps(answer["config"] | changes))
    rng = np.random.default_rng(0)
    tensors = {each: rng.standard_normal(shape).astype(np.float32) for each, shape in answer["tensors"].items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", _ANSWERS["models"])
def test_a_model_of_transformers_opens(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(_write(tmp_path, name))
    num_weights = 0
    for each in checkpoint.names:
        tensor = checkpoint.tensor(each)
        assert isinstance(tensor, DenseTensor)
        assert tensor.shape == checkpoint.shape(each)
        assert not tensor.values.flags.writeable
        num_weights += tensor.values.size
    assert num_weights == sum(math.prod(shape) for shape in _ANSWERS["models"][name]["tensors"].values())


def _llama(name: str, tmp_path: Path, **changes: object) -> LlamaConfig:
    config = open_checkpoint(_write(tmp_path, name, **changes)).config
    assert isinstance(config, LlamaConfig)
    return config


def _windows(config: LlamaConfig) -> list[int]:
    return [layer.sliding_window for layer in config.layers]


def test_llama(tmp_path: Path) -> None:
    config = _llama("llama", tmp_path)
    assert (config.hidden_size, config.intermediate_size, config.vocab_size) == (64, 96, 100)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 16)
    assert config.attention_scale == 0.25
    assert config.tokens == SpecialTokens(bos=1, eos=(2,), pad=0)
    assert config.layers[0].rope is not None
    assert config.layers[0].rope.rope_theta == 500000
    assert config.layers[0].rope.scaling == Llama3Scaling(8.0, 1.0, 4.0, 64)


def test_biases(tmp_path: Path) -> None:
    config = _llama("llama_biased", tmp_path)
    assert config.attention_bias
    assert config.attention_output_bias
    assert config.mlp_bias
    assert config.tie_word_embeddings


def test_windows(tmp_path: Path) -> None:
    for name, windows in {
        "mistral": [32, 32],
        "qwen2": [0, 16],
        "qwen3": [0, 0],
        "gemma2": [8, 0],
        "gemma3_text": [8, 8, 8, 8, 8, 0],
    }.items():
        assert _windows(_llama(name, tmp_path)) == windows, name
    # Older files say it by a number, or not at all.
    older = {"layer_types": None, "rope_parameters": None, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    config = _llama("gemma3_text", tmp_path, **older)
    assert _windows(config) == [8, 8, 8, 8, 8, 0]
    assert config.layers == _llama("gemma3_text", tmp_path).layers
    assert _windows(_llama("gemma2", tmp_path, layer_types=None)) == [8, 0]
    assert _windows(_llama("mistral", tmp_path, layer_types=None, sliding_window=None)) == [0, 0]
    assert _windows(_llama("qwen2", tmp_path, layer_types=None, use_sliding_window=False)) == [0, 0]


def test_the_part_for_pictures_is_told(tmp_path: Path) -> None:
    folder = _write(tmp_path, "gemma3_text")
    assert left_out(open_checkpoint(folder)) == ()
    file = folder / "model.safetensors"
    save_file({**load_file(file), "model.vision_tower.weight": np.zeros(4, np.float32)}, file)
    (told,) = left_out(open_checkpoint(folder))
    assert told.startswith("tensors such as model.vision_tower.weight are left out: the part for pictures")


def test_gemma(tmp_path: Path) -> None:
    config = _llama("gemma3_text", tmp_path)
    assert (config.norm_weight_offset, config.embedding_multiplier, config.hidden_act) == (
        1.0,
        8.0,
        "gelu_pytorch_tanh",
    )
    assert config.qk_norm
    assert config.has_post_norms
    assert config.attention_scale == 1 / 16
    assert [layer.rope.rope_theta for layer in config.layers if layer.rope] == [1e4] * 5 + [1e6]
    assert _llama("gemma2", tmp_path).attn_logit_softcapping == 50
    assert _llama("gemma2", tmp_path).final_logit_softcapping == 30
    assert _llama("gemma2", tmp_path).attention_scale == 0.2
    assert _llama("gemma", tmp_path, hidden_activation=None, hidden_act="gelu").hidden_act == "gelu_pytorch_tanh"


def test_smollm3_has_layers_without_rotary_embedding(tmp_path: Path) -> None:
    assert [layer.rope is None for layer in _llama("smollm3", tmp_path).layers] == [False, False, False, True]


def test_phi3s_joined_matrices_are_parted(tmp_path: Path) -> None:
    config = _llama("phi3", tmp_path)
    assert config.layers[0].rope is not None
    assert isinstance(config.layers[0].rope.scaling, LongScaling)
    checkpoint = open_checkpoint(tmp_path)
    queries, keys, values = (checkpoint.tensor(f"model.layers.1.self_attn.{each}_proj.weight") for each in "qkv")
    assert (queries.shape, keys.shape, values.shape) == ((64, 64), (32, 64), (32, 64))
    gate, up = (checkpoint.tensor(f"model.layers.1.mlp.{each}_proj.weight") for each in ("gate", "up"))
    assert gate.shape == up.shape == (96, 64)
    assert not np.array_equal(gate.dequantize(), up.dequantize())


def test_gpt2s_matrices_are_turned(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(_write(tmp_path, "gpt2"))
    assert isinstance(checkpoint.config, Gpt2Config)
    assert checkpoint.config.n_inner == 256
    assert checkpoint.shape("transformer.h.0.attn.c_attn.weight") == (192, 64)
    assert checkpoint.tensor("transformer.h.0.attn.c_attn.weight").shape == (192, 64)
    assert checkpoint.shape("transformer.wte.weight") == (100, 64)


def test_bert(tmp_path: Path) -> None:
    config = open_checkpoint(_write(tmp_path, "bert")).config
    assert isinstance(config, BertConfig)
    assert config.labels == ("no", "yes", "maybe")
    assert config.pooling is None


@pytest.mark.parametrize(
    ("pooling", "modules", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ["Pooling"], ("mean", False)),
        ({"pooling_mode_cls_token": True, "word_embedding_dimension": 64}, ["Pooling", "Normalize"], ("cls", True)),
        ({"pooling_mode": "max", "embedding_dimension": 64}, None, ("max", False)),
    ],
)
def test_sentence_transformers_files(tmp_path: Path, pooling, modules, expected) -> None:
    config = open_checkpoint(_with_pooling(tmp_path, pooling, modules)).config
    assert isinstance(config, BertConfig)
    assert (config.pooling, config.is_normalized) == expected


@pytest.mark.parametrize(
    ("pooling", "modules", "message"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None, "are chosen; one is known"),
        ({"pooling_mode_weightedmean_tokens": True}, None, "pooling_mode_weightedmean_tokens = True"),
        ({"pooling_mode": "lasttoken"}, None, "pooling_mode is 'lasttoken'; known here are 'mean'"),
        ({"pooling_mode": "mean"}, ["Pooling", "Dense"], "the embedding also goes through Dense, which is not known"),
    ],
)
def test_embeddings_that_are_made_otherwise_are_refused(tmp_path: Path, pooling, modules, message) -> None:
    with pytest.raises(UnsupportedError, match=message):
        open_checkpoint(_with_pooling(tmp_path, pooling, modules))


def test_a_broken_list_of_modules(tmp_path: Path) -> None:
    folder = _with_pooling(tmp_path, {"pooling_mode": "mean"}, ["Pooling"])
    for content in ("{", "[1]", '[{"name": "0"}]', "7"):
        (folder / "modules.json").write_text(content)
        with pytest.raises(InvalidArgumentError, match=r"modules\.json: it is no list of modules"):
            open_checkpoint(folder)


def _with_pooling(folder: Path, pooling: dict[str, object], modules: list[str] | None) -> Path:
    _write(folder, "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if modules is not None:
        types = [{"type": f"sentence_transformers.models.{each}"} for each in ["Transformer", *modules]]
        (folder / "modules.json").write_text(json.dumps(types))
    return folder


def test_t5(tmp_path: Path) -> None:
    config = open_checkpoint(_write(tmp_path, "t5")).config
    assert isinstance(config, T5Config)
    assert (config.activation, config.is_gated_act) == ("relu", False)
    assert config.tie_word_embeddings
    assert config.scale_decoder_outputs
    assert config.tokens.decoder_start == 0
    config = open_checkpoint(_write(tmp_path, "t5_gated")).config
    assert isinstance(config, T5Config)
    assert (config.activation, config.is_gated_act) == ("gelu_new", True)
    # transformers 5 says that they are tied, and means that the outputs are not scaled.
    assert not config.scale_decoder_outputs


def test_whisper(tmp_path: Path) -> None:
    folder = _write(tmp_path, "whisper")
    (folder / "generation_config.json").write_text('{"alignment_heads": [[0, 1], [1, 0]]}')
    config = open_checkpoint(folder).config
    assert isinstance(config, WhisperConfig)
    assert config.alignment_heads == ((0, 1), (1, 0))
    for wrong in ("[[0]]", "[3]", '"all"', "[[0, -1]]", "[[0, true]]"):
        (folder / "generation_config.json").write_text(f'{{"alignment_heads": {wrong}}}')
        with pytest.raises(InvalidArgumentError, match="alignment_heads is .*; expected a list of pairs"):
            open_checkpoint(folder)
    (folder / "generation_config.json").unlink()
    assert (config.suppress_tokens, config.begin_suppress_tokens) == ((1, 2), (3,))
    assert config.tokens == SpecialTokens(bos=1, eos=(2,), pad=0, decoder_start=3)


@pytest.mark.parametrize("name", _ANSWERS["ropes"])
def test_rotary_embeddings(name: str) -> None:
    answer: dict[str, Any] = _ANSWERS["ropes"][name]
    settings = {"max_position_embeddings": 4096, "rope_parameters": answer["parameters"]}
    rope, _ = read_ropes(Fields(settings, "config"), 32, 1e4, None)
    frequencies, factor = rope.frequencies(answer["length"])
    np.testing.assert_allclose(frequencies, answer["frequencies"], rtol=2e-6)
    assert factor == pytest.approx(answer["factor"], rel=1e-9)
    # Older files say the same by rope_scaling.
    older = {key: value for key, value in answer["parameters"].items() if key not in {"rope_theta", "rope_type"}}
    older = {"max_position_embeddings": 4096, "rope_scaling": older | {"type": answer["parameters"]["rope_type"]}}
    assert read_ropes(Fields(older, "config"), 32, 1e4, None)[0] == rope
    cos, sin = rope.tables(8)
    assert cos.shape == sin.shape == (8, 16)
    np.testing.assert_allclose(np.hypot(cos, sin), factor, rtol=1e-6)
