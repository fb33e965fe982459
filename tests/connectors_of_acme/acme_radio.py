"""A connector whose driver is not installed."""

import acme_antenna  # noqa: F401
