"""Compare a config with the shapes of the tensors that exist, before any tensor is read."""

from collections.abc import Mapping

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights.config import BertConfig, ModelConfig
from triune.engine.weights.config.shapes import tensor_shapes

BERT_HEADS = ("cls.",)
"""Prefixes of tensors that a BERT checkpoint may have and that are not read: the heads that predicted masked words and
next sentences in the pretraining.
"""


def require_agreement(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Check that a checkpoint's tensors, given by name with their shapes, are the ones that the config implies. `where`
    names the checkpoint in errors.

    Raises:
        InvalidArgumentError: a tensor is missing or has another shape, or the embedding has no row for a special token.
        UnsupportedError: there are other tensors, which the architecture's graph would not use.
    """
    expected = tensor_shapes(config)
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise InvalidArgumentError(
            f"{where}: {len(missing)} of {len(expected)} tensors are missing: {', '.join(missing[:3])}"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise InvalidArgumentError(
                f"{where}: the tensor {name} has the shape {list(shapes[name])}; by the config it has {list(shape)}"
            )
    heads = BERT_HEADS if isinstance(config, BertConfig) else ()
    others = [name for name in shapes if name not in expected and not name.startswith(heads)]
    if others:
        raise UnsupportedError(
            f"{where}: {len(others)} tensors are no part of the architecture as it is known here, so its graph would "
            f"compute something else: {', '.join(others[:3])}"
        )
    tokens = config.tokens
    for what, ids in (("bos", (tokens.bos,)), ("eos", tokens.eos), ("decoder_start", (tokens.decoder_start,))):
        for token in ids:
            if token is not None and token >= config.vocab_size:
                raise InvalidArgumentError(
                    f"{where}: the {what} token is {token}; the embedding has {config.vocab_size} rows"
                )
