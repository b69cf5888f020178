"""The manual page: current, complete and free of accidental requests."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tools.assets.man_page import man_page

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "man" / "hga-chat.1"


def test_the_page_is_what_the_help_says() -> None:
    assert PAGE.read_text() == man_page(), "run: python -m tools.assets.man_page man/hga-chat.1"


def test_the_wheel_has_the_page_where_man_looks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["shared-data"] == {"man/hga-chat.1": "share/man/man1/hga-chat.1"}


def test_every_line_is_text_or_a_known_request() -> None:
    lines = man_page().splitlines()
    requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert requests == {'.\\"', ".TH", ".SH", ".SS", ".PP", ".TP", ".B"}


def test_commands_and_options_are_named_once() -> None:
    text = man_page().replace("\\-", "-")
    for command in ("ask", "sessions export", "config edit", "bench speed", "doctor"):
        assert text.count(f"\n.SS hga-chat {command}\n") == 1
    assert len(re.findall(r"^\.B --max-new-tokens ", text, re.MULTILINE)) == 1
    assert "\n.B -o, --output FILE\n" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_finds_nothing_to_complain_about() -> None:
    ran = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", str(PAGE)], capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    assert "hga-chat sessions rm" in re.sub(r"\x1b\[[0-9;]*m|.\x08", "", ran.stdout)
