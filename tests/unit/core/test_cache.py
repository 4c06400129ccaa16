from pathlib import Path

from triune.core.cache import cache_folder


def test_the_cache_folder_follows_the_environment(tmp_path: Path) -> None:
    assert cache_folder({"TRIUNE_CACHE": str(tmp_path)}) == tmp_path
    assert cache_folder({}).name == "triune"
