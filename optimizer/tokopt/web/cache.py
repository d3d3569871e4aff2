"""Answers that are kept: bounded by what they take, the one that was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict


class Answers:
    """Bytes by key, at most so many of them together."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.kept_bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def get(self, key: str) -> bytes | None:
        """Return an answer, or None where it is not here (any more)."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: str, answer: bytes) -> None:
        """Keep an answer; one that is larger than everything that may be kept is not."""
        self.drop(key)
        if len(answer) > self.most_bytes:
            return
        self._kept[key] = answer
        self.kept_bytes += len(answer)
        while self.kept_bytes > self.most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.kept_bytes -= len(oldest)

    def drop(self, key: str) -> None:
        """Forget an answer, if it is here."""
        gone = self._kept.pop(key, None)
        if gone is not None:
            self.kept_bytes -= len(gone)
