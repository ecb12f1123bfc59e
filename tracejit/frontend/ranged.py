"""Plans for ranges of sizes: traced with symbolic sizes, they run for every size that they admit.

Native calls reach a plan by a form of the function's own entry, where that can serve it. What takes
the Python path (tensors, dataclasses, NumPy steps, views as results) runs it by ``Ranged.call``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracejit.frontend.compiled import Answer, Recorded
from tracejit.frontend.signature import ArrayKey, signature_text
from tracejit.frontend.variation import Dimension
from tracejit.ops.table import Array
from tracejit.runtime import inside
from tracejit.runtime.dynamic import DynamicForm
from tracejit.runtime.entry import I64Array, NativeForm
from tracejit.runtime.numbers import Numbers, Values

# What runs natively, of the arrays of the leaves and the values of the numbers. Raises Unfit.
NativeRun = Callable[[Sequence[Array], Values], list[Array]]
# A size is hot that the newest call had at so many looks running (``runtime/analysis.py``), with so
# many calls between two.
HOT_LOOKS, HOT_CALLS = 4, 64


class Ranged(Answer):
    """A plan for ranges of sizes, what calls it by the Python path, and how often it answers.

    ``form`` is for the function's own native entry, None where that cannot serve the plan. From
    its word ``noted`` on it has the newest call's numbers of the dimensions ``varied``, which are
    symbols here. ``native`` is the form once the entry has taken it. ``run`` is the Python path's,
    ``driven_ns`` the time of its calls.
    """

    __slots__ = (
        "__weakref__", "_calls", "_judged", "_looks", "_newest", "_run", "_runs", "_seen", "_sizes",
        "driven_ns", "form", "native", "numbers", "varied",
    )  # fmt: skip

    def __init__(
        self,
        recorded: Recorded,
        keys: Sequence[Any],
        numbers: Numbers,
        varied: Sequence[Dimension],
        run: NativeRun,
        form: DynamicForm | None,
    ):
        super().__init__(recorded, keys)
        self.numbers = numbers
        self.varied = varied
        self.form = form
        self._run = run
        self.native: NativeForm | None = None
        self._sizes: I64Array = np.zeros(0, np.int64) if form is None else form.words[form.noted :]
        # Of the Python path: calls, their time, and the sizes of the newest.
        self._runs = self.driven_ns = 0
        self._newest: tuple[int, ...] = ()
        # What the last looks have seen.
        self._calls = self._judged = self._looks = 0
        self._seen: tuple[int, ...] = ()

    def call(
        self,
        values: Values,
        keys: Sequence[Any],
        leaves: Sequence[Any],
        plain: Callable[[Any, Any], Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Return what the function returns for these leaves; ``values`` are of their sizes.

        Raises Unfit where another way has to answer: a position is out of range, or native code
        is shut.
        """
        before, started = inside.spent(), time.perf_counter_ns()
        result = self.answer(lambda a: self._run(a, values), leaves, plain, args, kwargs)
        elapsed = max(0, time.perf_counter_ns() - started)
        self.driven_ns += elapsed
        self._runs += 1
        inside.took(elapsed * 1e-9, before)
        self._newest = tuple(keys[leaf][part][axis] for leaf, part, axis in self.varied)
        return result

    def __str__(self) -> str:
        """Return the sizes that it is for, as a signature: ``float32[2.., 64]``.

        Guards between sizes are not in it.
        """
        parts: list[Any] = list(self.keys)
        for leaf, key in enumerate(parts):
            if isinstance(key, ArrayKey):
                shape: Any = tuple(map(self.numbers.family.interval, key[1]))
                parts[leaf] = ArrayKey((key[0], shape, key[2]))
        return signature_text(parts)

    @property
    def calls(self) -> int:
        """How many calls it has answered."""
        return self._runs + (0 if self.native is None else self.native.calls)

    def look(self) -> int:
        """Return how many calls there were since the last look."""
        calls = self.calls
        new, self._calls = calls - self._calls, calls
        if calls - self._judged >= HOT_CALLS:
            native = 2 * self._runs < calls
            sizes = tuple(self._sizes.tolist()) if native else self._newest
            self._looks = self._looks + 1 if sizes == self._seen else 0
            self._seen, self._judged = sizes, calls
        return new

    @property
    def hot(self) -> tuple[int, ...] | None:
        """The numbers of ``varied`` that nearly all calls have; None where there are none."""
        return self._seen if self._looks >= HOT_LOOKS else None
