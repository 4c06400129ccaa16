"""Bad entries that a model repository may have beside good models. Each function writes one entry, and has its name and
a word of the reason why it is refused.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from support.repositories import affine, write_model

Lay: TypeAlias = Callable[[Path], object]


def _model(config: str | None = None) -> Callable[[Path], Path]:
    return lambda repository: write_model(repository, "bad", config, v1=affine())


def _beside(name: str, lay: Lay, config: str | None = None) -> Lay:
    """Write a good model with a bad file at this path in its folder."""

    def lay_all(repository: Path) -> None:
        place = _model(config)(repository) / name
        place.unlink(missing_ok=True)
        lay(place)

    return lay_all


def _sparse(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(10 << 30)


_HAS_KMSG = os.access("/proc/kmsg", os.R_OK)


def _socket(place: Path) -> None:
    # The address of a socket is limited to about 100 bytes, and the repository's path may be longer.
    with socket.socket(socket.AF_UNIX) as listener, tempfile.TemporaryDirectory() as folder:
        listener.bind(f"{folder}/s")
        Path(folder, "s").rename(place)


def _not_utf8(repository: Path) -> None:
    (repository / os.fsdecode(b"bad\xff")).mkdir()


_LABELS = "output [{ name: 'y' data_type: TYPE_FP32 dims: 4 label_filename: 'labels.txt' }]"
_WARM_UP = (
    "model_warmup { name: 'w' batch_size: 1 inputs "
    "{ key: 'x' value { data_type: TYPE_FP32 dims: 4 input_data_file: 'x' } } }"
)


def _warm_up(lay: Lay) -> Lay:
    def lay_all(repository: Path) -> None:
        folder = _model(_WARM_UP)(repository) / "warmup"
        folder.mkdir()
        lay(folder / "x")

    return lay_all


_STRANGE_VERSIONS = (b"1\n", b"-1", b"\xd9\xa1", b"9" * 200, b"1e3", b"\x1b[2J")

HOSTILE: dict[str, tuple[Lay, str, str]] = {
    "a link to itself": (lambda repository: (repository / "bad").symlink_to("bad"), "bad", "link that leads nowhere"),
    "a link to nothing": (
        lambda repository: (repository / "bad").symlink_to("/nowhere/at/all"),
        "bad",
        "link that leads nowhere",
    ),
    "a link to the repository": (
        lambda repository: (repository / "bad").symlink_to("."),
        "bad",
        "a link to a folder that holds the repository",
    ),
    "a link to everything": (
        lambda repository: (repository / "bad").symlink_to("/"),
        "bad",
        "a link to a folder that holds the repository",
    ),
    "a config that is a pipe": (_beside("config.pbtxt", os.mkfifo), "bad", "it is a pipe, not a file"),
    "a config that is a device": (
        _beside("config.pbtxt", lambda place: place.symlink_to("/dev/zero")),
        "bad",
        "it is a device, not a file",
    ),
    "a config that is a folder": (_beside("config.pbtxt", Path.mkdir), "bad", "it is a folder, not a file"),
    "a config that is a link to itself": (
        _beside("config.pbtxt", lambda place: place.symlink_to("config.pbtxt")),
        "bad",
        "symbolic links",
    ),
    "a config that is a link to nothing": (
        _beside("config.pbtxt", lambda place: place.symlink_to("/nowhere")),
        "bad",
        "No such file",
    ),
    "a config of 10 GB": (_beside("config.pbtxt", _sparse), "bad", "it has 10737418240 bytes"),
    "a model that is a pipe": (_beside("1/model.onnx", os.mkfifo), "bad", "it is a pipe"),
    "a model that is a device": (
        _beside("1/model.onnx", lambda place: place.symlink_to("/dev/zero")),
        "bad",
        "it is a device",
    ),
    "a model that is a socket": (_beside("1/model.onnx", _socket), "bad", "it is a socket"),
    "a model that is a folder": (_beside("1/model.onnx", Path.mkdir), "bad", "it is a folder"),
    "a model that is a file without an end": (
        _beside("1/model.onnx", lambda place: place.symlink_to("/proc/kmsg" if _HAS_KMSG else "/dev/zero")),
        "bad",
        "gives nothing now, and has no end" if _HAS_KMSG else "it is a device",
    ),
    "a model that is a link to itself": (
        _beside("1/model.onnx", lambda place: place.symlink_to("model.onnx")),
        "bad",
        "symbolic links",
    ),
    "a model that is a link to a text": (
        _beside("1/model.onnx", lambda place: place.symlink_to("/etc/passwd")),
        "bad",
        "not an ONNX model",
    ),
    "a model with a name that is no text": (
        _beside("1/model.onnx", lambda place: place.write_bytes(affine().replace(b"Mul", b"M\xffl"))),
        "bad",
        "the name b'M\\xffl' is not UTF-8",
    ),
    "a model of 10 GB": (_beside("1/model.onnx", _sparse), "bad", "it has 10737418240 bytes"),
    "labels that are a pipe": (_beside("labels.txt", os.mkfifo, _LABELS), "bad", "it is a pipe, not a file"),
    "labels that are a device": (
        _beside("labels.txt", lambda place: place.symlink_to("/dev/zero"), _LABELS),
        "bad",
        "leads by a link to /dev/zero, outside the model's folder",
    ),
    "labels that are a link to another's text": (
        _beside("labels.txt", lambda place: place.symlink_to("/etc/passwd"), _LABELS),
        "bad",
        "leads by a link to /etc/passwd, outside the model's folder",
    ),
    "a warm-up that is a pipe": (_warm_up(os.mkfifo), "bad", "it is a pipe, not a file"),
    "a warm-up that is a device": (
        _warm_up(lambda place: place.symlink_to("/dev/zero")),
        "bad",
        "leads by a link to /dev/zero, outside the model's folder",
    ),
    "versions of strange names": (
        lambda repository: [(repository / "bad" / os.fsdecode(each)).mkdir(parents=True) for each in _STRANGE_VERSIONS],
        "bad",
        "no version",
    ),
}
"""By what it is: what lays it, the name in the index, and what the reason says."""

if sys.platform != "darwin":
    # Apple's file systems accept only names in UTF-8.
    HOSTILE["a name that is not UTF-8"] = (_not_utf8, "bad\\xff", "not UTF-8")
    HOSTILE["a version whose name is not UTF-8"] = (
        lambda repository: (repository / "bad" / os.fsdecode(b"1\xff")).mkdir(parents=True),
        "bad",
        "no version",
    )
