"""`python -m hub` is the command `hub`, for an interpreter whose scripts are not on the PATH."""

from __future__ import annotations

from hub.cli import main

if __name__ == "__main__":
    main()
