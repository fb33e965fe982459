"""Capture `http_server`: records that others post, answered when they are durable."""

from hub_captures.http_server.capture import HttpServerCapture

__all__ = ["HttpServerCapture"]
