"""Writes and reads HTTP byte by byte, to send what a client library would not send."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

VECTOR = np.arange(16, dtype=np.float32).reshape(1, 16)


@dataclass
class Answer:
    """A received response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        size = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(size)] if size else self.body)

    @property
    def error(self) -> str:
        return self.json["error"]


class Wire:
    """One HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 26))

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def ask(self, *parts: bytes) -> Answer:
        await self.send(*parts)
        return await self.answer()

    async def answer(self) -> Answer:
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
            if status == 100:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = await self._chunks()
            else:
                body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, body)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    async def is_closed(self, seconds: float = 10) -> bool:
        """Whether the server closes the connection without sending anything more."""
        try:
            return await asyncio.wait_for(self.reader.read(1), seconds) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        """Close the connection at once, even if data are still to be sent."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def post(path: str, body: bytes, headers: dict[str, str] | None = None, *, version: str = "1.1") -> bytes:
    """Encode a POST request with its Content-Length."""
    lines = {"Host": "x", "Content-Length": str(len(body)), **(headers or {})}
    return head("POST", path, lines, version=version) + body


def head(method: str, path: str, headers: dict[str, str], *, version: str = "1.1") -> bytes:
    """Encode a request's first line and headers."""
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/{version}\r\n{text}\r\n".encode()


def get(path: str) -> bytes:
    """Encode a GET request."""
    return head("GET", path, {"Host": "x"})


def tensor(name: str = "INPUT0", **fields: Any) -> dict[str, Any]:
    """Make the JSON of an input of 16 numbers. Keyword arguments replace its fields; None leaves a field out."""
    document = {"name": name, "datatype": "FP32", "shape": [1, 16], "data": VECTOR.ravel().tolist(), **fields}
    return {name: value for name, value in document.items() if value is not None}


def infer(model: str = "identity", headers: dict[str, str] | None = None, **fields: Any) -> bytes:
    """Encode an inference request in JSON."""
    document = {"inputs": [tensor()], **fields}
    return post(f"/v2/models/{model}/infer", json.dumps(document).encode(), headers)


def binary_infer(data: bytes, *, model: str = "identity", shape: list[int] | None = None, **fields: Any) -> bytes:
    """Encode an inference request with one FP32 input as binary data, whose answer is binary too."""
    shape = [1, len(data) // 4] if shape is None else shape
    item = tensor(data=None, shape=shape, parameters={"binary_data_size": len(data)})
    text = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}, **fields}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return post(f"/v2/models/{model}/infer", text + data, headers)
