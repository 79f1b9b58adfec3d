"""The gate: the one place that every request passes, where its host is looked at and its key is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import FoldserveError, Forbidden, Unauthorized
from service.web.access import entry_of
from service.web.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from service.keyring import Keyring, Role
    from service.telemetry import Telemetry
    from service.web.hosts import Hosts

PROBES = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
_PAGES = {"/", "/docs", "/openapi.json"}
_ADMIN = "/v2/repository/models/"
_MODELS, _BASELINE = "/v1/models/", "/baseline"
_ADMIN_CHANGES = {("PUT", "/v1/log-level"), ("POST", "/v2/logging")}


def needed(method: str, path: str) -> Role | None:
    """The role that a request needs; none for probes and for files that are the same everywhere."""
    path = path.removesuffix("\n")  # as routes do, whose `$` stands before one as well
    if (method == "POST" and _is_admins(path)) or (method, path) in _ADMIN_CHANGES:
        return "admin"
    if path in PROBES or path in _PAGES or path.startswith("/page/"):
        return None
    return "inference"


def _is_admins(path: str) -> bool:
    """Whether a POST there changes something."""
    return path.startswith(_ADMIN) or (path.startswith(_MODELS) and path.endswith(_BASELINE))


class Gate:
    """Lets pass who bears a key of the role that is needed; an admin's key is good for everything.

    What changes nothing is open to everybody where there are no inference keys. What changes something is
    closed to everybody where there are no admin keys. Before that, nobody passes whom `hosts` refuses.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, keyring: Keyring, telemetry: Telemetry) -> None:
        self._app = app
        self._hosts = hosts
        self._keyring = keyring
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http":
                self._admit(scope)
        except FoldserveError as refused:
            response = problem(refused, scope["path"])
            response.headers["Connection"] = "close"  # a body that follows is not read
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Raise `Unauthorized` or `Forbidden` unless the request may pass."""
        self._hosts.check(scope["method"], scope["headers"])
        role = needed(scope["method"], scope["path"])
        if role is None or (role == "inference" and not self._keyring.has("inference")):
            return
        if not self._keyring.has(role):
            raise Forbidden("this needs an admin key, and the service has none")
        borne = [value for name, value in scope["headers"] if name == b"authorization"]
        key = self._keyring.bearer(borne[0].decode("latin-1")) if len(borne) == 1 else None
        self._telemetry.key(key.name if key else "")
        entry = entry_of(scope)
        if entry and key:
            entry.key = key.name
        if key is None:
            raise Unauthorized("this needs a key: send it as Authorization: Bearer KEY")
        if role == "admin" and key.role != "admin":
            raise Forbidden("this needs an admin key")
