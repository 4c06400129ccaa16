"""What a request costs besides the model: an identity of 16 floats, against Triton, by Triton's own load generator.

Usage: front_end.py --peers DIR [--rounds 3] [--models identity_fp32 simple]
DIR holds the scripts that set Triton and perf_analyzer up: setup.sh, triton.sh, sweep.py.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from triune.zoo.repository import build_repository

from servers import ENVIRONMENT, heading, triton, triune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["identity_fp32"])
    parser.add_argument("--protocol", nargs="+", default=["http", "grpc"])
    parser.add_argument("--concurrency", nargs="+", default=["1", "8", "32"])
    options = parser.parse_args()
    print(heading("Front end"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        build_repository(repository, models=options.models)
        with triune(repository) as ours, triton(options.peers / "models", options.peers) as peer:
            for model in options.models:
                print(f"\n{model}", flush=True)
                servers = [
                    f"--server={s.label}={s.host}:{s.http_port},{s.host}:{s.grpc_port},{s.pid}" for s in (ours, peer)
                ]
                command = [
                    sys.executable, str(options.peers / "sweep.py"), "--model", model, *servers,
                    "--rounds", str(options.rounds), "--protocol", *options.protocol,
                    "--concurrency", *options.concurrency,
                ]  # fmt: skip
                subprocess.run(command, check=True, env=ENVIRONMENT)


if __name__ == "__main__":
    main()
