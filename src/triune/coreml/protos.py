"""The protobuf classes of Core ML's files. They are imported only here, and only when they are needed."""

import functools
import importlib
import logging
from typing import Any

from triune.core.errors import InvalidArgumentError, UnsupportedError

_REMEDY = "Core ML files need coremltools, which is not installed: pip install 'triune[coreml]'"


def mil_pb2() -> Any:
    """The module of MIL's messages: Program, Function, Operation, Value.

    Raises:
        UnsupportedError: coremltools is not installed.
    """
    return _module("coremltools.proto.MIL_pb2")


def model_pb2() -> Any:
    """The module of the model's messages: Model, ModelDescription.

    Raises:
        UnsupportedError: coremltools is not installed.
    """
    return _module("coremltools.proto.Model_pb2")


def parsed(message: Any, data: bytes, file: str, what: str) -> Any:
    """Parse a message.

    Args:
        message: an empty message, which is filled in and returned.
        data: the bytes.
        file: the file that they come from, for errors.
        what: the kind of message, for errors: "a Core ML specification".

    Raises:
        InvalidArgumentError: the bytes are not a message of this type.
    """
    # Translate both types of parsing errors: implementations of protobuf raise ValueError or protobuf's DecodeError.
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise InvalidArgumentError(f"'{file}': {len(data)} bytes that are not {what}: {error}") from error
    return message


# The result is cached, since this is called for every message that is read or written.
@functools.cache
def _module(name: str) -> Any:
    # Silence coremltools for the import. Except on Apple's systems, it warns about each class of its compiled module,
    # which is missing there and not needed here.
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "coremltools":
            raise UnsupportedError(_REMEDY) from error
        raise
    finally:
        logger.setLevel(level)
