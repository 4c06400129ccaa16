"""Parses the body of a load request: a config, and files in base64."""

import base64
import binascii
from typing import Any

import numpy as np

from triune.config.parse import check_size
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.frontends.bodies.json_parsing import parse_json
from triune.frontends.bodies.json_values import as_object, as_string
from triune.frontends.kserve.tensors import check_count


def parse_load(body: memoryview) -> tuple[str | None, dict[str, Array]]:
    """Parse a load request.

    Returns:
        the config override (None if there is none), and the files' content by their path below the model's folder.

    Raises:
        PayloadTooLargeError: there are too many parameters, or the config is too large.
        InvalidArgumentError: the body is malformed, a parameter is unknown, or a file is not base64.
    """
    document: dict[str, Any] = as_object(parse_json(body), "the request") if len(body) else {}
    config_json: str | None = None
    files: dict[str, Array] = {}
    parameters = as_object(document.get("parameters", {}), "'parameters'")
    check_count(len(parameters), "parameters")
    for name, value in parameters.items():
        text = as_string(value, f"parameter '{name[:64]}'")
        if name == "config":
            check_size(text)
            config_json = text
        elif name.startswith("file:"):
            files[name.removeprefix("file:")] = np.frombuffer(_decode_base64(name, text), np.uint8)
        else:
            raise InvalidArgumentError(f"load takes the parameters 'config' and 'file:<path>', not '{name[:64]}'")
    return config_json, files


def _decode_base64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgumentError(f"parameter '{name[:64]}' is not valid base64: {error}") from None
