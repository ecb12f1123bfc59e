"""``python -m benchmarks``: what ``tracejit bench`` runs."""

from __future__ import annotations

import sys

from tracejit import errors

from .command import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except errors.TracejitError as error:
        sys.exit(f"error: {error}")
