"""Places that are a path or a URI: ``s3://bucket/prefix``, or any other that Arrow or fsspec knows.

Endpoint and credentials are those of the libraries' own variables (``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import dataset, fs

from campaigns.errors import CampaignError, RemoteError


def is_uri(place: str | Path) -> bool:
    """Whether it is a URI and no path."""
    return "://" in str(place)


def absolute(place: str | Path) -> str:
    """A path that means the same in another process; a URI as it is."""
    return str(place) if is_uri(place) else str(Path(place).absolute())


def joined(place: str | Path, *parts: str) -> str:
    """A place below."""
    return "/".join([absolute(place).rstrip("/"), *parts])


def filesystem(place: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system of a place, and the place's path there.

    Raises:
        CampaignError: Neither Arrow nor fsspec knows such a URI, or what it takes isn't installed.
        RemoteError: The store can't be reached.
    """
    if not is_uri(place):
        return fs.LocalFileSystem(), absolute(place)
    uri = str(place)
    try:
        with reaching(uri):
            return fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid:
        pass
    import fsspec

    try:
        found, path = fsspec.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise CampaignError(
            f"{uri}: is no place that Arrow or fsspec can open ({error}); "
            "give a path, s3://bucket/prefix, or install the library for it"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def parquet(place: str | Path) -> dataset.Dataset:
    """A Parquet file, or a folder of them, to be read in batches.

    Raises:
        FileNotFoundError, OSError: It is missing, or no Parquet.
        CampaignError, RemoteError: As :func:`filesystem`.
    """
    found, path = filesystem(place)
    # Arrow reads ahead, and keeps all bytes that it has read until the file's end: too much of a file of
    # gigabytes, and worth it only where a read is a request to a store.
    options = dataset.ParquetFragmentScanOptions(pre_buffer=is_uri(place))
    layout = dataset.ParquetFileFormat(default_fragment_scan_options=options)
    return dataset.dataset(path, filesystem=found, format=layout)


@contextmanager
def reaching(place: str | Path) -> Iterator[None]:
    """Say in one sentence that a store is away or refuses; what isn't there stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if not is_uri(place):
            raise
        reason = str(error).splitlines()[0]
        raise RemoteError(
            f"{place}: {reason}; look whether the store runs, the bucket is there, and AWS_ENDPOINT_URL, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are right"
        ) from error
