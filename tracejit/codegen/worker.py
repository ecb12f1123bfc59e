"""The program of a compile worker: IR in through a pipe, object code out through another.

It runs as ``python -I -S worker.py LIBRARY``, where LIBRARY is the file with LLVM in it: a new
interpreter that imports ``llvm.py``, and neither tracejit nor the user's program.
``runtime/workers.py`` starts it and speaks the other side:

    worker → ``HELLO`` once it is ready
    request  lengths of cpu, features and IR, the two levels, and a byte that is not used; the texts
    answer   a byte (0: object code follows; 1: a message follows), its length, and the bytes

It ends when its input does, and with it when the process that started it dies.
"""

from __future__ import annotations

import struct
import sys

TYPE_CHECKING = False  # typing takes 2 ms to import
if TYPE_CHECKING:
    from typing import Any, BinaryIO

HELLO = b"tracejit worker 1\n"
REQUEST = struct.Struct("<HHIBBH")
ANSWER = struct.Struct("<BI")


class _Target:
    """What ``llvm.py`` reads of a target."""

    def __init__(self, cpu: str, features: str):
        self.cpu, self.features = cpu, features


def _serve(llvm: Any, requests: BinaryIO, answers: BinaryIO) -> None:
    while head := requests.read(REQUEST.size):
        cpu, features, text, level, passes, _ = REQUEST.unpack(head)
        target = _Target(requests.read(cpu).decode(), requests.read(features).decode())
        source = requests.read(text).decode()
        try:
            status, answer = 0, llvm.compile_object(source, target, level, passes=passes)
        except Exception as error:
            status, answer = 1, f"{error}".encode()
        answers.write(ANSWER.pack(status, len(answer)) + answer)
        answers.flush()


def _main() -> None:
    import os
    from importlib import import_module

    # Files that the program lets its children have are none of ours, nor is its folder.
    os.closerange(3, 1 << 16)
    os.chdir("/")

    # By its place: importing it as tracejit.codegen.llvm would import tracejit, and NumPy.
    sys.path.append(os.path.dirname(__file__))
    llvm: Any = import_module("llvm")
    sys.path.pop()
    llvm.library_path = sys.argv[1]
    llvm.load()
    # Whatever prints must not disturb the answers.
    requests, answers, sys.stdout = sys.stdin.buffer, sys.stdout.buffer, sys.stderr
    answers.write(HELLO)
    answers.flush()
    _serve(llvm, requests, answers)


if __name__ == "__main__":
    _main()
