"""Read config.json, and settings of other files of the directory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.engine.weights.config import ModelConfig, SpecialTokens, WhisperConfig
from triune.engine.weights.config.heads import require_heads
from triune.engine.weights.fields import Fields
from triune.engine.weights.huggingface.files import read_json, read_text
from triune.engine.weights.huggingface.llama import KINDS, read_llama
from triune.engine.weights.huggingface.others import read_bert, read_gpt2, read_t5, read_whisper

_OTHERS: Final = {"gpt2": read_gpt2, "t5": read_t5, "whisper": read_whisper}
_IN_TEXT_CONFIG: Final = {"gemma3": "gemma3_text"}
"""Models that also take pictures: the model type of the text part, by the `model_type` of the whole model."""

_IGNORED: Final = frozenset(
    {
        # Settings about the origin and storage of the model.
        "_name_or_path", "_commit_hash", "architectures", "auto_map", "dtype", "model_type", "torch_dtype",
        "transformers_version", "transformers.js_config", "unsloth_fixed", "unsloth_version", "name_or_path",
        "quantization_config", "quantization", "base_model_name_or_path", "finetuning_task", "tokenizer_class",
        # Settings that only training uses.
        "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_dropout", "attn_pdrop",
        "classifier_dropout", "decoder_layerdrop", "dropout", "dropout_rate", "embd_pdrop", "encoder_layerdrop",
        "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob", "init_std", "initializer_factor",
        "initializer_range", "mask_feature_length", "mask_feature_min_masks", "mask_feature_prob", "mask_time_length",
        "mask_time_min_masks", "mask_time_prob", "pretraining_tp", "resid_pdrop", "use_cache", "apply_spec_augment",
        "median_filter_length", "median_filter_width", "reorder_and_upcast_attn",
        # Settings of generation, which are read from generation_config.json, and of heads that are not built here.
        "classifier_proj_size", "cross_attention_hidden_size", "do_sample", "forced_decoder_ids", "id2label",
        "is_encoder_decoder", "label2id", "max_length", "n_ctx", "num_beams", "problem_type",
        "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        "task_specific_params", "temperature", "top_k", "top_p", "use_weighted_layer_sum", "pooler_fc_size",
        "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "directionality",
        "n_positions", "num_hidden_layers", "cache_implementation",
        "original_max_position_embeddings", "sep_token_id", "unk_token_id",
        "return_dict", "output_past", "_sliding_window_pattern",
    }
)  # fmt: skip
"""Settings that do not change the result, or do so only in architectures that read them themselves."""


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, object]]:
    """The config of a directory, and the content of its config.json.

    Raises:
        NotFoundError: there is no config.json.
        UnsupportedError: the model type, or a setting, is not known here.
        InvalidArgumentError: a setting is missing or impossible, or a file is broken.
    """
    values = read_json(folder / "config.json")
    if values is None:
        raise NotFoundError(f"{folder}: there is no config.json in it")
    where = f"{folder.name}/config.json"
    fields = Fields(values, where)
    model_type = fields.text("model_type")
    if model_type in _IN_TEXT_CONFIG:
        inner = {**values, **cast("dict[str, object]", fields.get("text_config") or {})}
        # Leave out the settings of the part for pictures, which do not affect the text part.
        inner = {key: each for key, each in inner.items() if key not in _OF_PICTURES}
        model_type = _IN_TEXT_CONFIG[model_type]
        fields = Fields({**inner, "model_type": model_type}, f"{where}: text_config")
    tokens = read_tokens(folder, fields)
    if model_type in KINDS:
        config: ModelConfig = read_llama(fields, tokens)
    elif model_type == "bert":
        config = read_bert(fields, tokens, *_pooling(folder))
    elif model_type in _OTHERS:
        config = _OTHERS[model_type](fields, tokens)
        if isinstance(config, WhisperConfig):
            config = replace(config, alignment_heads=_generation(folder).pairs("alignment_heads"))
    else:
        known = ", ".join([*KINDS, *_IN_TEXT_CONFIG, "bert", *_OTHERS])
        raise UnsupportedError(f"{where}: the model type {model_type!r} is not known here; known are {known}")
    fields.refuse_unread(_IGNORED)
    require_heads(config, fields.where)
    return config, values


_OF_PICTURES: Final = frozenset(
    {"text_config", "vision_config", "boi_token_index", "eoi_token_index", "image_token_index", "mm_tokens_per_image"}
)


def read_tokens(folder: Path, fields: Fields) -> SpecialTokens:
    """The special tokens. generation_config.json may state more eos tokens than config.json.

    Raises:
        InvalidArgumentError: a file is broken, or names a token otherwise than by its id.
    """
    generation = _generation(folder)
    eos = (*generation.ids("eos_token_id"), *fields.ids("eos_token_id"))
    return SpecialTokens(
        bos=fields.whole_or_none("bos_token_id"),
        eos=tuple(dict.fromkeys(eos)),
        # Some files write -1 if the model has no pad token.
        pad=None if fields.get("pad_token_id") == -1 else fields.whole_or_none("pad_token_id"),
        decoder_start=fields.whole_or_none("decoder_start_token_id"),
    )


def _generation(folder: Path) -> Fields:
    return Fields(read_json(folder / "generation_config.json") or {}, f"{folder.name}/generation_config.json")


def _pooling(folder: Path) -> tuple[str | None, bool]:
    """How the library sentence-transformers computes the embedding of a sentence with this model: the pooling, and
    whether the embedding is scaled to length 1.
    """
    values = read_json(folder / "1_Pooling" / "config.json")
    if values is None:
        return None, False
    settings = Fields(values, f"{folder.name}/1_Pooling/config.json")
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    # Newer files name the pooling in one setting; older files have a flag for each pooling.
    named = settings.choice("pooling_mode", {each: each for each in modes}) if "pooling_mode" in settings else None
    chosen = [mode for mode, name in modes.items() if settings.flag(name, False) or mode == named]
    settings.refuse_unread({"word_embedding_dimension", "embedding_dimension", "include_prompt"})
    if len(chosen) != 1:
        raise UnsupportedError(f"{settings.where}: the poolings {chosen} are chosen; one is known to be made")
    modules = _modules(folder)
    others = [each for each in modules if each not in _KNOWN_MODULES]
    if others:
        raise UnsupportedError(
            f"{folder.name}/modules.json: the embedding also goes through {', '.join(others)}, which is not known here"
        )
    return chosen[0], "Normalize" in modules


def _modules(folder: Path) -> list[str]:
    """The class names of the modules that make up a sentence-transformers model, in order; empty if there is no
    modules.json.

    Raises:
        InvalidArgumentError: the file is broken.
    """
    text = read_text(folder / "modules.json")
    if text is None:
        return []
    try:
        entries = cast("object", json.loads(text))
        return [str(cast("dict[str, str]", each)["type"]).rpartition(".")[2] for each in cast("list[object]", entries)]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise InvalidArgumentError(f"{folder.name}/modules.json: it is no list of modules: {error!r}") from None


_KNOWN_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})
