"""Finds and redacts passwords and keys that are in documents by mistake.

Precision comes before recall: keys must have the form that their issuer documents. A password must
be assigned as a literal (in configuration files also without quotes) and look like neither a word
nor a placeholder.
"""

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from hga_chat.documents.types import Document


@dataclass(frozen=True)
class Secret:
    """The place and kind of a possible secret; its value is not stored."""

    path: str
    line: int | None
    page: str | None
    kind: str

    @property
    def place(self) -> str:
        """Path with line or page."""
        if self.line is not None:
            return f"{self.path}:{self.line}"
        return self.path if self.page is None else f"{self.path}, page {self.page}"


def _pattern(kind: str, pattern: str) -> tuple[str, re.Pattern[str]]:
    return kind, re.compile(rf"(?<![A-Za-z0-9_]){pattern}")


_END = r"(?![A-Za-z0-9_-])"
_AWS = _pattern("AWS key", rf"A[KS]IA[A-Z2-7]{{16}}{_END}")
_STRIPE = _pattern("Stripe key", rf"[sr]k_live_[A-Za-z0-9]{{16,247}}{_END}")
_PATTERNS_BY_START = {
    "-----BEGIN": [
        _pattern(
            "private key",
            r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:"
            r"(?:[^-]|-(?!----)){16,20000}-----END [A-Z0-9 ]{0,40}-----"
            r"|(?:[\s\"'+,\\]{0,20}[A-Za-z0-9+/=]{16,100}){1,400})",
        )
    ],
    "AKIA": [_AWS],
    "ASIA": [_AWS],
    "gh": [_pattern("GitHub token", rf"gh[oprsu]_[A-Za-z0-9]{{36,251}}{_END}")],
    "github_pat_": [_pattern("GitHub token", rf"github_pat_\w{{82}}{_END}")],
    "glpat-": [_pattern("GitLab token", rf"glpat-[\w.-]{{20,60}}{_END}")],
    "xox": [_pattern("Slack token", rf"xox[abeoprs]-(?:\d+-){{1,4}}[A-Za-z0-9-]{{16,200}}{_END}")],
    "https://hooks.slack.com/": [
        _pattern(
            "Slack webhook",
            r"https://hooks\.slack\.com/(?:services|workflows)/T\w{6,20}/[AB]\w{6,20}/\w{16,60}",
        )
    ],
    "sk_live_": [_STRIPE],
    "rk_live_": [_STRIPE],
    "sk-": [
        _pattern("Anthropic key", rf"sk-ant-[a-z]+\d\d-[\w-]{{80,120}}{_END}"),
        _pattern("OpenAI key", rf"sk-[\w-]{{20,160}}T3BlbkFJ[\w-]{{20,160}}{_END}"),
    ],
    "AIza": [_pattern("Google key", rf"AIza[\w-]{{35}}{_END}")],
    "hf_": [_pattern("Hugging Face token", rf"hf_[A-Za-z0-9]{{34}}{_END}")],
    "npm_": [_pattern("npm token", rf"npm_[A-Za-z0-9]{{36}}{_END}")],
    "pypi-AgEI": [_pattern("PyPI token", rf"pypi-AgEI[\w-]{{50,1000}}{_END}")],
    "eyJ": [
        _pattern(
            "JSON web token",
            rf"eyJ[\w-]{{10,2000}}\.eyJ[\w-]{{10,8000}}\.[\w-]{{20,2000}}{_END}",
        )
    ],
}
"""Kinds of keys and their patterns, by the text that each starts with."""
_URL = re.compile(
    r"://[^\s:@/?#'\"<>()\[\]{}$%*,;|`\\]{0,80}:(?P<secret>[^\s:@/?#'\"<>()\[\]{}$*,;|`\\]{3,80})"
    r"@(?P<host>[\w.-]+)"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{32}")
_NAMES = ("passw", "pwd", "secret", "token", "_key", "apikey")
_ASSIGNED = re.compile(
    r"[\w-]{1,40}[\"']?\]?\s{0,8}(?::=|=>|[:=])\s{0,8}(?P<quote>[\"'])"
    r"(?P<secret>[^\s\"'`\\<>{}$%()\[\]]{8,120})(?P=quote)"
)
_UNQUOTED = re.compile(
    r"[\w.-]{1,40}[ \t]{0,8}[:=][ \t]{0,8}(?P<secret>[^\s\"'`\\<>{}$%()\[\],;#]{8,120})"
    r"[ \t]*(?:[#;].*)?$",
    re.MULTILINE,
)
_CONFIG_FILE = re.compile(
    r"(?:.*/)?(?:\.env(?:\..*)?|.*\.(?:env|properties|ini|cfg|conf|ya?ml))", re.IGNORECASE
)
"""Paths of configuration files, whose values need no quotes."""
_PLACEHOLDER = re.compile(
    r"abc|bar|change|default|dummy|example|fake|foo|insert|pass|pw|qwer|redact|sample|secret|test"
    r"|token|user|your|xxx|012|123|\*|\.\.\.|[.:/].*[.:/]",
    re.IGNORECASE,
)
_CONSTANT = re.compile(r"[A-Z]+(?:_[A-Z0-9]+)+")
_EXAMPLE_HOST = re.compile(
    r"(?:[\w.-]+\.)?(?:example(?:\.\w+)?|host(?:name)?|localhost|server|domain)\b", re.IGNORECASE
)
_SHOWN = 3
_MIN_PASSWORD_BITS = 3.0
"""Least Shannon entropy of a password per character; most words have less."""
_MIN_TOKEN_CHARS, _MIN_TOKEN_BITS = 16, 3.5
"""Least length and entropy of a value assigned to a name like ``token`` or ``secret``."""


def find_secrets(document: Document) -> tuple[Secret, ...]:
    """Return the possible secrets of a document, in order."""
    text, starts = _joined(document)
    found = []
    for start, _, kind in _spans(text, document.path):
        index = bisect_right(starts, start) - 1
        section = document.sections[index]
        line = section.line_at(start - starts[index])
        found.append(Secret(section.path, line, section.page, kind))
    return tuple(found)


def redact(document: Document) -> Document:
    """Return the document with every secret replaced, as by ``[redacted AWS key]``.

    Line numbers do not change.
    """
    text, starts = _joined(document)
    spans = _spans(text, document.path)
    if not spans:
        return document
    sections = []
    for section, start in zip(document.sections, starts, strict=True):
        end = position = start + len(section.text)
        pieces = []
        for first, last, kind in reversed(spans):
            if first < end and last > start:
                pieces.append(text[min(last, end) : position])
                pieces.append("\n" * text.count("\n", max(first, start), min(last, end)))
                # A secret that began in the section before was named there.
                pieces.append(f"[redacted {kind}]" if first >= start else "")
                position = max(first, start)
        pieces.append(text[start:position])
        sections.append(replace(section, text="".join(reversed(pieces))))
    return replace(document, sections=tuple(sections))


def secrets_note(secrets: Sequence[Secret], *, redacted: bool) -> str:
    """Return one line for people: how many secrets, the first places, and what can be done."""
    places = [f"{secret.place} ({secret.kind})" for secret in secrets[:_SHOWN]]
    listed = ", ".join(places) + ", …" * (len(secrets) > _SHOWN)
    what = f"{len(secrets)} possible secret{'s' * (len(secrets) > 1)}"
    if redacted:
        return f"{what} redacted: {listed}"
    return f"{what}: {listed}; --redact replaces {'them' if len(secrets) > 1 else 'it'}"


def _joined(document: Document) -> tuple[str, list[int]]:
    """Return the text of all sections, and the offset of each."""
    starts, pieces, length = [], [], 0
    for section in document.sections:
        starts.append(length)
        # Keep the last word of a page apart from the first of the next.
        piece = section.text if section.text.endswith("\n") else section.text + "\n"
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), starts


def _spans(text: str, path: str) -> list[tuple[int, int, str]]:
    """Return start, end and kind of every secret, in order and without overlaps."""
    patterns = [_ASSIGNED, _UNQUOTED] if _CONFIG_FILE.fullmatch(path) else [_ASSIGNED]
    spans = sorted(chain(_with_known_pattern(text), _in_urls(text), _assigned(text, patterns)))
    # A key assigned to a variable named token is found twice.
    apart: list[tuple[int, int, str]] = []
    for span in spans:
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
    return apart


def _with_known_pattern(text: str) -> Iterator[tuple[int, int, str]]:
    for start, patterns in _PATTERNS_BY_START.items():
        for position in _occurrences(text, start):
            for kind, pattern in patterns:
                match = pattern.match(text, position)
                if match and (kind != "private key" or _BASE64.search(match[0])):
                    yield *match.span(), kind


def _in_urls(text: str) -> Iterator[tuple[int, int, str]]:
    for position in _occurrences(text, "://"):
        match = _URL.match(text, position)
        if (
            match
            and not _PLACEHOLDER.search(match["secret"])
            and not _EXAMPLE_HOST.match(match["host"])
        ):
            yield *match.span("secret"), "password in a URL"


def _assigned(text: str, patterns: Sequence[re.Pattern[str]]) -> Iterator[tuple[int, int, str]]:
    lowered = text.lower()
    if len(lowered) != len(text):  # lower case may be longer, which would shift offsets
        lowered = text
    for name in _NAMES:
        is_password = name in ("passw", "pwd")
        for position in _occurrences(lowered, name):
            for pattern in patterns:
                match = pattern.match(text, position)
                if match and _is_random(match["secret"], is_password=is_password):
                    yield *match.span("secret"), "password" if is_password else "token"


def _occurrences(text: str, word: str) -> Iterator[int]:
    position = text.find(word)
    while position >= 0:
        yield position
        position = text.find(word, position + len(word))


def _is_random(value: str, *, is_password: bool) -> bool:
    """Whether a value looks random rather than chosen as a word."""
    if _PLACEHOLDER.search(value) or _CONSTANT.fullmatch(value):
        return False
    if not (any(map(str.isdigit, value)) and any(map(str.isalpha, value))):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    bits = -sum(share * math.log2(share) for share in shares)
    if is_password:
        return bits >= _MIN_PASSWORD_BITS
    return len(value) >= _MIN_TOKEN_CHARS and bits >= _MIN_TOKEN_BITS
