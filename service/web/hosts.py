"""Hosts: under which names the service may be asked, so that no web page of another site can ask it.

A browser that is led to the service by another site's name (DNS rebinding) sends that name as `Host`. One
that a page of another site has send something says so in `Sec-Fetch-Site`, or sends the page's `Origin`.
Programs send neither.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from service.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.settings import Settings

_HARMLESS = {"GET", "HEAD", "OPTIONS"}
_OF_THIS_SITE = {b"same-origin", b"none"}
_LOCAL = "localhost"
_NAMED_CHARACTERS = 64
_AUTHORITY = re.compile(rb"([A-Za-z0-9_.-]*|\[[A-Za-z0-9_.:%-]+\])(?::[0-9]{0,5})?")


class Hosts:
    """The names that are allowed; addresses and `localhost` always are: no site has them as its name."""

    def __init__(self, settings: Settings) -> None:
        names = settings.host_names or ([_LOCAL] if _is_local(settings.host) else [])
        self._are_all_trusted = "*" in names
        self._names = {name for name in names if not name.startswith("*.")}
        self._endings = tuple(name[1:] for name in names if name.startswith("*."))
        self._is_any = not names or self._are_all_trusted
        self._admits = lru_cache(maxsize=256)(self._looked_at)  # strangers choose what is looked at

    def check(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise `Forbidden` for another site's name, and for what another site's page has a browser send.

        The second is the rule of Go's `CrossOriginProtection`: only of methods that may do something; a host
        that is allowed by name is trusted; else `Sec-Fetch-Site` decides, and where there is none `Origin`.
        """
        host = origin = site = None
        for name, value in headers:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if host is not None and not self._is_any and not self._admits(host):
            raise Forbidden(f"nobody may ask as {_shown(host)}: see the setting allowed_hosts")
        if (origin or site) and method not in _HARMLESS and not self._is_own(host, origin, site):
            raise Forbidden("a page of another site may not send this: see the setting allowed_hosts")

    def _is_own(self, host: bytes | None, origin: bytes | None, site: bytes | None) -> bool:
        authority = (origin or b"").partition(b"://")[2]
        if self._are_all_trusted or self._is_named(_name(authority)):
            return True
        if site is not None:
            return site in _OF_THIS_SITE
        return authority == host

    def _looked_at(self, authority: bytes) -> bool:
        name = _name(authority)
        return name is not None and (_is_no_sites(name) or self._is_named(name))

    def _is_named(self, name: str | None) -> bool:
        return name is not None and (name in self._names or name.endswith(self._endings))


def _name(authority: bytes) -> str | None:
    """The name or address without its port, in lower case; None for what is neither."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1].decode().lower().removesuffix(".") if found else None


def _is_local(host: str) -> bool:
    return host == _LOCAL or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_no_sites(name: str) -> bool:
    return not name or name == _LOCAL or name.endswith(f".{_LOCAL}") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _shown(host: bytes) -> str:
    return repr(host.decode("latin-1")[:_NAMED_CHARACTERS])
