"""Hashes: names of files that stand for what is in them, and checks of what is read."""

from __future__ import annotations

try:
    # The same function as hashlib's, which loads OpenSSL as well: 3 ms.
    from _blake2 import blake2b as blake2b
except ImportError:
    from hashlib import blake2b as blake2b

__all__ = ["blake2b"]
