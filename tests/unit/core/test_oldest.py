import os
from pathlib import Path

from triune.core.oldest import forget_oldest


def test_the_newest_are_left_and_a_file_that_is_gone_meanwhile_is_no_error(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").write_text("x")
        os.utime(tmp_path / f"{number}", (number, number))
    # What another process has removed since the folder was listed has no state either.
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    forget_oldest(tmp_path, 2)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["3", "4", "gone"]
    forget_oldest(tmp_path, 2)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["3", "4", "gone"]
