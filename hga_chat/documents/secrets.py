"""Passwords and keys that stand in documents by mistake: finding them and taking them out.

Better precise than eager: keys have the forms that their issuers document, and a password counts
only where it is assigned as a literal, in files of settings also without quotes, and looks like
neither a word nor a placeholder.
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
    """Where something stands that should not be shared; what it is, is not kept."""

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


def _form(kind: str, pattern: str) -> tuple[str, re.Pattern[str]]:
    return kind, re.compile(rf"(?<![A-Za-z0-9_]){pattern}")


_END = r"(?![A-Za-z0-9_-])"
_AWS = _form("AWS key", rf"A[KS]IA[A-Z2-7]{{16}}{_END}")
_STRIPE = _form("Stripe key", rf"[sr]k_live_[A-Za-z0-9]{{16,247}}{_END}")
_FORMS = {
    "-----BEGIN": [
        _form(
            "private key",
            r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:"
            r"(?:[^-]|-(?!----)){16,20000}-----END [A-Z0-9 ]{0,40}-----"
            r"|(?:[\s\"'+,\\]{0,20}[A-Za-z0-9+/=]{16,100}){1,400})",
        )
    ],
    "AKIA": [_AWS],
    "ASIA": [_AWS],
    "gh": [_form("GitHub token", rf"gh[oprsu]_[A-Za-z0-9]{{36,251}}{_END}")],
    "github_pat_": [_form("GitHub token", rf"github_pat_\w{{82}}{_END}")],
    "glpat-": [_form("GitLab token", rf"glpat-[\w.-]{{20,60}}{_END}")],
    "xox": [_form("Slack token", rf"xox[abeoprs]-(?:\d+-){{1,4}}[A-Za-z0-9-]{{16,200}}{_END}")],
    "https://hooks.slack.com/": [
        _form(
            "Slack webhook",
            r"https://hooks\.slack\.com/(?:services|workflows)/T\w{6,20}/[AB]\w{6,20}/\w{16,60}",
        )
    ],
    "sk_live_": [_STRIPE],
    "rk_live_": [_STRIPE],
    "sk-": [
        _form("Anthropic key", rf"sk-ant-[a-z]+\d\d-[\w-]{{80,120}}{_END}"),
        _form("OpenAI key", rf"sk-[\w-]{{20,160}}T3BlbkFJ[\w-]{{20,160}}{_END}"),
    ],
    "AIza": [_form("Google key", rf"AIza[\w-]{{35}}{_END}")],
    "hf_": [_form("Hugging Face token", rf"hf_[A-Za-z0-9]{{34}}{_END}")],
    "npm_": [_form("npm token", rf"npm_[A-Za-z0-9]{{36}}{_END}")],
    "pypi-AgEI": [_form("PyPI token", rf"pypi-AgEI[\w-]{{50,1000}}{_END}")],
    "eyJ": [
        _form(
            "JSON web token",
            rf"eyJ[\w-]{{10,2000}}\.eyJ[\w-]{{10,8000}}\.[\w-]{{20,2000}}{_END}",
        )
    ],
}
"""Kinds of keys and their forms, by what stands at the beginning of each."""
_URL = re.compile(
    r"://[^\s:@/?#'\"<>()\[\]{}$%*,;|`\\]{0,80}:(?P<secret>[^\s:@/?#'\"<>()\[\]{}$*,;|`\\]{3,80})"
    r"@(?P<host>[\w.-]+)"
)
_BODY = re.compile(r"[A-Za-z0-9+/]{32}")
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
_SETTINGS = re.compile(
    r"(?:.*/)?(?:\.env(?:\..*)?|.*\.(?:env|properties|ini|cfg|conf|ya?ml))", re.IGNORECASE
)
"""Names of files whose values stand without quotes."""
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
_LEAST_BITS = 3.0
"""Shannon entropy of a password, a character; that of most words lies below it."""
_TOKEN_CHARS, _TOKEN_BITS = 16, 3.5
"""Length and entropy of what is assigned to something that is not called a password."""


def find_secrets(document: Document) -> tuple[Secret, ...]:
    """Tell where a document seems to hold secrets, in order."""
    text, starts = _joined(document)
    found = []
    for start, _, kind in _spans(text, document.path):
        index = bisect_right(starts, start) - 1
        section = document.sections[index]
        line = section.line_at(start - starts[index])
        found.append(Secret(section.path, line, section.page, kind))
    return tuple(found)


def redact(document: Document) -> Document:
    """Return the document with ``[redacted AWS key]`` or the like in place of every secret.

    Every line stays where it is.
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
                # What began in the section before has its name there.
                pieces.append(f"[redacted {kind}]" if first >= start else "")
                position = max(first, start)
        pieces.append(text[start:position])
        sections.append(replace(section, text="".join(reversed(pieces))))
    return replace(document, sections=tuple(sections))


def secrets_note(secrets: Sequence[Secret], *, redacted: bool) -> str:
    """One line for people: how many, where the first ones stand, what has been or can be done."""
    places = [f"{secret.place} ({secret.kind})" for secret in secrets[:_SHOWN]]
    listed = ", ".join(places) + ", …" * (len(secrets) > _SHOWN)
    what = f"{len(secrets)} possible secret{'s' * (len(secrets) > 1)}"
    if redacted:
        return f"{what} taken out: {listed}"
    return f"{what}: {listed}; --redact takes {'them' if len(secrets) > 1 else 'it'} out"


def _joined(document: Document) -> tuple[str, list[int]]:
    """The text of all sections, and where each begins in it."""
    starts, pieces, length = [], [], 0
    for section in document.sections:
        starts.append(length)
        # Words of two pages do not run into one another.
        piece = section.text if section.text.endswith("\n") else section.text + "\n"
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), starts


def _spans(text: str, path: str) -> list[tuple[int, int, str]]:
    """Begin, end and kind of every secret, in order and apart from one another."""
    forms = [_ASSIGNED, _UNQUOTED] if _SETTINGS.fullmatch(path) else [_ASSIGNED]
    spans = sorted(chain(_with_known_form(text), _in_urls(text), _assigned(text, forms)))
    # The same key may also be what a variable called token is set to.
    apart: list[tuple[int, int, str]] = []
    for span in spans:
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
    return apart


def _with_known_form(text: str) -> Iterator[tuple[int, int, str]]:
    for beginning, forms in _FORMS.items():
        for position in _places(text, beginning):
            for kind, pattern in forms:
                match = pattern.match(text, position)
                if match and (kind != "private key" or _BODY.search(match[0])):
                    yield *match.span(), kind


def _in_urls(text: str) -> Iterator[tuple[int, int, str]]:
    for position in _places(text, "://"):
        match = _URL.match(text, position)
        if (
            match
            and not _PLACEHOLDER.search(match["secret"])
            and not _EXAMPLE_HOST.match(match["host"])
        ):
            yield *match.span("secret"), "password in a URL"


def _assigned(text: str, forms: Sequence[re.Pattern[str]]) -> Iterator[tuple[int, int, str]]:
    lowered = text.lower()
    if len(lowered) != len(text):  # some letters have more than one in lower case
        lowered = text
    for name in _NAMES:
        is_password = name in ("passw", "pwd")
        for position in _places(lowered, name):
            for form in forms:
                match = form.match(text, position)
                if match and _is_random(match["secret"], is_password=is_password):
                    yield *match.span("secret"), "password" if is_password else "token"


def _places(text: str, word: str) -> Iterator[int]:
    position = text.find(word)
    while position >= 0:
        yield position
        position = text.find(word, position + len(word))


def _is_random(value: str, *, is_password: bool) -> bool:
    """Whether a value looks drawn rather than written."""
    if _PLACEHOLDER.search(value) or _CONSTANT.fullmatch(value):
        return False
    if not (any(map(str.isdigit, value)) and any(map(str.isalpha, value))):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    bits = -sum(share * math.log2(share) for share in shares)
    if is_password:
        return bits >= _LEAST_BITS
    return len(value) >= _TOKEN_CHARS and bits >= _TOKEN_BITS
