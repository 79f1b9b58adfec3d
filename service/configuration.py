"""The configuration in force: every setting with its value and where that comes from, as it is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from service.console import out, plain, print_json
from service.settings import PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.settings import Source

FLAG: dict[str, Any] = {
    "nargs": "?",
    "choices": ("text", "json"),
    "const": "text",
    "metavar": "text|json",
    "help": "print every setting with its value and where that comes from, and serve nothing",
}
"""The argument of a command that shows it, for argparse."""

_SECRET = {"keys"}
_HIDDEN = "(set, not shown)"


def show(settings: Settings, sources: Mapping[str, Source], form: Literal["text", "json"]) -> int:
    """Print it in the order of the documentation; the answer is the exit status of a command."""
    rows = described(settings, sources)
    if form == "json":
        print_json(rows)
        return 0
    table = Table("setting", "value", "source", "meaning", box=None)
    for row in rows:
        table.add_row(row["setting"], plain(row["value"]), row["source"], plain(row["meaning"]))
    out.print(table)
    return 0


def described(settings: Settings, sources: Mapping[str, Source]) -> list[dict[str, Any]]:
    """A row for each setting; of a secret it says only whether there is one."""
    return [
        {
            "setting": name,
            "value": _shown(name, getattr(settings, name)),
            "default": _plain(field.default),
            "source": sources[name],
            "variable": f"{PREFIX}{name.upper()}",
            "meaning": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]


def _shown(name: str, value: object) -> object:
    return _HIDDEN if name in _SECRET and value else _plain(value)


def _plain(value: object) -> object:
    """As JSON has it."""
    return value if isinstance(value, bool | int | float | str | None) else str(value)
