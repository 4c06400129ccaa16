"""Nothing here can run without MLX, which has builds for Macs of Apple silicon and for Linux alone."""

from triune.runtimes import missing

collect_ignore_glob = ["test_*.py"] if "mlx" in missing() else []
