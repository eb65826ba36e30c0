"""Where a step and its RayJob meet: a folder, or an object store's prefix, that both reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pyarrow import fs

from campaigns.storage import filesystem, reaching

Json = dict[str, Any]


class Exchange:
    """Files by name.

    Args:
        place: An absolute path, or a URI such as ``s3://bucket/prefix``.

    Raises:
        CampaignError: Nothing here opens such a URI.
        RemoteError: The store can't be reached.
    """

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self._fs, self._root = filesystem(self.place)

    def uri(self, name: str) -> str:
        """A file's place, for whoever reads it there."""
        return f"{self.place}/{name}"

    def put(self, local: str, name: str) -> None:
        """Copy a local file or folder here."""
        target = self._path(name) if Path(local).is_dir() else self._root
        with reaching(self.place):
            self._fs.create_dir(target, recursive=True)
            fs.copy_files(
                str(local),
                self._path(name),
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self._fs,
            )

    def get(self, name: str, local: str) -> None:
        """Copy a file or folder to a local path."""
        with reaching(self.place):
            folder = self._fs.get_file_info(self._path(name)).type == fs.FileType.Directory
            (Path(local) if folder else Path(local).parent).mkdir(parents=True, exist_ok=True)
            fs.copy_files(
                self._path(name),
                str(local),
                source_filesystem=self._fs,
                destination_filesystem=fs.LocalFileSystem(),
            )

    def write(self, name: str, told: Json) -> None:
        """Write JSON, so that who sees the file sees all of it."""
        half = self._path(f"{name}.half")
        with reaching(self.place):
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(half) as out:
                out.write(json.dumps(told).encode())
            self._fs.move(half, self._path(name))

    def read(self, name: str) -> Json | None:
        """The JSON of that name; None where there is none."""
        with reaching(self.place):
            if self._fs.get_file_info(self._path(name)).type == fs.FileType.NotFound:
                return None
            with self._fs.open_input_stream(self._path(name)) as file:
                told: Json = json.loads(file.read())
        return told

    def forget(self, name: str) -> None:
        """Delete a file, where it is there."""
        if self.read(name) is not None:
            self._fs.delete_file(self._path(name))

    def remove(self) -> None:
        """Delete everything here."""
        with reaching(self.place):
            if self._fs.get_file_info(self._root).type != fs.FileType.NotFound:
                self._fs.delete_dir(self._root)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
