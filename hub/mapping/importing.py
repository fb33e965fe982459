"""Imported mapping files: found beside the file that imports them, never outside of one folder.

Paths are hostile: absolute ones, `..` and symbolic links are resolved first and then held against the root.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hub.mapping.parse import TEXT_MAX


@dataclass(frozen=True, slots=True)
class FolderImporter:
    """Reads files by paths relative to `folder`; what lies outside of `root` is refused."""

    folder: Path
    root: Path

    def read(self, path: str) -> str:
        """The text of a file. Raises OSError or ValueError."""
        found = self._resolved(path)
        with found.open("rb") as file:
            data = file.read(4 * TEXT_MAX + 1)
        return data.decode("utf-8")

    def beside(self, path: str) -> FolderImporter:
        """The importer for what that file imports in turn."""
        return FolderImporter(self._resolved(path).parent, self.root)

    def _resolved(self, path: str) -> Path:
        if "\x00" in path:
            raise ValueError("a path may hold no NUL")
        root = self.root.resolve()
        found = (self.folder / path).resolve()
        if not found.is_relative_to(root):
            raise PermissionError(f"open {path}: outside of {root}")
        if not found.is_file():
            raise FileNotFoundError(f"open {path}: no such file or directory")
        return found
