"""A trace that a server records is one that the simulator reads."""

import json
import subprocess
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.http

from support.process import TRIUNE, serve
from support.repositories import affine, write_model
from support.triton_tensors import tensors
from triune.simulation.trace import read_trace


def test_what_a_server_records_is_simulated(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "affine", v1=affine())
    path = tmp_path / "trace.jsonl"
    with serve(tmp_path / "models", f"--record={path}") as served:
        for client, address in ((tritonclient.http, served.http), (tritonclient.grpc, served.grpc)):
            with client.InferenceServerClient(address) as connected:
                for num_rows in (1, 2, 3):
                    inputs = tensors(client, {"x": np.full((num_rows, 4), 987654.0, np.float32)})
                    connected.infer("affine", inputs)
    found = read_trace(path)
    assert [(each.model, each.num_rows) for each in found] == [("affine", rows) for rows in (1, 2, 3, 1, 2, 3)]
    assert "987654" not in path.read_text()
    command = [TRIUNE, "simulate", f"--repository={tmp_path / 'models'}", "--chip=m1", f"--trace={path}", "--json"]
    values = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert values["kind"] == "simulated"
    assert values["results"][0]["total"]["num_rows"] == 12
    again = subprocess.run(
        [TRIUNE, "serve", f"--repository={tmp_path / 'models'}", f"--record={path}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode != 0
    assert "exists, and a recording replaces no file" in again.stderr
