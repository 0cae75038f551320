"""Arrays in .npz files: written whole or not at all, and read without trust.

An .npz file is a ZIP archive with one .npy file per array; `numpy.load` reads what
`save_npz` writes, and `load_npz` what `numpy.savez` writes.
"""

import os
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from os import PathLike
from typing import IO, Any

import numpy as np

from convcore.arguments import integer, real, shown
from convcore.runtime.arrays import Array

__all__ = ["load_npz", "save_npz"]

MAX_BYTES = 2**31  # of all arrays of a file; 15 times the weights of a ResNet-50
MAX_RATIO = 100  # unpacked to packed; weights compress about 1.1 times, bombs 1000
_SUFFIX = ".npy"
_DTYPES = (np.float32, np.float64, np.int64)
_CHUNK = 2**24  # bytes
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def save_npz(path: str | PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays to a file, which takes its name only when it is complete.

    Parameters
    ----------
    path : str or PathLike
        Name of the file, kept exactly as given. A symbolic link is followed.
    arrays : mapping of str to ndarray
        float32, float64 or int64.

    Raises
    ------
    TypeError
        When an array has another dtype.
    OSError
        When the file cannot be written. Then an older one is still as it was.

    Notes
    -----
    Written to a new file in the same folder, flushed to the disk, then renamed. Nothing
    is compressed, and no time is stored: the same arrays give the same bytes.
    """
    path = _path("save_npz", path)
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"save_npz: arrays must be a mapping, got {type(arrays).__name__}"
        )
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise TypeError(
                f"save_npz: arrays must have str as names, got {shown(name):.60}"
            )
        if (
            not isinstance(array, np.ndarray)
            or array.dtype.newbyteorder("=") not in _DTYPES
        ):
            kind = getattr(array, "dtype", type(array).__name__)
            raise TypeError(
                f"save_npz: {name} must be an array of float32, float64 or int64, "
                f"got {kind}"
            )
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            _write(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            # The caller knows no other name than the one that was given.
            raise type(error)(error.errno, error.strerror, path) from None
        raise
    _sync_folder(folder)


def load_npz(
    path: str | PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
) -> dict[str, Array]:
    """Read all arrays of a file, of any origin.

    Parameters
    ----------
    path : str or PathLike
        Name of the file, exactly.
    max_bytes : int
        Most bytes of all arrays together; 2 GiB by default.
    max_ratio : float
        Most bytes that one byte of a compressed array may become.

    Returns
    -------
    dict of str to ndarray
        In the order of the file: float32, float64 or int64, C-contiguous and native.

    Raises
    ------
    ValueError
        When the file is damaged or truncated, is no .npz file, has two arrays of one
        name, another dtype, a wrong size, or breaks a limit. The text names the file.
    OSError
        When the file cannot be opened.

    Notes
    -----
    Nothing is unpickled. All names, headers and sizes are checked before the first
    array is allocated, and a size is believed only as far as the bytes in the file can
    bear it out.
    """
    path = _path("load_npz", path)
    max_bytes = integer("load_npz", "max_bytes", max_bytes, 0)
    max_ratio = real("load_npz", "max_ratio", max_ratio, 0)
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read(
                    archive, os.fstat(file.fileno()).st_size, max_bytes, max_ratio
                )
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"load_npz: {path}: {error}") from error


def _path(function: str, path: Any) -> str:
    """Give the name of a file; a number would be one that is open already."""
    if not isinstance(path, (str, PathLike)):
        raise TypeError(
            f"{function}: path must be a str or PathLike, got {type(path).__name__}"
        )
    name = os.fspath(path)
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(
            f"{function}: path must be the name of a file, got {shown(name)}"
        )
    return name


def _write(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # ZipInfo's own date, 1980-01-01, instead of the time of the day.
            info = zipfile.ZipInfo(name + _SUFFIX)
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _sync_folder(folder: str) -> None:
    """Bring the new name to the disk, too, where the system can do that to a folder.

    It has taken effect already: what fails here is no failure of the save.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(
    archive: zipfile.ZipFile, file_bytes: int, max_bytes: int, max_ratio: float
) -> dict[str, Array]:
    """Check every member, then read every member."""
    members = archive.infolist()
    names = [_name(member) for member in members]
    if len(set(names)) < len(names):
        raise ValueError("two arrays have the same name")
    packed = sum(member.compress_size for member in members)
    if packed > file_bytes:
        raise ValueError(f"its arrays take {packed} bytes, the file has {file_bytes}")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise ValueError(f"its arrays take {total} bytes, max_bytes is {max_bytes}")
    for member in members:
        if member.file_size > max_ratio * member.compress_size:
            raise ValueError(
                f"{member.filename} unpacks {member.compress_size} bytes to "
                f"{member.file_size}, max_ratio is {max_ratio}"
            )
    for member in members:
        with archive.open(member) as stream:
            _header(stream, member)
    arrays = {}
    for name, member in zip(names, members, strict=True):
        with archive.open(member) as stream:
            arrays[name] = _array(stream, member)
    return arrays


def _name(member: zipfile.ZipInfo) -> str:
    """Give the name of the array in a member."""
    if not member.filename.endswith(_SUFFIX):
        raise ValueError(f"{shown(member.filename)} does not end with {_SUFFIX}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is neither stored nor deflated")
    return member.filename.removesuffix(_SUFFIX)


def _header(
    stream: IO[bytes], member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and dtype, and check that the data has just this size."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"{member.filename} has version {version} of the .npy format")
    try:
        shape, fortran, dtype = _HEADERS[version](stream)
    except MemoryError:  # Python's parser has a stack of its own, which is full
        raise ValueError(f"{member.filename} has too deep a header") from None
    if dtype.newbyteorder("=") not in _DTYPES:
        raise ValueError(
            f"{member.filename} must be float32, float64 or int64, got {dtype}"
        )
    if any(type(extent) is not int or extent < 0 for extent in shape):
        raise ValueError(f"{member.filename} has shape {shape}")
    declared = prod(shape) * dtype.itemsize
    stored = member.file_size - stream.tell()
    if declared != stored:
        raise ValueError(
            f"{member.filename} declares {declared} bytes of data, but has {stored}"
        )
    return shape, fortran, dtype


def _array(stream: IO[bytes], member: zipfile.ZipInfo) -> Array:
    """Read the array of a member whose header has been checked."""
    shape, fortran, dtype = _header(stream, member)
    flat = np.empty(prod(shape), dtype)
    data = flat.view(np.uint8)
    filled = 0
    while filled < data.size:
        chunk = stream.read(min(_CHUNK, data.size - filled))
        if not chunk:
            raise ValueError(f"{member.filename} ends after {filled} bytes of data")
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    array = flat.reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)
