"""The keyring: whose key it is, and that nothing that is malformed, or a secret, gets any further."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from service import keyring as keyrings
from service.errors import InvalidConfiguration
from service.keyring import Keyring
from service.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

SHOP, OPS = "shop-secret-0123456789", "ops:secret/+=~!0123456789"
KEYS = f"inference:shop:{SHOP},admin:ops:{OPS}"
SECRET = "S3cretS3cretS3cret"


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyrings, "_LOOK_S", 0.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def keyring(keys: str = "", file: Path | None = None) -> Keyring:
    return Keyring(Settings(keys=keys, keys_file=file))


def whose(ring: Keyring, authorization: str) -> str:
    key = ring.bearer(authorization)
    return f"{key.role} {key.name}" if key else "nobody"


def complaint(keys: str = "", file: Path | None = None) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        keyring(keys, file)
    return str(caught.value)


# Whose it is


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_is_known_by_its_letters_and_whoever_bears_it_by_its_name(scheme: str) -> None:
    ring = keyring(KEYS)
    assert whose(ring, f"{scheme} {SHOP}") == "inference shop"
    assert whose(ring, f"{scheme}  {OPS} ") == "admin ops"


@pytest.mark.parametrize(
    "authorization",
    [
        *("", " ", "Bearer", "Bearer ", "Bearer  ", SHOP, f" {SHOP}", f"Basic {SHOP}", f"Bearer{SHOP}"),
        *(f"Bearer {SHOP[:-1]}", f"Bearer {SHOP}x", f"Bearer {SHOP.upper()}", f"Bearer {SHOP} {OPS}"),
        *(f"Bearer {SHOP},{OPS}", f"Bearer\t{SHOP}", f"Bearer inference:shop:{SHOP}", "Bearer shop"),
        *(
            "Bearer \xff\xfe",
            f"Bearer {SHOP}\0",
            "Bearer " + "x" * 100_000,
            "Bearer \udcff",
            f"Bearer Bearer {SHOP}",
        ),
    ],
)
def test_anything_else_is_nobody_s(authorization: str) -> None:
    assert whose(keyring(KEYS), authorization) == "nobody"


def test_it_knows_for_which_roles_there_are_keys() -> None:
    def roles(keys: str) -> list[str]:
        ring = keyring(keys)
        return [role for role in ("inference", "admin") if ring.has(role)]

    assert roles("") == []
    assert roles(f"inference:a:{SHOP}") == ["inference"]
    assert roles(f"admin:a:{SHOP}") == ["admin"]
    assert roles(KEYS) == ["inference", "admin"]


def test_keys_of_the_file_and_of_the_environment_are_good_together(file: Path) -> None:
    file.write_text(f"# of the shop\n\n  inference:shop:{SHOP}  \r\n#admin:no:{SECRET}\n")
    ring = keyring(f"admin:ops:{OPS}", file)
    assert [whose(ring, f"Bearer {key}") for key in (SHOP, OPS, SECRET)] == [
        "inference shop",
        "admin ops",
        "nobody",
    ]


# What is malformed


@pytest.mark.parametrize(
    "entry",
    [
        *(SECRET, f"inference:{SECRET}", f"root:a:{SECRET}", f"Admin:a:{SECRET}", f"inference::{SECRET}"),
        *(
            f":a:{SECRET}",
            f"inference:a b:{SECRET}",
            f"inference:ä:{SECRET}",
            f"inference:{'n' * 65}:{SECRET}",
        ),
        *(f"inference:a:{SECRET[:15]}", f"inference:a:{SECRET * 30}", f"inference:a:{SECRET} {SECRET}"),
        *(f"inference:a:{SECRET}é", f"inference:a:{SECRET}\0", f"inference:a:{SECRET}\x7f", "inference:a:"),
        *(f"inference : a : {SECRET}", f"{{'inference': '{SECRET}'}}"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_malformed_entry_is_named_by_its_number_and_never_repeated(
    entry: str, place: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if place == "file":
        file.write_text("\n".join([*KEYS.split(","), "", entry]))
        said = complaint(file=file)
        assert said.startswith("the keys file: entry 4 is not ROLE:NAME:KEY")
    else:
        said = complaint(f"{KEYS},{entry}")
        assert said.startswith("FOLDSERVE_KEYS: entry 3 is not ROLE:NAME:KEY")
    for told in (said, caplog.text):
        assert not any(SECRET[at : at + 4] in told for at in range(len(SECRET) - 3))


@pytest.mark.parametrize("second", [f"admin:shop:{OPS}", f"admin:other:{SHOP}", f"inference:shop:{SHOP}"])
def test_two_keys_of_one_name_and_two_names_of_one_key_are_an_error(second: str, file: Path) -> None:
    wanted = "two keys have the same " + ("name" if ":shop:" in second else "key")
    first = f"inference:shop:{SHOP}"
    file.write_text(second)
    assert complaint(f"{first},{second}") == wanted
    assert complaint(first, file) == wanted


def test_a_file_that_is_not_there_or_is_no_text_is_an_error(file: Path) -> None:
    assert complaint(file=file) == "the keys file cannot be read as UTF-8 text"
    file.write_bytes(b"\xff\xfe")
    assert complaint(file=file) == "the keys file cannot be read as UTF-8 text"
    assert complaint(file=file.parent) == "the keys file cannot be read as UTF-8 text"


def test_a_file_that_is_too_large_is_an_error_and_no_key_is_cut(file: Path) -> None:
    whole = f"inference:shop:{SHOP}\n"
    file.write_text("#" * ((1 << 20) - len(whole) - 1) + "\n" + whole)
    assert whose(keyring(file=file), f"Bearer {SHOP}") == "inference shop"
    file.write_text("#" * ((1 << 20) - len(whole) + 2) + "\n" + whole)
    assert complaint(file=file) == "the keys file is larger than a mebibyte"


def test_no_secret_is_shown_by_the_settings_or_kept_by_the_ring() -> None:
    settings = Settings(keys=KEYS)
    assert SHOP not in repr(settings) + str(settings)
    assert SHOP not in repr(vars(Keyring(settings)))


# A file that changes


def test_the_file_is_read_anew_when_it_changes(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(f"inference:shop:{SHOP}\n")
    ring = keyring(f"admin:ops:{OPS}", file)
    file.write_text(f"inference:shop:{SHOP}\ninference:next:{SECRET}\n")
    assert [whose(ring, f"Bearer {key}") for key in (SHOP, SECRET)] == ["inference shop", "inference next"]
    file.write_text(f"inference:next:{SECRET}\n")
    assert [whose(ring, f"Bearer {key}") for key in (SHOP, SECRET)] == ["nobody", "inference next"]
    assert whose(ring, f"Bearer {OPS}") == "admin ops"
    assert [record.message for record in caplog.records] == [
        "the keys were read anew: 3 in all",
        "the keys were read anew: 2 in all",
    ]


def test_a_keyring_that_follows_another_is_silent_about_a_file_that_did_not_change(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(f"inference:shop:{SHOP}\n")
    second = Keyring(Settings(keys_file=file), keyring(file=file).keys())
    assert whose(second, f"Bearer {SHOP}") == "inference shop"
    assert not caplog.records


def test_a_file_that_is_renamed_into_its_place_is_read(file: Path) -> None:
    file.write_text(f"inference:shop:{SHOP}\n")
    ring = keyring(file=file)
    fresh = file.with_name("fresh")
    fresh.write_text(f"inference:shop:{SHOP[::-1]}\n")
    fresh.rename(file)
    assert [whose(ring, f"Bearer {key}") for key in (SHOP, SHOP[::-1])] == ["nobody", "inference shop"]


@pytest.mark.parametrize("state", ["gone", "malformed", "no text", "twice"])
def test_while_the_file_is_broken_the_keys_stay_as_they_were_and_the_log_says_so_once(
    file: Path, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    whole = f"inference:shop:{SHOP}\nadmin:ops:{OPS}\n"
    file.write_text(whole)
    ring = keyring(file=file)
    if state == "gone":
        file.unlink()
    else:
        broken = {"malformed": f"{SECRET}\n", "no text": "\udcff", "twice": f"inference:ops:{SECRET}\n"}
        file.write_bytes((whole + broken[state]).encode("utf-8", "surrogateescape"))
    for _ in range(3):
        assert [whose(ring, f"Bearer {key}") for key in (SHOP, OPS, SECRET)] == [
            "inference shop",
            "admin ops",
            "nobody",
        ]
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("the keys stay as they were: ")
    assert SECRET not in caplog.text
    file.write_text(f"admin:ops:{OPS}\ninference:next:{SECRET}\n")
    assert [whose(ring, f"Bearer {key}") for key in (SHOP, SECRET)] == ["nobody", "inference next"]


@pytest.mark.parametrize("left", ["", f"admin:ops:{OPS}\n"])
def test_a_file_that_has_lost_its_inference_keys_takes_them_away_and_opens_nothing(
    file: Path, left: str
) -> None:
    """It may be that somebody is writing it at this moment."""
    file.write_text(f"admin:ops:{OPS}\ninference:shop:{SHOP}\n")
    ring = keyring(file=file)
    file.write_text(left)
    for _ in range(3):
        assert ring.has("inference")
        assert ring.has("admin") == bool(left)
        assert whose(ring, f"Bearer {SHOP}") == "nobody"
    file.write_text(f"#\n{left}")
    assert ring.has("inference")


def test_between_two_looks_the_disk_is_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"inference:shop:{SHOP}\n")
    ring = keyring(file=file)
    monkeypatch.setattr(keyrings, "_LOOK_S", 3600.0)
    file.write_text(f"inference:next:{SECRET}\n")
    assert whose(ring, f"Bearer {SHOP}") == "inference shop"


def test_a_keyring_that_follows_another_knows_its_keys_whatever_the_file_is_now(file: Path) -> None:
    file.write_text(f"inference:shop:{SHOP}\n")
    first = keyring(file=file)
    file.write_text("inference:shop\n")
    second = Keyring(Settings(keys_file=file), first.keys())
    assert whose(second, f"Bearer {SHOP}") == "inference shop"
    file.write_text("# nobody\n")
    third = Keyring(Settings(keys_file=file), first.keys())
    for ring in (first, third, Keyring(Settings(keys_file=file), third.keys())):
        assert ring.has("inference"), "what a key closed stays closed"
        assert whose(ring, f"Bearer {SHOP}") == whose(ring, "Bearer ") == whose(ring, "") == "nobody"
    file.write_text(f"inference:next:{SHOP}\n")
    assert whose(third, f"Bearer {SHOP}") == "inference next"
