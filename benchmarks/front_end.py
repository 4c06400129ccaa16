"""What a request costs besides the model: an identity of 16 floats, against Triton, by Triton's own load generator.

Usage: front_end.py --peers DIR [--rounds 3]
DIR holds the scripts that set Triton and perf_analyzer up (setup.sh, triton.sh, sweep.py) and the peer's models.

Three peers: Triune's own floor (floor.py: the socket alone), Triton with the identity in its Python backend, and Triton
answering from its response cache. A hit runs no backend, so the last shows the cost of Triton's native front end alone.
(Triune itself computes each answer.)
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from servers import ENVIRONMENT, Running, heading, triton, triune
from triune.zoo.repository import build_repository

MODEL = "identity_fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--protocol", nargs="+", default=["http", "grpc"])
    parser.add_argument("--concurrency", nargs="+", default=["1", "8", "32"])
    options = parser.parse_args()
    print(heading("Front end"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        build_repository(Path(folder) / "triune", models=[MODEL])
        cached = Path(folder) / "cached"
        shutil.copytree(options.peers / "models" / MODEL, cached / MODEL)
        config = cached / MODEL / "config.pbtxt"
        config.write_text(config.read_text() + "response_cache { enable: true }\n")
        peers = {
            "Python backend": (options.peers / "models", []),
            "native, from the response cache": (cached, ["--cache-config=local,size=1048576"]),
        }
        repository = Path(folder) / "triune"
        if "http" in options.protocol:
            print("\nagainst the floor", flush=True)
            floor = (str(Path(__file__).with_name("floor.py")),)
            with triune(repository) as ours, triune(repository, label="floor", port=19100, program=floor) as peer:
                sweep(options, ours, peer, protocols=["http"])
        for title, (theirs, arguments) in peers.items():
            print(f"\nagainst Triton ({title})", flush=True)
            with triune(repository) as ours, triton(theirs, options.peers, *arguments) as peer:
                sweep(options, ours, peer)


def sweep(options: argparse.Namespace, *servers: Running, protocols: Sequence[str] = ()) -> None:
    addresses = [f"--server={s.label}={s.host}:{s.http_port},{s.host}:{s.grpc_port},{s.pid}" for s in servers]
    command = [
        sys.executable, str(options.peers / "sweep.py"), "--model", MODEL, *addresses,
        "--rounds", str(options.rounds), "--protocol", *(protocols or options.protocol),
        "--concurrency", *options.concurrency,
    ]  # fmt: skip
    subprocess.run(command, check=True, env=ENVIRONMENT)


if __name__ == "__main__":
    main()
