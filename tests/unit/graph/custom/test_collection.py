"""Files of custom operators."""

import pickle
from pathlib import Path

import pytest

from support.custom_ops import SOURCE
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.graph.custom import NO_CUSTOM_OPS, CustomOp, custom_op, read_custom_ops


def written(folder: Path, text: str, name: str = "ops.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_defines_operators(tmp_path: Path) -> None:
    ops = read_custom_ops(written(tmp_path, SOURCE))
    assert [str(each) for each in ops.ops.values()] == ["my.domain::Swish", "my.domain::Ranks", "my.domain::Sorted"]
    assert ops.files == (tmp_path / "ops.py",)


def test_another_process_reads_the_files_again(tmp_path: Path) -> None:
    ops = read_custom_ops(written(tmp_path, SOURCE))
    again = pickle.loads(pickle.dumps(ops))
    assert again.ops.keys() == ops.ops.keys()
    assert again.digest() == ops.digest()


def test_the_digest_knows_the_numpy_functions_of_files(tmp_path: Path) -> None:
    before = read_custom_ops(written(tmp_path, SOURCE)).digest()
    assert read_custom_ops(written(tmp_path, SOURCE.replace("argsort", "argmax"))).digest() != before


def test_none_is_false() -> None:
    assert not NO_CUSTOM_OPS
    assert not pickle.loads(pickle.dumps(NO_CUSTOM_OPS))
    assert read_custom_ops([custom_op("my::Same")(lambda x: x)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "'ops.py' defines no custom operator; decorate a function with @triune.custom_op"),
        ("import triune\n\nx = 1 / 0\n", "'ops.py' of custom operators fails in line 3: ZeroDivisionError"),
        ("def f(:", "'ops.py' of custom operators fails: SyntaxError"),
        ("import triune\ntriune.custom_op('Double')", "in 'ops.py': 'Double' has no domain"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        read_custom_ops(written(tmp_path, text))
    assert message in f"{refused.value}"


def test_two_files_may_not_define_one_operator(tmp_path: Path) -> None:
    files = [written(tmp_path, SOURCE), written(tmp_path, SOURCE, "more.py")]
    with pytest.raises(InvalidArgumentError, match="'my.domain::Swish' is defined by 'ops.py' and by 'more.py'"):
        read_custom_ops(files)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        read_custom_ops(tmp_path / "ops.py")
    with pytest.raises(InvalidArgumentError, match="not in 'ops.txt'"):
        read_custom_ops(written(tmp_path, SOURCE, "ops.txt"))
    with pytest.raises(InvalidArgumentError, match="as files or as objects, not as both"):
        read_custom_ops([written(tmp_path, SOURCE), CustomOp("my", "Same", lambda x: x)])
