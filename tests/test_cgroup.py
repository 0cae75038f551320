"""Limits of control groups, in trees of files as Linux shows them."""

from pathlib import Path

import pytest

from convcore.runtime import cgroup

NOWHERE = Path("no such file")


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files, and give the root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("max 100000\n", None),
        ("\n", None),
        ("100000 0\n", None),
    ],
)
def test_processors_of_the_root(
    tmp_path: Path, text: str, expected: int | None
) -> None:
    assert cgroup.processors(tree(tmp_path, {"cpu.max": text}), NOWHERE) == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("100000", 1), ("-1", None), ("", None)]
)
def test_processors_of_version_1(
    tmp_path: Path, quota: str, expected: int | None
) -> None:
    root = tree(
        tmp_path, {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": "100000"}
    )
    assert cgroup.processors(root, NOWHERE) == expected


def test_a_nested_group_of_version_2(tmp_path: Path) -> None:
    """A service of systemd: its limit is deep in the tree, and the root has none."""
    root = tree(
        tmp_path / "fs",
        {
            "system.slice/job.service/cpu.max": "300000 100000",
            "system.slice/cpu.max": "200000 100000",
            "system.slice/job.service/memory.max": "1000",
            "system.slice/memory.max": "max",
            "other.slice/cpu.max": "100000 100000",
        },
    )
    own = tmp_path / "cgroup"
    own.write_text("0::/system.slice/job.service\n")
    assert cgroup.processors(root, own) == 2
    assert cgroup.memory(root, own) == 1000


def test_a_nested_group_of_version_1(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "fs",
        {
            "cpu/a/b/cpu.cfs_quota_us": "100000",
            "cpu/a/b/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": "4096",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/a\n3:cpu,cpuacct:/a/b\n1:name=systemd:/x:y\n0::/\n")
    assert cgroup.processors(root, own) == 1
    assert cgroup.memory(root, own) == 4096


@pytest.mark.parametrize("text", ["0::/../..\n", "0::/gone\n", "nonsense\n", ""])
def test_groups_that_cannot_be_seen(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path / "fs", {"cpu.max": "200000 100000"})
    tree(tmp_path, {"cpu.max": "100000 100000"})
    own = tmp_path / "cgroup"
    own.write_text(text)
    assert cgroup.processors(root, own) == 2


def test_no_control_groups(tmp_path: Path) -> None:
    assert cgroup.processors(tmp_path, NOWHERE) is None
    assert cgroup.memory(tmp_path, NOWHERE) is None
