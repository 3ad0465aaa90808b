"""Room that tenants share, each up to a bound of its own, so that none can keep all others out."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from loam_shared.errors import LoamError


class Places:
    """Room for `each` at once of every tenant, and for `together` of all where that is given.

    Who finds none is told what `refusal` makes.
    """

    def __init__(self, each: int, refusal: Callable[[], LoamError], *, together: int | None = None) -> None:
        self._each = each
        self._together = together
        self._refusal = refusal
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """A place for the time of the context. Raises the refusal when there is none for this tenant."""
        full = self._together is not None and self._taken.total() >= self._together
        if full or self._taken[tenant] >= self._each:
            raise self._refusal()
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]
