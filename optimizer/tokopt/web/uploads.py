"""Files that clients send: kept in a private folder under names that we choose, a few at a time."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tokopt.domain.plan_views import UploadCheck

from .problems import Problem, one_line

LONGEST_NAME = 60
PARQUET = b"PAR1"


@unique
class UploadKind(StrEnum):
    """What an uploaded file is."""

    PRICES = "prices"
    MODEL = "model"


class Uploaded(BaseModel):
    """A file that questions can name."""

    model_config = ConfigDict(frozen=True)

    upload: str  # what questions call it
    kind: UploadKind
    name: str  # what the client calls it; only shown
    bytes: int
    check: UploadCheck


@dataclass(frozen=True, slots=True)
class Upload:
    """Content that has not been looked at yet, and the name that it gets."""

    file: str
    content: bytes


def named_by_content(content: bytes, kind: UploadKind) -> Upload:
    """Return content with the name that it gets, which depends on nothing else.

    Raises:
        Problem: It is empty, or not what it is said to be.
    """
    if not content:
        raise Problem(422, "the file is empty", field="upload")
    if kind is UploadKind.MODEL:
        try:
            json.loads(content)
        except (ValueError, RecursionError):
            raise Problem(422, "not valid JSON: a Hugging Face config.json is needed", field="upload") from None
        ending = "json"
    else:
        ending = "parquet" if content.startswith(PARQUET) else "csv"
    digest = hashlib.sha256(kind.value.encode() + b"\0" + content).hexdigest()[:16]
    return Upload(f"upload-{digest}.{ending}", content)


def shown_name(name: str) -> str:
    """Return the last part of what a client calls a file, for showing it."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return one_line(last)[:LONGEST_NAME] or "upload"


class Uploads:
    """The files that are here, in a folder of our own."""

    def __init__(self, folder: Path, *, most: int, most_bytes: int) -> None:
        self.folder = folder
        self.most = most
        self.most_bytes = most_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._said: dict[str, Uploaded] = {}

    def __contains__(self, file: str) -> bool:
        return file in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def touch(self, file: str) -> None:
        """Note that a file is in use.

        Raises:
            Problem: It is not here (any more).
        """
        if file not in self._sizes:
            raise Problem(422, f"{file} is not here any more: drop the file in again", field="upload")
        self._sizes.move_to_end(file)

    def put(self, upload: Upload) -> None:
        """Write a file, and remove those that were used longest ago where there are too many."""
        (self.folder / upload.file).write_bytes(upload.content)
        self._sizes[upload.file] = len(upload.content)
        self._sizes.move_to_end(upload.file)
        while len(self._sizes) > self.most or sum(self._sizes.values()) > self.most_bytes:
            self.drop(next(iter(self._sizes)))

    def note(self, said: Uploaded) -> None:
        """Keep what was said of a file, for whoever follows a link that names it."""
        if said.upload in self._sizes:  # it may have had to make room meanwhile
            self._said[said.upload] = said

    def said_of(self, file: str) -> Uploaded:
        """Return what was said of a file.

        Raises:
            Problem: It is not here (any more).
        """
        if file not in self._said:
            raise Problem(404, f"{file} is not here any more: drop the file in again", field="upload")
        return self._said[file]

    def drop(self, file: str) -> None:
        """Remove a file."""
        self._sizes.pop(file, None)
        self._said.pop(file, None)
        (self.folder / file).unlink(missing_ok=True)
