"""The interface of the server that the HTTP APIs for text use."""

import contextlib
from collections.abc import Sequence
from typing import Protocol

from triune.core.errors import NotFoundError, TriuneError, UnavailableError
from triune.engine.generation import EmbeddingModel, TextModel
from triune.engine.speech.segments import SpeechModel
from triune.repository.model import IndexEntry


class TextModels(Protocol):
    """The part of the server that the APIs for text use."""

    def text_model(self, name: str, version: int | None = None) -> TextModel:
        """A model that generates text.

        Raises:
            NotFoundError: the model or version is unknown.
            UnavailableError: the model is not ready, or the server is stopping.
            InvalidArgumentError: the model does not generate text.
        """
        ...

    def embedding_model(self, name: str, version: int | None = None) -> EmbeddingModel:
        """A model that embeds texts. Raises the errors of `text_model`."""
        ...

    def speech_model(self, name: str, version: int | None = None) -> SpeechModel:
        """A model that reads speech. Raises the errors of `text_model`."""
        ...

    async def awake(self, name: str, version: int | None = None) -> None:
        """Wait until a model is in memory, if it was unloaded to make room. Raises UnavailableError."""
        ...

    def parked_text_model(self, name: str) -> Sequence[str] | None:
        """The LoRA adapters of a model for texts or speech that was unloaded to make room; None for any other model."""
        ...

    def last_index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        """The models of the repository, as of its last scan."""
        ...


class UnknownModelError(NotFoundError):
    """A request names a model that the server does not have."""


async def text_model_of(models: TextModels, name: str) -> tuple[TextModel, str | None]:
    """The newest version of a model that generates text, and the LoRA adapter that `name` chooses (`MODEL:ADAPTER`),
    None if it chooses none. If the model was unloaded to make room, this waits until it is loaded again.

    Raises:
        UnknownModelError: there is no such model or adapter. Also the errors of `text_model`.
    """
    try:
        await models.awake(name)
        return models.text_model(name), None
    except NotFoundError:
        return await _with_adapter(models, name)
    except UnavailableError:
        # An adapter may have the name of a model that is not loaded.
        with contextlib.suppress(TriuneError):
            return await _with_adapter(models, name)
        raise


async def _with_adapter(models: TextModels, name: str) -> tuple[TextModel, str]:
    """The model and its adapter that `name` chooses. Raises the errors of `text_model_of`."""
    base, _, adapter = name.rpartition(":")
    if not base:
        raise unknown_model(name)
    await models.awake(base)
    try:
        model = models.text_model(base)
    except NotFoundError as error:
        raise unknown_model(name) from error
    if adapter not in model.adapters:
        known = ", ".join(model.adapters) or "none"
        raise UnknownModelError(f"The model '{base}' has no LoRA adapter '{adapter[:128]}'; it has {known}")
    return model, adapter


async def embedding_model_of(models: TextModels, name: str) -> EmbeddingModel:
    """The newest version of a model that embeds texts. Raises the errors of `text_model_of`."""
    await models.awake(name)
    try:
        return models.embedding_model(name)
    except NotFoundError as error:
        raise unknown_model(name) from error


async def speech_model_of(models: TextModels, name: str) -> SpeechModel:
    """The newest version of a model that reads speech. Raises the errors of `text_model_of`."""
    await models.awake(name)
    try:
        return models.speech_model(name)
    except NotFoundError as error:
        raise unknown_model(name) from error


def unknown_model(name: str) -> UnknownModelError:
    """Make the error for a model that the server does not have."""
    return UnknownModelError(f"The model '{name[:128]}' does not exist; GET /v1/models lists those that do")
