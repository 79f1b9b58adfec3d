"""The keyring: who may ask for what, told by the key that a request bears."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from service.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.settings import Settings

Role = Literal["inference", "admin"]
"""What a key opens: everything that changes nothing, or everything."""

_ENTRY = re.compile(r"(inference|admin):([A-Za-z0-9_.-]{1,64}):([\x21-\x2b\x2d-\x7e]{16,512})")
_LARGEST_FILE = 1 << 20
_LOOK_S = 1.0

log = logging.getLogger("foldserve")


class Key(NamedTuple):
    """One key; the key itself is not kept."""

    role: Role
    name: str
    digest: str
    """SHA-256, in hexadecimal."""


_NOBODY_S = Key("inference", "", "")
"""Keeps closed what other keys had closed: it is the digest of nothing."""


class Keyring:
    """The keys of the settings and of their file, which is read anew when it changes.

    Raises `InvalidConfiguration` where one of them is malformed; where a later state of the file is, its
    keys stay as they were and the log says why.
    """

    def __init__(self, settings: Settings, known: Sequence[Key] | None = None) -> None:
        """`known` are the keys of another keyring of these settings, which may be older than its file."""
        self._file = settings.keys_file
        self._own = _read(settings.keys.replace(",", "\n"), "FOLDSERVE_KEYS")
        # The mutable state: the keys, the file as it was read, and when it was looked at.
        self._state = self._file_state() if known is None else None
        self._keys = self._own + self._of_file() if known is None else list(known)
        self._looked = time.monotonic() if known is None else -math.inf
        _require_distinct(self._keys)

    def keys(self) -> list[Key]:
        """All that are valid now."""
        self._look()
        return self._keys

    def has(self, role: Role) -> bool:
        """Whether there is a key of this role; for inference, or was: a file that is empty opens nothing."""
        self._look()
        return _are_for(role, self._keys)

    def bearer(self, authorization: str) -> Key | None:
        """Whose key an `Authorization` header bears; None where it is nobody's.

        Takes the same time whichever key it is, and whatever it shares with one.
        """
        self._look()
        scheme, _, secret = authorization.partition(" ")
        digest, found = _digest(secret.strip()), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found if scheme.lower() == "bearer" else None

    def _look(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_S:
            return
        self._looked = now
        state = self._file_state()
        if state == self._state:
            return
        self._state = state
        try:
            keys = self._own + self._of_file()
            _require_distinct(keys)
        except InvalidConfiguration as error:
            log.error("the keys stay as they were: %s", error)  # noqa: TRY400 - it is written for people
            return
        if keys != self._keys:
            log.info("the keys were read anew: %d in all", len(keys))
        was_closed = _are_for("inference", self._keys) and not _are_for("inference", keys)
        self._keys = [*keys, _NOBODY_S] if was_closed else keys

    def _file_state(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.stat() if self._file else None
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None

    def _of_file(self) -> list[Key]:
        if self._file is None:
            return []
        try:
            with self._file.open(encoding="utf-8") as file:
                text = file.read(_LARGEST_FILE + 1)
        except (OSError, UnicodeDecodeError):
            raise InvalidConfiguration("the keys file cannot be read as UTF-8 text") from None
        if len(text) > _LARGEST_FILE:  # a key that is cut would be another one
            raise InvalidConfiguration("the keys file is larger than a mebibyte")
        return _read(text, "the keys file")


def _are_for(role: Role, keys: Sequence[Key]) -> bool:
    return any(key.role == role for key in keys)


def _read(text: str, where: str) -> list[Key]:
    entries = enumerate((line.strip() for line in text.splitlines()), 1)
    return [_key(entry, where, number) for number, entry in entries if entry and not entry.startswith("#")]


def _key(entry: str, where: str, number: int) -> Key:
    matched = _ENTRY.fullmatch(entry)
    if not matched:  # which may be a secret: it is not repeated
        raise InvalidConfiguration(
            f"{where}: entry {number} is not ROLE:NAME:KEY with a role of inference or admin, a name of "
            "letters, digits and _.-, and a key of 16 to 512 printable characters without a comma"
        )
    role, name, secret = matched.groups()
    return Key(cast("Role", role), name, _digest(secret))


def _require_distinct(keys: list[Key]) -> None:
    for what, values in (("name", [key.name for key in keys]), ("key", [key.digest for key in keys])):
        if len(set(values)) < len(values):
            raise InvalidConfiguration(f"two keys have the same {what}")


def _digest(secret: str) -> str:
    """What is compared: of the same length whatever the secret is."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
