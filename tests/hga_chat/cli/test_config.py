"""``config``: what is set, where, and editing it."""

import json
import tomllib
from dataclasses import fields

import pytest

from hga_chat.cli.config import template
from hga_chat.settings import Settings, config_path, load_settings


@pytest.fixture
def file(cli):
    """The settings file of the test, which does not exist yet."""
    path = config_path()
    path.parent.mkdir(parents=True)
    return path


def test_path_is_where_the_file_is_read(cli, file):
    assert cli("config", "path").out == f"{file}\n"


def test_show_says_where_each_setting_is_set(cli, file, monkeypatch):
    file.write_text('theme = "day"\nhost_budget = "512M"\n')
    monkeypatch.setenv("HGA_CHAT_SEED", "7")
    lines = cli("config", "show").out.splitlines()
    assert len(lines) == 1 + len(fields(Settings))
    found = {line.split()[0]: line.split()[1:] for line in lines}
    assert found["theme"] == ['"day"', str(file)]
    assert found["host_budget"] == ['"512M"', str(file)]
    assert found["seed"] == ["7", "HGA_CHAT_SEED"]
    assert found["disk_limit"] == ['"20G"']
    assert found["context"] == ["not", "set"]
    report = json.loads(cli("config", "show", "--json").out)
    assert report["file"] == str(file)
    assert report["settings"]["seed"] == {"value": 7, "set_by": "HGA_CHAT_SEED"}
    assert report["settings"]["budget"] == {"value": 4096, "set_by": None}


def test_show_points_to_edit_while_there_is_no_file(cli):
    assert "hga-chat config edit" in cli("config", "show").err


def test_edit_opens_a_file_that_lists_every_setting(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("VISUAL", f"cp -t {tmp_path}")
    monkeypatch.delenv("EDITOR", raising=False)
    assert cli("config", "edit").code == 0
    text = config_path().read_text()
    assert (tmp_path / "config.toml").read_text() == text
    assert all(f"\n# {setting.name} =" in text for setting in fields(Settings))


def test_edit_keeps_what_is_there_and_says_what_is_wrong_with_it(cli, file, monkeypatch):
    file.write_text("budgte = 3\n")
    monkeypatch.setenv("VISUAL", "true")
    ran = cli("config", "edit")
    assert (ran.code, file.read_text()) == (2, "budgte = 3\n")
    assert "budgte" in ran.err


def test_without_an_editor_the_file_is_named(cli, monkeypatch):
    monkeypatch.setattr("hga_chat.screen.editor.editor", lambda _: [])
    ran = cli("config", "edit")
    assert ran.code == 2
    assert str(config_path()) in ran.err


def test_the_examples_of_the_template_are_the_defaults(tmp_path):
    set_there = [
        line.removeprefix("# ")
        for line in template().splitlines()
        if line.startswith("# ") and line.partition(" = ")[2] and " = " in line
    ]
    names = {setting.name for setting in fields(Settings)}
    text = "\n".join(line for line in set_there if line.split(" = ")[0] in names)
    assert tomllib.loads(text)
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert load_settings({}, {}, file) == Settings()
