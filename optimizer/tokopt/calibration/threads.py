"""Linear algebra that ends in the same digits on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep linear algebra on one thread: sums in another order end in other digits, and a search carries them on."""
    import scipy.linalg  # noqa: F401  # brings linear algebra of its own, which is to be limited, too
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
