"""Work that goes on in a thread while the kernel stays free to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any


class Background:
    """Results for a few keys, computed in a thread; a new source makes the old work stop.

    compute(source, key, check)  a result; it calls check() often, which raises once the work is
                                 out of date, so that a new source need not wait for the old.
    keys                         all that may be asked for; `wanted` says which come first.
    arrived(key)                 called, in the thread, when a result is there; with None where
                                 the work has ended with `error`.
    """

    def __init__(
        self,
        compute: Callable[[Any, Any, Callable[[], None]], Any],
        keys: list,
        wanted: Callable[[], Any],
        arrived: Callable[[Any], None],
    ) -> None:
        self._compute, self._keys, self._wanted, self._arrived = compute, keys, wanted, arrived
        self._source, self._thread = object(), None
        self.results: dict[Any, Any] = {}
        self.error: Exception | None = None

    def start(self, source: Any, results: Mapping[Any, Any] | None = None) -> None:
        """Forget the old source and begin with a new one; `results` are what is known of it."""
        self._source, self.results, self.error = source, dict(results or {}), None
        job = (source, self.results)  # an outdated thread fills a dict that nobody reads
        if len(self.results) < len(self._keys):
            self._thread = threading.Thread(target=self._work, args=job, daemon=True)
            self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Until all results are there; raises what went wrong in the thread, or TimeoutError."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                raise TimeoutError(f"not done after {seconds} s")
        if self.error is not None:
            raise self.error

    def _work(self, source: Any, results: dict[Any, Any]) -> None:
        def check() -> None:
            if source is not self._source:
                raise _OutOfDate

        try:
            while left := [key for key in self._keys if key not in results]:
                here = self._keys.index(self._wanted())
                key = min(left, key=lambda k: abs(self._keys.index(k) - here))
                results[key] = self._compute(source, key, check)
                check()
                self._arrived(key)
        except _OutOfDate:
            pass
        except Exception as error:  # a thread has nobody to raise to: `wait` does
            if source is self._source:
                self.error = error
                self._arrived(None)


class _OutOfDate(Exception):
    """The work was for a source that has been replaced."""
