import math
import os
import sys
from pathlib import Path

import pytest

from triune.hardware.cores import cgroup_quota, num_usable_cores


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_limit(tmp_path: Path) -> None:
    write(tmp_path / "a.slice/cpu.max", "max 100000\n")
    assert cgroup_quota("0::/a.slice/b.service\n", tmp_path) == math.inf
    assert cgroup_quota("", tmp_path) == math.inf


def test_version_2_takes_the_strictest_of_all_levels(tmp_path: Path) -> None:
    write(tmp_path / "a.slice/cpu.max", "150000 100000\n")
    write(tmp_path / "a.slice/b.service/cpu.max", "800000 100000\n")
    write(tmp_path / "a.slice/b.service/deep/cpu.max", "max 100000\n")
    assert cgroup_quota("0::/a.slice/b.service/deep\n", tmp_path) == 1.5


def test_version_2_in_a_container_sees_its_own_root(tmp_path: Path) -> None:
    write(tmp_path / "cpu.max", "50000 100000\n")
    assert cgroup_quota("0::/\n", tmp_path) == 0.5


def test_version_1(tmp_path: Path) -> None:
    write(tmp_path / "cpu/docker/abc/cpu.cfs_quota_us", "250000\n")
    write(tmp_path / "cpu/docker/abc/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000\n")
    membership = "11:memory:/docker/abc\n5:cpuset:/docker/other\n1:cpu,cpuacct:/docker/abc\n"
    assert cgroup_quota(membership, tmp_path) == 2.5


def test_version_1_in_a_container_names_a_path_that_only_the_host_has(tmp_path: Path) -> None:
    write(tmp_path / "cpu/cpu.cfs_quota_us", "100000\n")
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota("4:cpu:/kubepods/pod1/xyz\n", tmp_path) == 1.0


def test_never_looks_outside_the_mount(tmp_path: Path) -> None:
    write(tmp_path / "cpu.max", "100000 100000\n")
    root = tmp_path / "cgroup"
    write(root / "cpu.max", "300000 100000\n")
    assert cgroup_quota("0::/a/b\n", root) == 3.0


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has neither affinity nor cgroups")
def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert num_usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= num_usable_cores() <= len(before)
