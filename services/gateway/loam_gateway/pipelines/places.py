"""Room for what needs memory as long as it lasts, and lasts as long as the one who sends it likes."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from loam_shared.errors import UnavailableError


class Places:
    """Room for `most` uploads at once. A tenant gets half of it, so that none can keep all others out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // 2)
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """A place for the time of the context. Raises UnavailableError when there is none for this tenant."""
        if self._taken.total() >= self._most or self._taken[tenant] >= self._share:
            raise UnavailableError("too many uploads are under way; send it again in a moment", retry_after=2)
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            # Forgets those that have none.
            self._taken = +self._taken
