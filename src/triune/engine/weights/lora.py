"""LoRA adapters in PEFT's form: a folder with `adapter_config.json` and `adapter_model.safetensors`.

Hu et al., 2021 (arXiv:2106.09685); the scale of rsLoRA: Kalajdzievski, 2023 (arXiv:2312.03732).
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.printable import printable
from triune.engine.weights.config import ModelConfig
from triune.engine.weights.config.shapes import tensor_shapes
from triune.engine.weights.fields import Fields, shown
from triune.engine.weights.huggingface.files import read_json
from triune.engine.weights.huggingface.names import canonical, parts
from triune.engine.weights.huggingface.store import Store

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"

MAX_RANK: Final = 512
"""The largest rank that is read."""

_LARGEST: Final = 65504.0
"""The largest absolute value that an adapter's matrices may have: the largest number of fp16. A larger one would be
infinite where a runtime computes in fp16, and infinity times the zeros of other adapters' tokens is NaN.
"""

_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}", re.ASCII)
_TENSOR: Final = re.compile(r"(.+)\.lora_([AB])\.weight")
_PREFIX: Final = "base_model.model."

_NO_LAYERS: Final = ("model.embed_tokens", "lm_head", "transformer.wte", "transformer.wpe")
"""Matrices that no adapter may change: the embeddings, and the matrix that computes the logits."""

_CHANGE_NOTHING: Final = (
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "lora_dropout",
    "fan_in_fan_out",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "qalora_group_size",
)
"""Settings that need not be read: settings of training, of PEFT's own layers, and of which layers are adapted. The
tensors' names show the adapted layers.
"""

_INITIAL: Final = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights`, the way an adapter was initialized for training, that leave the model's own weights
unchanged.
"""

_REFUSED: Final = ("modules_to_save", "use_dora", "lora_bias", "trainable_token_indices", "target_parameters")
"""Settings with which an adapter changes more of a model than adding the product of two matrices."""

Matrix: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to a matrix W: `x W^T` becomes `x W^T + (x down^T) up^T`.

    Attributes:
        down: FP32 [rank, in].
        up: FP32 [out, rank], the adapter's scale included.
    """

    down: Matrix = field(repr=False)
    up: Matrix = field(repr=False)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        name: its name in requests.
        modules: its matrices by the name of the layer that they change, such as `model.layers.0.self_attn.q_proj`.
        digest: a hash of all matrices and their names.
    """

    name: str
    modules: Mapping[str, LowRank] = field(repr=False)
    digest: bytes = field(repr=False)


def read_adapter(folder: Path, name: str, config: ModelConfig) -> Adapter:
    """Read an adapter, all of it into memory.

    Args:
        folder: the folder with `adapter_config.json` and `adapter_model.safetensors`.
        name: its name in requests: letters, digits, `_`, `.` and `-`, 128 at most.
        config: the config of the model that the adapter changes.

    Raises:
        NotFoundError: a file is missing.
        InvalidArgumentError: a file is broken, the adapter is of another model, or its name has other characters.
        UnsupportedError: it changes more than the products of layers, or is of another kind than LoRA.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"an adapter is called '{printable(name[:64])}'; a name has letters, digits, '_', '.' and '-', at most 128"
        )
    where = f"adapter '{name}'"
    given = read_json(folder / _CONFIG)
    if given is None:
        raise NotFoundError(f"{where}: there is no {_CONFIG} in its folder '{folder}'; save it with PEFT")
    settings = _Settings(Fields(given, f"{where}/{_CONFIG}"))
    store = Store(folder, _WEIGHTS)
    shapes = {
        key.removesuffix(".weight"): shape
        for key, shape in tensor_shapes(config).items()
        if key.endswith(".weight") and len(shape) == 2 and key.removesuffix(".weight") not in _NO_LAYERS
    }
    modules: dict[str, LowRank] = {}
    for stored, tensors in _pairs(store, where).items():
        module = stored.removeprefix(_PREFIX)
        what = f"{where}: {printable(module[:128])}"
        whole = canonical(f"{module}.weight", config) or ""
        targets = {
            piece.removesuffix(".weight"): rows for piece, rows in parts(whole, config) or [(whole, slice(None))]
        }
        if not targets.keys() <= shapes.keys():
            raise InvalidArgumentError(
                f"{what} is no linear layer of this model; is it an adapter of another one, or of the embeddings?"
            )
        if not modules.keys().isdisjoint(targets):
            raise InvalidArgumentError(f"{what} is there twice")
        rank, scale = settings.rank_and_scale(module)
        rows, columns = sum(shapes[each][0] for each in targets), shapes[next(iter(targets))][1]
        down = _read(store, tensors["A"], (rank, columns), where)
        up = _read(store, tensors["B"], (rows, rank), where) * np.float32(scale)
        _require_numbers(what, down, up)
        for target, part in targets.items():
            modules[target] = LowRank(down, up[part])
    if not modules:
        raise InvalidArgumentError(f"{where}: {_WEIGHTS} has no tensor")
    return Adapter(name, modules, _digest(modules))


class _Settings:
    """The ranks and scales in an adapter's config."""

    def __init__(self, fields: Fields) -> None:
        """Read all settings. Raises the errors of `read_adapter`."""
        fields.choice("peft_type", {"LORA": "LORA"})
        if fields.get("init_lora_weights") not in _INITIAL:
            raise UnsupportedError(
                f"{fields.where}: init_lora_weights is {shown(fields.get('init_lora_weights'))}, which changes the "
                "model's own weights; convert the adapter to one that does not (PEFT: path_initial_model_for_"
                "weight_conversion)"
            )
        if fields.text("bias", "none") != "none":
            raise UnsupportedError(f"{fields.where}: bias is {shown(fields.get('bias'))}; adapters with biases are not")
        for name in _REFUSED:
            if fields.get(name):
                raise UnsupportedError(
                    f"{fields.where}: {name} is {shown(fields.get(name))}; an adapter may have the two matrices of "
                    "layers and nothing else: merge it into the model"
                )
        self._rank = fields.whole("r", most=MAX_RANK)
        self._alpha = fields.number("lora_alpha")
        self._is_stabilized = fields.flag("use_rslora", False)
        self._ranks = _patterns(fields, "rank_pattern")
        self._alphas = _patterns(fields, "alpha_pattern")
        self._where = fields.where
        fields.refuse_unread(_CHANGE_NOTHING)

    def rank_and_scale(self, module: str) -> tuple[int, float]:
        """The rank of a layer's two matrices, and the factor of their product."""
        rank, alpha = self._of(self._ranks, module, self._rank), self._of(self._alphas, module, self._alpha)
        if not (rank == int(rank) and 1 <= rank <= MAX_RANK):
            raise InvalidArgumentError(
                f"{self._where}: the rank of '{printable(module[:128])}' is {rank:g}; expected a whole number from 1 "
                f"to {MAX_RANK}"
            )
        return int(rank), alpha / (math.sqrt(rank) if self._is_stabilized else rank)

    @staticmethod
    def _of(patterns: Mapping[str, float], module: str, default: float) -> float:
        """The value of the first matching pattern, as in PEFT: a pattern matches the end of a name, or with ^ the whole
        name.
        """
        for pattern, value in patterns.items():
            if module == pattern.removeprefix("^") or module.endswith(f".{pattern}"):
                return value
        return default


def _patterns(fields: Fields, name: str) -> dict[str, float]:
    """Read a setting that maps names of layers to numbers, such as `rank_pattern`."""
    inner = fields.inner(name)
    given = cast("dict[str, object]", fields.get(name) or {})
    patterns: dict[str, float] = {}
    for key in given if inner is not None else ():
        plain = key.replace("\\.", ".")
        if not re.fullmatch(r"\^?[A-Za-z0-9_.]+", plain, re.ASCII):
            raise UnsupportedError(
                f"{fields.where}: {name} has {shown(key)}; only names of layers are known here, not other regular "
                "expressions"
            )
        assert inner is not None
        patterns[plain] = inner.number(key)
    return patterns


def _pairs(store: Store, where: str) -> dict[str, dict[str, str]]:
    """For each layer, by its name in the file: the names of its tensors lora_A and lora_B, by the letters "A" and
    "B".
    """
    pairs: dict[str, dict[str, str]] = {}
    for name in store.shapes:
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise UnsupportedError(
                f"{where}: {_WEIGHTS} has the tensor '{printable(name[:128])}'; known are lora_A.weight and "
                "lora_B.weight of linear layers"
            )
        pairs.setdefault(found[1], {})[found[2]] = name
    for module, tensors in pairs.items():
        if missing := {"A", "B"} - tensors.keys():
            raise InvalidArgumentError(
                f"{where}: {_WEIGHTS} lacks lora_{missing.pop()}.weight of '{printable(module[:128])}'"
            )
    return pairs


def _read(store: Store, name: str, shape: tuple[int, int], where: str) -> Matrix:
    if store.dtypes[name] not in ("F32", "F16", "BF16") or store.shapes[name] != shape:
        raise InvalidArgumentError(
            f"{where}: '{printable(name[:128])}' is {store.dtypes[name]}{list(store.shapes[name])}; by the config and "
            f"the model it is {list(shape)} of F32, F16 or BF16"
        )
    return store.read(name).astype(np.float32)


def _require_numbers(what: str, down: Matrix, up: Matrix) -> None:
    for name, values in (("lora_A", down), ("lora_B with its scale", up)):
        # The comparison is negated so that NaN is refused, too: any comparison with NaN is false.
        if not (largest := np.abs(values).max()) <= _LARGEST:
            raise InvalidArgumentError(f"{what}: {name} has the number {largest:g}; the limit is {_LARGEST:g}")


def _digest(modules: Mapping[str, LowRank]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, each in sorted(modules.items()):
        digest.update(f"{name} {each.down.shape} {each.up.shape}".encode())
        digest.update(each.down.tobytes())
        digest.update(each.up.tobytes())
    return digest.digest()
