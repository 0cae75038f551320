"""Files: bit for bit there and back, whole or not at all, and no trust in them."""

import io
import os
import re
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convcore import nn
from tests import oracle
from tests.nn.test_layer import basic_block, lenet


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "0.weight": oracle.normal(rng, (4, 3, 2)),
        "file": oracle.normal(rng, (2, 3), np.float64),
        "count": np.array(7, np.int64),
        "empty": np.empty((0, 5), np.float32),
        "odd": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        oracle.assert_bits_equal(array, other[name], name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.npz"


# There and back --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_arrays_come_back_bit_for_bit(path: Path, kind: Any) -> None:
    nn.save_npz(kind(path), arrays())
    same(nn.load_npz(kind(path)), arrays())
    assert all(array.flags.writeable for array in nn.load_npz(path).values())


def test_layers_come_back_bit_for_bit(path: Path) -> None:
    model, twin = basic_block(4, 2), basic_block(4, 2)
    model.reset_parameters(3)
    model.forward(oracle.normal(np.random.default_rng(0), (2, 4, 6, 6)))
    model.save(path)
    assert twin.load(path) == ([], [])
    same(twin.state_dict(), model.state_dict())


def test_the_name_is_kept_as_given(tmp_path: Path) -> None:
    nn.Linear(2, 2).save(tmp_path / "weights.v1")
    assert os.listdir(tmp_path) == ["weights.v1"]


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lenet().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_reads_what_is_written_and_the_other_way_round(path: Path) -> None:
    nn.save_npz(path, arrays())
    with np.load(path, allow_pickle=False) as found:
        same({name: found[name] for name in found.files}, arrays())
    own = {name: array for name, array in arrays().items() if name != "file"}
    for save in (np.savez, np.savez_compressed):
        save(path, **own)
        same(nn.load_npz(path), own)


def test_foreign_layouts_become_plain(path: Path) -> None:
    array = oracle.normal(np.random.default_rng(0), (3, 4))
    np.savez(path, fortran=np.asfortranarray(array), big=array.astype(">f4"))
    for found in nn.load_npz(path).values():
        oracle.assert_bits_equal(found, array)
        assert found.flags.c_contiguous
        assert found.dtype.isnative
    nn.save_npz(path, {"strided": array.T[::2], "big": array.astype(">f4")})
    oracle.assert_bits_equal(nn.load_npz(path)["strided"], array.T[::2].copy())
    oracle.assert_bits_equal(nn.load_npz(path)["big"], array)


# Whole or not at all ---------------------------------------------------------------


@pytest.mark.parametrize("step", ["write_array", "fsync", "replace"])
def test_a_failed_save_leaves_the_old_file(
    path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nn.save_npz(path, arrays())
    before = path.read_bytes()
    where: Any = np.lib.format if step == "write_array" else os

    def fail(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, step, fail)
    with pytest.raises(OSError, match="No space left"):
        nn.Linear(2, 2).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_save_that_is_interrupted_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nn.save_npz(path, arrays())
    before = path.read_bytes()

    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nn.Linear(2, 2).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_the_new_file_has_the_rights_of_the_old(path: Path) -> None:
    nn.save_npz(path, arrays())
    fresh = path.with_name("plain")
    fresh.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(fresh.stat().st_mode)
    path.chmod(0o600)
    nn.save_npz(path, arrays())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_followed(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link"
    nn.save_npz(path, {})
    link.symlink_to(path)
    nn.save_npz(link, arrays())
    assert link.is_symlink()
    same(nn.load_npz(path), arrays())


def test_no_folder_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/weights\.npz'$"):
        nn.Linear(2, 2).save(tmp_path / "nowhere" / "weights.npz")
    with pytest.raises(FileNotFoundError):
        nn.Linear(2, 2).load(tmp_path / "weights.npz")
    with pytest.raises(OSError, match=f"directory: '{re.escape(str(tmp_path))}'$"):
        nn.Linear(2, 2).save(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "array", [np.ones(2, np.float16), np.array([object()]), [1.0], np.ones(2, int) > 0]
)
def test_other_arrays_are_not_written(path: Path, array: Any) -> None:
    with pytest.raises(TypeError, match="save_npz: a must be an array of float32"):
        nn.save_npz(path, {"a": array})
    assert not path.exists()


# No trust --------------------------------------------------------------------------


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """An .npy file with any header."""
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + data


def archive(
    path: Path, *members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        zipfile.ZipFile(path, "w", packing) as file,
    ):
        patch.setattr("warnings.warn", lambda *args, **options: None)  # duplicates
        for name, data in members:
            file.writestr(name, data)


ONES = npy(np.ones(4, np.float32))
FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
BAD: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "not an array": ([("a.npy", b"hello")], "magic"),
    "an empty member": ([("a.npy", b"")], "a"),
    "another suffix": ([("readme.txt", b"hello")], "'readme.txt' does not end"),
    "a name twice": ([("w.npy", ONES), ("w.npy", ONES)], "two arrays have the same"),
    "objects": ([("a.npy", npy(np.array([{}])))], "must be float32, .* got object"),
    "half precision": ([("a.npy", npy(np.ones(2, "f2")))], "got float16"),
    "integers": ([("a.npy", npy(np.ones(2, "i4")))], "got int32"),
    "records": ([("a.npy", npy(np.ones(2, "f4,f4")))], "must be float32"),
    "4 TiB": ([("a.npy", header(FLOATS % "(1099511627776,)", b"x" * 16))], "declares"),
    "a size that wraps": (
        [("a.npy", header(FLOATS % "(4611686018427387904, 4)"))],
        "declares 73786976294838206464 bytes",
    ),
    "short data": ([("a.npy", header(FLOATS % "(9,)", b"x" * 16))], "but has 16"),
    "more data": ([("a.npy", header(FLOATS % "(1,)", b"x" * 16))], "declares 4 bytes"),
    "a negative extent": ([("a.npy", header(FLOATS % "(-1,)"))], "a"),
    "a bool extent": ([("a.npy", header(FLOATS % "(True,)", b"x" * 4))], "a"),
    "a float extent": ([("a.npy", header(FLOATS % "(1.0,)", b"x" * 4))], "a"),
    "no shape": ([("a.npy", header("{'descr': '<f4'}"))], "a"),
    "no dictionary": ([("a.npy", header("[]"))], "a"),
    "code": ([("a.npy", header("__import__('os').abort()"))], "a"),
    "deep signs": ([("a.npy", header("-" * 9000 + "1"))], "too deep a header"),
    "deep brackets": ([("a.npy", header("(" * 5000))], "a"),
    "a large header": (
        [("a.npy", header((FLOATS % "(4,)") + " " * 20000, b"x" * 16))],
        "[Hh]eader",
    ),
    "version 3": (
        [("a.npy", header(FLOATS % "(1,)", b"x" * 4, version=3))],
        r"version \(3, 0\)",
    ),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_members(path: Path, name: str) -> None:
    members, message = BAD[name]
    archive(path, ("good.npy", ONES), *members, packing=zipfile.ZIP_STORED)
    with pytest.raises(ValueError, match=f"load_npz: {path}: .*{message}"):
        nn.load_npz(path)


def test_bombs(path: Path) -> None:
    zeros = np.zeros(2_500_000, np.float32)
    np.savez_compressed(path, a=zeros)
    with pytest.raises(ValueError, match=r"a.npy unpacks \d+ bytes to 10000128, max_r"):
        nn.load_npz(path)
    oracle.assert_bits_equal(nn.load_npz(path, max_ratio=2000)["a"], zeros)
    np.savez(path, a=zeros)
    with pytest.raises(ValueError, match=r"take 10000128 bytes, max_bytes is 10000000"):
        nn.load_npz(path, max_bytes=10**7)
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="max_bytes is 10"):
        layer.load(path, max_bytes=10)


def test_sizes_in_the_directory_are_not_believed(path: Path) -> None:
    """2 GB declared everywhere, 16 bytes there: nothing is allocated for that."""
    data = header(FLOATS % "(500000000,)", b"x" * 16)
    archive(path, ("a.npy", data), packing=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    size = len(data) - 16 + 2 * 10**9
    content[entry + 20 : entry + 28] = struct.pack("<II", size, size)
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"its arrays take {size} bytes, the file has"
    ):
        nn.load_npz(path)


def test_data_that_ends_early(path: Path) -> None:
    """36 bytes declared everywhere, 16 packed, with their right checksum."""
    data = header(FLOATS % "(9,)", b"x" * 16)
    archive(path, ("a.npy", data))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", len(data) + 20)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy ends after 16 bytes of data"):
        nn.load_npz(path)


def test_encrypted_members(path: Path) -> None:
    archive(path, ("a.npy", ONES), packing=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for place in (6, content.index(b"PK\x01\x02") + 8):
        content[place] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"load_npz: {path}: .*encrypted"):
        nn.load_npz(path)


def test_other_packings(path: Path) -> None:
    archive(path, ("a.npy", ONES), packing=zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match=r"a\.npy is neither stored nor deflated"):
        nn.load_npz(path)


def test_every_truncation_is_found(path: Path) -> None:
    nn.save_npz(path, {"a": np.ones(3, np.float32), "b": np.zeros(2)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"load_npz: {path}"):
            nn.load_npz(path)


@pytest.mark.parametrize("save", [nn.save_npz, np.savez_compressed])
def test_every_broken_byte_is_found_or_harmless(path: Path, save: Any) -> None:
    """Never another exception; and what is read has come through the checksum."""
    own = np.arange(3.0)
    save(path, **({"a": own} if save is not nn.save_npz else {"arrays": {"a": own}}))
    whole = path.read_bytes()
    found = []
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            read = nn.load_npz(path)
        except ValueError as error:
            found.append(str(error))
        else:
            assert all(array.tobytes() == own.tobytes() for array in read.values())
    assert len(found) > len(whole) / 2
    assert all(text.startswith(f"load_npz: {path}: ") for text in found)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x05\x06" + b"\0" * 17, b"\x80\x04."]
)
def test_no_archive(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"load_npz: {path}"):
        nn.load_npz(path)


def test_a_pickle_is_never_opened(path: Path) -> None:
    marker = path.with_name("marker")

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    archive(path, ("a.npy", npy(np.array([Evil()]))))
    with pytest.raises(ValueError, match="got object"):
        nn.load_npz(path)
    assert not marker.exists()


def test_a_file_for_another_layer_changes_nothing(path: Path) -> None:
    nn.Linear(3, 2).save(path)
    layer = nn.Linear(2, 2)
    before = layer.state_dict()
    with pytest.raises(
        ValueError, match=f"Linear.load: {path}: weight must have shape"
    ):
        layer.load(path)
    same(layer.state_dict(), before)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"load_npz: {path}"):
        layer.load(path)
    same(layer.state_dict(), before)
