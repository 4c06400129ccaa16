"""Connections take no descriptor that models need."""

import logging
import subprocess
import sys

import pytest

from triune.lifetime.descriptors import connections_within, share_of


@pytest.mark.parametrize(
    ("num_descriptors", "num_listeners", "num_connections"),
    [(1 << 20, 3, 4096), (16384, 3, 4096), (16380, 3, 4095), (1024, 3, 256), (1024, 1, 768), (256, 3, 42), (100, 3, 1)],
)
def test_a_quarter_and_128_at_least_are_kept(
    num_descriptors: int, num_listeners: int, num_connections: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert connections_within(num_descriptors, 4096, num_listeners) == num_connections
    told = f"--max-connections is lowered from 4096 to {num_connections}: the process may have {num_descriptors} file"
    assert (told in caplog.text) == (num_connections < 4096)
    assert bool(caplog.text) == (num_connections < 4096)


def test_connections_that_take_several_descriptors_have_the_same_share() -> None:
    assert [share_of(each, 3) for each in (20000, 1024, 100)] == [5000, 256, 1]


def test_the_limit_is_raised_as_far_as_it_may_be() -> None:
    code = (
        "import resource; from triune.lifetime.descriptors import raise_descriptor_limit; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); "
        "print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "300 (300, 300)\n"
