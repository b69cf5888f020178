"""Made-up secrets, assembled at run time so that no scanner finds one in this file."""

import random
import string
import sysconfig
import time
from pathlib import Path

import pytest

from hga_chat.documents.plain.text import load_text
from hga_chat.documents.secrets import find_secrets, redact, secrets_note
from hga_chat.documents.types import Document, Section

_DRAWN = random.Random(7)


def _drawn(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(_DRAWN.choices(alphabet, k=length))


def _text(text: str, path: str = "config.py") -> Document:
    return Document(path, "text", load_text(path, text.encode()).sections)


def _found(text: str) -> list[tuple[int | None, str]]:
    return [(secret.line, secret.kind) for secret in find_secrets(_text(text))]


def _key(kind: str = "RSA ", lines: int = 12) -> str:
    body = "\n".join(_drawn(64) for _ in range(lines))
    return f"-----BEGIN {kind}PRIVATE " + f"KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"


_UPPER = string.ascii_uppercase + "234567"
_JWT = f"eyJ{_drawn(30)}.eyJ{_drawn(60)}.{_drawn(43)}"
SECRETS = [
    ("AWS key", "AKIA" + _drawn(16, _UPPER)),
    ("AWS key", "ASIA" + _drawn(16, _UPPER)),
    ("GitHub token", "ghp_" + _drawn(36)),
    ("GitHub token", "ghs_" + _drawn(36)),
    ("GitHub token", "github_pat_" + _drawn(22) + "_" + _drawn(59)),
    ("GitLab token", "glpat-" + _drawn(20)),
    (
        "Slack token",
        "xoxb-" + _drawn(12, "123456789") + "-" + _drawn(12, "123456789") + "-" + _drawn(24),
    ),
    (
        "Slack webhook",
        "https://hooks.slack.com/" + f"services/T{_drawn(8)}/B{_drawn(8)}/{_drawn(24)}",
    ),
    ("Stripe key", "sk_live_" + _drawn(24)),
    ("Anthropic key", "sk-ant-" + "api03-" + _drawn(93) + "AA"),
    ("OpenAI key", "sk-" + _drawn(20) + "T3Blbk" + "FJ" + _drawn(20)),
    ("OpenAI key", "sk-proj-" + _drawn(74) + "T3Blbk" + "FJ" + _drawn(74)),
    ("Google key", "AIza" + _drawn(35)),
    ("Hugging Face token", "hf_" + _drawn(34)),
    ("npm token", "npm_" + _drawn(36)),
    ("PyPI token", "pypi-" + "AgEI" + _drawn(150)),
    ("JSON web token", _JWT),
]


@pytest.mark.parametrize(
    ("kind", "secret"), SECRETS, ids=[f"{k}-{n}" for n, (k, _) in enumerate(SECRETS)]
)
@pytest.mark.parametrize("line", ["{}", "key = '{}'", "curl -H 'X: {}' b", "<{}>", "a={},b"])
def test_keys_with_a_known_pattern(kind: str, secret: str, line: str) -> None:
    text = "first\n" + line.format(secret) + "\nlast\n"
    assert _found(text) == [(2, kind)]
    redacted = redact(_text(text)).sections[0].text
    assert redacted == "first\n" + line.format(f"[redacted {kind}]") + "\nlast\n"


@pytest.mark.parametrize(("kind", "secret"), SECRETS)
def test_longer_words_are_not_keys(kind: str, secret: str) -> None:
    if kind != "Slack webhook":
        assert _found(f"x{secret}") == []
    assert _found(secret[: len(secret) // 3]) == []


def test_private_keys_keep_their_lines() -> None:
    for kind in ("", "RSA ", "OPENSSH ", "EC ", "ENCRYPTED "):
        text = f"before\n{_key(kind)}\nafter\n"
        assert _found(text) == [(2, "private key")]
        redacted = redact(_text(text)).sections[0].text
        assert redacted == "before\n[redacted private key]" + "\n" * 14 + "after\n"


def test_a_private_key_on_one_line_and_one_that_is_cut_off() -> None:
    one_line = _key().replace("\n", "\\n")
    assert _found(f'{{"private_key": "{one_line}\\n"}}') == [(1, "private key")]
    cut = _key().rpartition("\n")[0]
    assert _found(f"{cut}\n\nText goes on here.\n") == [(1, "private key")]
    redacted = redact(_text(f"{cut}\n\nText goes on here.\n")).sections[0].text
    assert redacted == "[redacted private key]" + "\n" * 14 + "Text goes on here.\n"


def test_a_private_key_across_two_sections() -> None:
    text = "x\n" * 195 + _key(lines=20) + "\nafter\n"
    document = _text(text)
    assert len(document.sections) == 2
    sections = redact(document).sections
    assert sections[0].text == "x\n" * 195 + "[redacted private key]" + "\n" * 5
    assert sections[1].text == "\n" * 17 + "after\n"
    assert [s.start_line for s in sections] == [s.start_line for s in document.sections]


def test_public_keys_and_words_about_keys_are_not_secrets() -> None:
    begin = "-----BEGIN RSA PRIVATE " + "KEY-----"
    assert _found(_key().replace("PRIVATE", "PUBLIC")) == []
    assert _found(f"A file that begins with {begin} holds a key.\n") == []
    assert _found(f"{begin}\n...\n-----END RSA PRIVATE KEY-----\n") == []


_PASSWORD = "kX9" + "#mQ2v" + "Lp"


@pytest.mark.parametrize(
    "text",
    [
        f'password = "{_PASSWORD}"',
        f"db_passwd: '{_PASSWORD}'",
        f'{{"adminPassword": "{_PASSWORD}"}}',
        f"settings['PWD'] = '{_PASSWORD}'",
        f'password => "{_PASSWORD}"',
        f'string pwd := "{_PASSWORD}"',
    ],
)
def test_assigned_passwords(text: str) -> None:
    assert _found(text) == [(1, "password")]
    assert redact(_text(text)).sections[0].text == text.replace(_PASSWORD, "[redacted password]")


def test_assigned_tokens() -> None:
    value = _drawn(32)
    for name in ("API_KEY", "auth_token", "client_secret", "aws_secret_access_key"):
        assert _found(f'{name} = "{value}"') == [(1, "token")]


@pytest.mark.parametrize(
    "text",
    [
        'password = "correcthorsebattery"',
        'password = "changeme123"',
        'password = "FORBIDDEN_VALUE2"',
        'password = "your-password-1"',
        'password = "<password>"',
        'password = "${DB_PASSWORD_1}"',
        'password = os.environ["DB_PASSWORD_1"]',
        'password = "short1"',
        'password = "Bitte ein Kennwort mit 8 Zeichen"',
        'password_label = "Password1234"',
        'token_url = "https://login.site.org/oauth2/v2"',
        'secret_name = "prod/db/reader-2"',
        'token = "0123456789abcdef0123456789abcdef"',
        'token_type = "urn:ietf:params:oauth:1"',
        "if password == 'x9' or token == '':",
        'TOKENS = ["NAME", "NUMBER1"]',
    ],
)
def test_placeholders_words_and_names_are_not_passwords(text: str) -> None:
    assert _found(text) == []


def test_passwords_in_urls() -> None:
    url = "postgres://app:" + "hV8rTq" + "@db.internal:5432/app"
    assert _found(url) == [(1, "password in a URL")]
    assert redact(_text(url)).sections[0].text == (
        "postgres://app:[redacted password in a URL]@db.internal:5432/app"
    )
    for harmless in (
        "https://user:password@site.org",
        "https://name:hV8rTq" + "@example.com/",
        "https://name:hV8rTq" + "@host:80",
        "https://{user}:{password}@site.org",
        "https://site.org:8080/@someone",
        "ssh://git@site.org:22/x",
    ):
        assert _found(harmless) == []


def test_pages_are_named() -> None:
    secret = SECRETS[0][1]
    pages = [
        Section("a.pdf", f"page {n}", text, None, None, n)
        for n, text in (("i", "nothing"), ("ii", f"the key {secret}"))
    ]
    (found,) = find_secrets(Document("a.pdf", "pdf", tuple(pages)))
    assert found.place == "a.pdf, page ii"


def test_the_note_names_places_and_never_the_secret() -> None:
    text = "".join(f"{secret}\n" for _, secret in SECRETS[:5])
    secrets = find_secrets(_text(text))
    note = secrets_note(secrets, redacted=False)
    assert note == (
        "5 possible secrets: config.py:1 (AWS key), config.py:2 (AWS key), "
        "config.py:3 (GitHub token), …; --redact replaces them"
    )
    assert secrets_note(secrets[:1], redacted=True) == (
        "1 possible secret redacted: config.py:1 (AWS key)"
    )
    assert not any(secret in repr(secrets) for _, secret in SECRETS)


def test_redaction_leaves_documents_without_secrets_unchanged() -> None:
    document = _text("import this\n" * 500)
    assert redact(document) is document


def test_the_standard_library_has_next_to_no_secrets() -> None:
    """About 200 modules, some of which handle passwords, tokens and URLs."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        [*folder.glob("*.py"), *folder.glob("[a-su-z]*/*.py"), *folder.glob("[a-z]*/*/*.py")]
    )
    files = [f for f in files if "site-packages" not in f.parts and "test" not in f.parts]
    assert len(files) > 400
    found = [s for f in files for s in find_secrets(_text(f.read_text("utf-8", "replace"), f.name))]
    assert [secret.place for secret in found] == []


@pytest.mark.parametrize("path", [".env", "deploy/prod.env", ".env.local", "a.ini", "b/c.yaml"])
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("DB_PASSWORD={}", "password"),
        ("export ADMIN_PWD = {}  # of the old server", "password"),
        ("spring.datasource.password: {}", "password"),
        ("SECRET_TOKEN={}Jb4tYw8zNc", "token"),
    ],
)
def test_passwords_without_quotes_in_configuration_files(path: str, line: str, kind: str) -> None:
    drawn = "hV8rTq2m" + "Lz9x"
    document = _text(f"PORT=8080\n{line.format(drawn)}\nDEBUG=1\n", path)
    assert [(secret.line, secret.kind) for secret in find_secrets(document)] == [(2, kind)]
    (section,) = redact(document).sections
    assert drawn not in section.text
    assert section.text.startswith("PORT=8080\n")
    assert section.text.endswith("\nDEBUG=1\n")


@pytest.mark.parametrize(
    "line",
    [
        "DB_PASSWORD=${VAULT_PASSWORD_1}",
        "PASSWORD_FILE=/run/secrets/db_1",
        "SECRET_KEY=change-me-please-1",
        "TOKEN_URL=https://login.site.org/oauth2/v2",
        "PASSWORD_MIN_LENGTH=12",
        "password: see page 12",
        "token_bucket_seconds=3600",
    ],
)
def test_other_values_in_configuration_files_are_not_secrets(line: str) -> None:
    assert find_secrets(_text(line, ".env")) == ()
    assert find_secrets(_text("DB_PASSWORD=hV8rTq2m" + "Lz9x", "code.py")) == ()


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE " + "KEY-----\n" * 3000,
        "password = '" * 20_000,
        "password=" * 20_000,
        "eyJ" * 40_000,
        "eyJaaaaaaaaaa." * 10_000,
        "x://" + "a:b" * 40_000,
        "://a:" * 30_000,
        "xoxb-1-" * 20_000,
        "sk-" * 40_000,
        "-----BEGIN PRIVATE " + "KEY-----" + " aaaaaaaaaaaaaaaa" * 8_000,
    ],
)
def test_hostile_text_takes_little_time(text: str) -> None:
    started = time.process_time()
    for path in ("a", ".env"):
        find_secrets(Document(path, "text", (Section(path, "line 1", text, 1, 1, None),)))
    assert time.process_time() - started < 2
