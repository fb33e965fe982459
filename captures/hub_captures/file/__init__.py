"""Capture `file`: lines of growing, rotating and finished files."""

from hub_captures.file.capture import FileCapture

__all__ = ["FileCapture"]
