"""What links in a model's folder may lead to: nothing that is not the model's is handed out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.graphs import model_of
from support.repositories import WARM_UP, affine, write_model
from triune.backends.attempt import Attempt
from triune.backends.tensor.backend import TensorBackend
from triune.config.configure import configure, read_source
from triune.config.links import require_adapter_near, require_checkpoint_near
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError
from triune.core.units import Presence, Unit, UnitStatus
from triune.runtimes.machine import Machine
from triune.runtimes.onnxruntime import OnnxRuntime

MACHINE = Machine({"onnxruntime": OnnxRuntime()}, [UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU")], 1)
LABELS = "output [{ name: 'y' data_type: TYPE_FP32 dims: 4 label_filename: 'labels.txt' }]"


def write(folder: Path, location: str = "weights") -> None:
    """A model whose weights are in the file `location` beside it."""
    model = model_of("g (float[b, 4] x) => (float[b, 4] y) <float[4] w = {1, 2, 3, 4}> { y = Add(x, w) }", opset=17)
    (weights,) = model.graph.initializer
    weights.ClearField("float_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def data(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return path


def link(place: Path, target: Path | str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def of_another_version(root: Path) -> None:
    write(root / "models/m/1")
    data(root / "models/m/0/weights")
    link(root / "models/m/1/weights", "../0/weights")


def of_the_repository(root: Path) -> None:
    write(root / "models/m/1")
    data(root / "models/.shared/weights")
    link(root / "models/m/1/weights", root / "models/.shared/weights")


def of_a_version_that_is_a_link(root: Path) -> None:
    write(root / "store", "deep/weights")
    data(root / "store/deep/weights")
    link(root / "models/m/1", root / "store")


def of_a_model_that_is_a_link(root: Path) -> None:
    write(root / "store/m/1")
    data(root / "store/m/0/weights")
    link(root / "store/m/1/weights", "../0/weights")
    link(root / "models/m", root / "store/m")


def of_a_cache_of_blobs(root: Path) -> None:
    """As Hugging Face's."""
    write(root / "hub/made")
    (root / "hub/blobs").mkdir()
    (root / "hub/made/model.onnx").rename(root / "hub/blobs/12ab")
    data(root / "hub/blobs/34cd")
    link(root / "hub/snapshots/main/onnx/model.onnx", "../../../blobs/12ab")
    link(root / "hub/snapshots/main/onnx/weights", "../../../blobs/34cd")
    link(root / "models/m/1", root / "hub/snapshots/main/onnx")


def of_a_file_that_is_a_link(root: Path) -> None:
    write(root / "store")
    data(root / "store/weights")
    for name in ("model.onnx", "weights"):
        link(root / "models/m/1" / name, root / "store" / name)


def with_a_link_that_is_not_the_models(root: Path) -> None:
    write(root / "models/m/1")
    data(root / "models/m/1/weights")
    link(root / "models/m/1/passwd", "/etc/passwd")


@pytest.mark.parametrize(
    "lay",
    [
        of_another_version,
        of_the_repository,
        of_a_version_that_is_a_link,
        of_a_model_that_is_a_link,
        of_a_cache_of_blobs,
        of_a_file_that_is_a_link,
        with_a_link_that_is_not_the_models,
    ],
)
def test_weights_of_the_model(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path)
    source = read_source("m", tmp_path / "models/m", stamp(tmp_path / "models/m"), '{"version_policy": {"all": {}}}')
    TensorBackend(MACHINE, MonotonicClock()).build(source, 1, None, Attempt()).close()


def elsewhere(root: Path) -> None:
    write(root / "models/m/1")
    link(root / "models/m/1/weights", data(root / "secret"))


def by_a_hidden_link(root: Path) -> None:
    write(root / "models/m/1", ".weights")
    link(root / "models/m/1/.weights", data(root / "secret"))


def in_a_folder_elsewhere(root: Path) -> None:
    write(root / "models/m/1", "deep/secret")
    data(root / "deep/secret")
    link(root / "models/m/1/deep", root / "deep")


def by_two_links(root: Path) -> None:
    write(root / "models/m/1", "deep/weights")
    link(root / "models/m/1/deep", "../../.shared")
    link(root / "models/.shared/weights", data(root / "secret"))


def beside_a_file_that_is_a_link(root: Path) -> None:
    write(root / "store")
    link(root / "models/m/1/model.onnx", root / "store/model.onnx")
    link(root / "models/m/1/weights", data(root / "store/deep/secret"))


@pytest.mark.parametrize(
    "lay", [elsewhere, by_a_hidden_link, in_a_folder_elsewhere, by_two_links, beside_a_file_that_is_a_link]
)
def test_weights_of_others(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path)
    source = read_source("m", tmp_path / "models/m", stamp(tmp_path / "models/m"))
    with pytest.raises(
        InvalidArgumentError, match="weights are, leads by a link to .*/secret, outside the model's folder"
    ):
        configure(source, 1, MACHINE)


def test_labels_and_warm_up(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "m", LABELS, v1=affine())
    (tmp_path / "models/words").write_text("a\nb\nc\nd\n")
    (folder / "labels.txt").symlink_to("../words")
    config = configure(read_source("m", folder, stamp(folder)), 1, MACHINE)
    assert config.outputs["y"].labels == ("a", "b", "c", "d")
    (tmp_path / "models/words").rename(tmp_path / "secret")
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidArgumentError, match="label_filename 'labels.txt' leads by a link to .*/secret, outside"):
        configure(read_source("m", folder, stamp(folder)), 1, MACHINE)
    (folder / "config.pbtxt").write_text(WARM_UP.replace("zero_data: true", "input_data_file: 'x'"))
    link(folder / "warmup/x", data(tmp_path / "row"))
    with pytest.raises(InvalidArgumentError, match="input_data_file 'x' leads by a link to .*/row, outside"):
        TensorBackend(MACHINE, MonotonicClock()).build(read_source("m", folder, stamp(folder)), 1, None, Attempt())


CHECKPOINT = ("config.json", "tokenizer.json", "chat_template.jinja", "adapters/poet/adapter_config.json")


@pytest.mark.parametrize("name", CHECKPOINT)
def test_files_of_checkpoints_that_are_no_part_of_the_model(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models/m"
    link(folder / "1" / name, data(tmp_path / "secret"))
    data(folder / "1/model.safetensors")
    with pytest.raises(InvalidArgumentError, match=f"'{name}', a part of the checkpoint, leads by a link to .*/secret"):
        require_checkpoint_near(folder / "1", folder)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "NOTICE.txt", ".gitattributes"])
def test_links_that_nobody_reads_may_lead_anywhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models/m"
    data(folder / "1/model.safetensors")
    link(folder / "1" / name, data(tmp_path / "secret"))
    require_checkpoint_near(folder / "1", folder)
    (folder / "1" / name).unlink()
    data(tmp_path / "secrets/adapter_config.json")
    link(folder / "1" / name, tmp_path / "secrets")
    with pytest.raises(InvalidArgumentError, match="a part of the checkpoint, leads by a link to .*/secrets"):
        require_checkpoint_near(folder / "1", folder)


@pytest.mark.parametrize("target", ["models/m/shared", "models/.shared/x", "hub/models--a--b/blobs/0f"])
@pytest.mark.parametrize("name", CHECKPOINT)
def test_files_of_checkpoints_that_are_near(tmp_path: Path, name: str, target: str) -> None:
    folder = tmp_path / "models/m"
    link(folder / "1" / name, data(tmp_path / target))
    link(folder / "1/model.safetensors", data(tmp_path / "store/weights.safetensors"))
    require_checkpoint_near(folder / "1", folder)


def test_a_version_that_is_a_snapshot_of_a_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--a--b/snapshots/1f"
    for name in CHECKPOINT[:3]:
        link(snapshot / name, data(tmp_path / "hub/models--a--b/blobs" / name))
    link(tmp_path / "models/m/1", snapshot)
    require_checkpoint_near(tmp_path / "models/m/1", tmp_path / "models/m")


def test_a_folder_called_as_one_of_a_cache_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "models/m"
    data(tmp_path / "secrets/key")
    link(folder / "models--a--b/blobs", tmp_path / "secrets")
    link(folder / "1/chat_template.jinja", folder / "models--a--b/blobs/key")
    with pytest.raises(InvalidArgumentError, match="leads by a link to .*/secrets/key"):
        require_checkpoint_near(folder / "1", folder)


def test_weights_beside_an_exported_decoder_that_is_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "models/m"
    for name in ("model.onnx", "model.onnx.data"):
        link(folder / "1" / name, data(tmp_path / "store" / name))
    require_checkpoint_near(folder / "1/model.onnx", folder)
    link(folder / "1/tokenizer.json", data(tmp_path / "store/tokenizer.json"))
    with pytest.raises(InvalidArgumentError, match="'tokenizer.json', a part of the checkpoint"):
        require_checkpoint_near(folder / "1/model.onnx", folder)


def test_the_folder_of_an_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "models/m"
    data(tmp_path / "elsewhere/adapter_config.json")
    link(folder / "1/adapters/poet", tmp_path / "elsewhere")
    with pytest.raises(InvalidArgumentError, match="the folder of the adapter 'poet' leads by a link to .*/elsewhere"):
        require_adapter_near(folder / "1/adapters/poet", folder)
