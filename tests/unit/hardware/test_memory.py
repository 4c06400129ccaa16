from pathlib import Path

from triune.hardware.memory import Memory, usable_memory, within_cgroups

MACHINE = Memory(1000, 800)


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


def test_without_limits_it_is_the_machines(tmp_path: Path) -> None:
    write(tmp_path / "a", max="max", current=300)
    write(tmp_path / "memory" / "b", limit_in_bytes=9223372036854771712, usage_in_bytes=5)
    assert within_cgroups(MACHINE, "", tmp_path) == MACHINE
    assert within_cgroups(MACHINE, "0::/a", tmp_path) == MACHINE
    assert within_cgroups(MACHINE, "4:memory:/b\n0::/", tmp_path) == MACHINE


def test_version_2_takes_the_strictest_of_all_levels(tmp_path: Path) -> None:
    write(tmp_path / "a", max=600, current=250, stat="anon 100\ninactive_file 50\nactive_file 10")
    write(tmp_path / "a" / "b", max=900, current=100)
    assert within_cgroups(MACHINE, "0::/a/b", tmp_path) == Memory(600, 400)
    write(tmp_path / "a" / "b", max=500, current=350)
    assert within_cgroups(MACHINE, "0::/a/b", tmp_path) == Memory(500, 150)


def test_version_1(tmp_path: Path) -> None:
    stat = "inactive_file 1\ntotal_inactive_file 40"
    write(tmp_path / "memory" / "docker", limit_in_bytes=400, usage_in_bytes=300, stat=stat)
    membership = "5:cpu:/other\n4:memory:/docker\n0::/"
    assert within_cgroups(MACHINE, membership, tmp_path) == Memory(400, 140)


def test_version_1_in_a_container_names_a_path_that_only_the_host_has(tmp_path: Path) -> None:
    write(tmp_path / "memory", limit_in_bytes=400, usage_in_bytes=500)
    assert within_cgroups(MACHINE, "4:memory:/kubepods/pod1/xyz", tmp_path) == Memory(400, 0)


def test_this_process_has_memory() -> None:
    memory = usable_memory()
    assert 1 << 20 < memory.available <= memory.total
