from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.doctor.board.power import (
    Mode,
    check_power,
    fastest_of,
    modes_from_text,
)
from motorvae.runtime.doctor.board.tree import Tree
from motorvae.runtime.doctor.finding import Finding

XAVIER_NX = (  # without a MAXN: names that its owners quote
    Mode(0, "MODE_15W_2CORE"),
    Mode(2, "MODE_15W_6CORE"),
    Mode(8, "MODE_20W_6CORE"),
    Mode(5, "MODE_10W_DESKTOP"),
)


def row_of(root: Path, conf: str, status: str | None) -> Finding:
    (root / "etc").mkdir()
    (root / "etc/nvpmodel.conf").write_text(conf, encoding="utf-8")
    if status is not None:
        (root / "var/lib/nvpmodel").mkdir(parents=True)
        (root / "var/lib/nvpmodel/status").write_text(status, encoding="utf-8")
    (row,) = check_power(Tree(root))
    return row


def test_modes_are_read_in_any_order_of_their_parts() -> None:
    text = (
        "# < POWER_MODEL ID=9 NAME=COMMENT >\n"
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
        "  < POWER_MODEL NAME=MAXN ID=3 >\n<POWER_MODEL ID=1 NAME=25W>\n"
        "< POWER_MODEL ID=1 NAME=AGAIN >\n< PARAM TYPE=FILE NAME=X >\n"
    )
    assert modes_from_text(text) == (Mode(0, "15W"), Mode(3, "MAXN"), Mode(1, "25W"))


@pytest.mark.parametrize(
    ("modes", "fastest"),
    [
        ((Mode(0, "15W"), Mode(1, "25W"), Mode(2, "MAXN_SUPER")), 2),
        ((Mode(0, "MAXN"), Mode(4, "MAXN_SUPER"), Mode(3, "MODE_50W")), 4),
        ((Mode(0, "MAXN"), Mode(3, "MODE_50W")), 0),
        ((Mode(0, "15W"), Mode(1, "7W")), 0),
        (XAVIER_NX, 8),
        ((Mode(0, "QUIET"), Mode(1, "LOUD")), None),
        ((), None),
    ],
)
def test_the_fastest_mode_is_known_by_its_name(
    modes: tuple[Mode, ...], fastest: int | None
) -> None:
    """It is mode 2 on one board and mode 0 on another, so that its number says nothing."""
    found = fastest_of(modes)
    assert (found.number if found else None) == fastest


def test_a_mode_of_the_owners_that_begins_like_the_fastest_is_left_alone(tmp_path: Path) -> None:
    conf = "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=3 NAME=MAXN_SUPER_JC >\n"
    row = row_of(tmp_path, conf, "pmode:0003 fmode:quiet")
    assert (row.verdict, row.next_command) == ("ok", None)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (None, "/var/lib/nvpmodel/status is absent"),
        ("pmode:0007", "/var/lib/nvpmodel/status says mode 7, which /etc/nvpmodel.conf has not"),
        ("fmode:quiet", "/var/lib/nvpmodel/status names no mode"),
    ],
)
def test_a_mode_that_is_not_known_is_not_guessed(
    status: str | None, why: str, tmp_path: Path
) -> None:
    conf = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< PM_CONFIG DEFAULT=1 >"
    row = row_of(tmp_path, conf, status)
    assert row.found == f"not known: {why}; there are 15W (0), 25W (1); 25W (1) is the default"
    assert (row.verdict, row.next_command) == ("optional", "sudo nvpmodel -q")


def test_a_table_without_modes_could_not_be_read(tmp_path: Path) -> None:
    row = row_of(tmp_path, "garbage", "pmode:0000")
    assert row.found == "could not be read: /etc/nvpmodel.conf is without a power mode in it"


def test_names_that_say_nothing_get_no_advice(tmp_path: Path) -> None:
    row = row_of(tmp_path, "< POWER_MODEL ID=0 NAME=QUIET >", "pmode:0000")
    assert (row.found, row.verdict, row.next_command) == ("QUIET (0) of QUIET (0)", "ok", None)
