import pytest

from hga_chat.settings import Settings, SettingsError, config_path, load_settings, parse_size


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"

    def write(text):
        path.write_text(text)
        return path

    return write


def test_defaults_are_the_engine_defaults(config):
    from hga_engine.config import EngineConfig, SamplingParams

    settings = load_settings({}, {}, config(""))
    assert settings == Settings()
    assert settings.engine() == EngineConfig()
    assert settings.sampling() == SamplingParams()


def test_flags_win_over_environment_over_file(config):
    file = config("context = 2048\nbudget = 80\nseed = 1")
    environment = {"HGA_CHAT_BUDGET": "96", "HGA_CHAT_SEED": "2", "HOME": "/"}
    settings = load_settings({"seed": 3, "budget": None, "include": []}, environment, file)
    assert (settings.context, settings.budget, settings.seed) == (2048, 96, 3)


def test_a_missing_file_is_not_an_error(tmp_path):
    assert load_settings({}, {}, tmp_path / "none.toml") == Settings()


def test_every_kind_of_setting_is_parsed_from_environment_and_file(config):
    environment = {
        "HGA_CHAT_HOST_BUDGET": "1.5GiB",
        "HGA_CHAT_TEMPERATURE": "0.7",
        "HGA_CHAT_EXCLUDE": "*.lock, dist/",
        "HGA_CHAT_QUIET": "1",
    }
    settings = load_settings({}, environment, config('include = ["*.py"]\nrouter = "paper"'))
    assert settings.host_budget == 3 * 2**29
    assert settings.temperature == 0.7
    assert settings.exclude == ("*.lock", "dist/")
    assert settings.quiet is True
    assert settings.include == ("*.py",)
    assert settings.router == "paper"


def test_the_budget_is_that_of_the_decode_rule_and_prefill_gets_more():
    from hga_engine.config import resolve

    routing = resolve(Settings(budget=160).engine(), "cpu").routing
    assert routing.group_size * routing.decode_budget == 160
    assert routing.prefill_group_size * routing.prefill_budget == 280


@pytest.mark.parametrize(
    ("flags", "environment", "file", "message"),
    [
        ({}, {"HGA_CHAT_BUGDET": "1"}, "", "HGA_CHAT_BUGDET is not a setting"),
        ({}, {}, "colour = 1", "colour in .*config.toml is not a setting"),
        ({}, {"HGA_CHAT_BUDGET": "many"}, "", "HGA_CHAT_BUDGET must be a whole number, not 'many'"),
        ({}, {}, "quiet = 1", "quiet in .* must be true or false, not 1"),
        ({}, {}, "budget = true", "must be a whole number"),
        ({}, {}, "include = [1]", "must be a list of globs"),
        ({}, {}, "budget = ", "config.toml cannot be read"),
        ({"host_budget": "12 apples"}, {}, "", "--host-budget must be a size such as 512M"),
        ({"router": "best"}, {}, "", "--router must be hga, paper or dense, not 'best'"),
        ({"temperature": -1.0}, {}, "", "temperature must be 0 or more"),
        ({"top_p": 0.0}, {}, "", "top_p must be above 0"),
        ({"budget": 0}, {}, "", "budget must be at least 64 tokens"),
        ({"context": 100}, {}, "", "context must be at least 1024"),
        ({"max_tokens": 0}, {}, "", "max_tokens must be at least 1"),
    ],
)
def test_an_invalid_setting_is_named(config, flags, environment, file, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(flags, environment, config(file))


def test_a_file_that_cannot_be_opened_is_named_once(tmp_path):
    with pytest.raises(SettingsError) as raised:
        load_settings({}, {}, tmp_path)
    assert str(raised.value) == f"{tmp_path} cannot be read: Is a directory."


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512M", 536_870_912), ("2g", 2_147_483_648), ("1 KiB", 1024), ("100", 100), ("0.5K", 512)],
)
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "1e9"])
def test_invalid_sizes(text):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_the_file_is_in_the_xdg_configuration_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_path() == tmp_path / "hga-chat" / "config.toml"
