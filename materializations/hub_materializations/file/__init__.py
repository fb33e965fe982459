"""Materialization `file`: JSON lines in files, exactly once."""

from hub_materializations.file.sink import FileMaterialization

__all__ = ["FileMaterialization"]
