"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path


@contextmanager
def atomic(path: Path, mode: Literal["w", "wb"] = "w") -> Generator[IO[Any], None, None]:
    """Open a file for writing that takes its name when the block ends without an error.

    Missing folders are made; text is UTF-8. Raises OSError.
    """
    import tempfile  # which loads all of shutil's compressors

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
        # mkstemp makes private files; these get what open() would have given them.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
