"""The configs of the architectures. Their fields have the names of the settings in Hugging Face's config.json, where it
has such a setting.
"""

from typing import TypeAlias

from triune.engine.weights.config.bert import BertConfig
from triune.engine.weights.config.gpt2 import Gpt2Config
from triune.engine.weights.config.llama import Layer, LlamaConfig
from triune.engine.weights.config.rope import (
    DynamicScaling,
    FactorScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    Rope,
    RopeScaling,
    YarnScaling,
)
from triune.engine.weights.config.t5 import T5Config
from triune.engine.weights.config.tokens import SpecialTokens
from triune.engine.weights.config.whisper import WhisperConfig

ModelConfig: TypeAlias = LlamaConfig | Gpt2Config | BertConfig | T5Config | WhisperConfig

__all__ = [
    "BertConfig",
    "DynamicScaling",
    "FactorScaling",
    "Gpt2Config",
    "Layer",
    "LinearScaling",
    "Llama3Scaling",
    "LlamaConfig",
    "LongScaling",
    "ModelConfig",
    "Rope",
    "RopeScaling",
    "SpecialTokens",
    "T5Config",
    "WhisperConfig",
    "YarnScaling",
]
