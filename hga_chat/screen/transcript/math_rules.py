r"""Finds TeX math in Markdown: ``$…$``, ``$$…$$``, ``\(…\)`` and ``\[…\]``.

A dollar sign is math by Pandoc's rule (no space inside, no digit behind), and if what is between
two of them looks like math. Prices and variables of a shell do not.
"""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

from hga_chat.screen.transcript.tex import drawn

CLOSING = {"$$": "$$", "\\[": "\\]"}
"""What a line of its own ends a formula that such a line begins."""
_INLINE = re.compile(
    r"""
    \$\$(?P<display>[^$]+)\$\$
    | (?<![\w\\$])\$(?![\s$])(?P<inline>(?:\\.|[^$\\])+)(?<!\s)\$(?![\w$])
    | \\\((?P<round>.+?)\\\)
    | \\\[(?P<square>.+?)\\\]
    """,
    re.DOTALL | re.VERBOSE,
)
_BLOCK = re.compile(
    r"^ *(?:\$\$ *\n(?P<block>[^$]*)\$\$|\\\[ *\n(?P<other>.*?)\\\])", re.DOTALL | re.MULTILINE
)
_LOOKS = re.compile(r"[\\^_{}=<>]")
_SHORT = re.compile(r"(?!.*[A-Za-z]{3})\S{1,12}(?: [+*/-] \S{1,12})*")


def add_math(parser: MarkdownIt) -> MarkdownIt:
    """Let a parser find math; formulas become tokens ``math``, drawn as their content."""
    terminates: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.before("fence", "math_block", _block, terminates)
    parser.inline.ruler.before("escape", "math", _inline)
    return parser


def formulas(markdown: str) -> Iterator[tuple[int, int, str]]:
    """Yield first character, one past the last, and the drawn form of what may be formulas."""
    blocks = ((found, found["block"] or found["other"]) for found in _BLOCK.finditer(markdown))
    inline = ((found, _source(found)) for found in _INLINE.finditer(markdown))
    taken = 0
    for found, source in sorted([*blocks, *inline], key=lambda pair: pair[0].start()):
        text = drawn(source) if source is not None and found.start() >= taken else None
        if text is not None:
            taken = found.end()
            yield found.start(), found.end(), text


def _source(found: "re.Match[str]") -> str | None:
    """Return a formula without its delimiters; None if dollar signs stand around something else."""
    dollars = found["display"] or found["inline"]
    if dollars is None:
        return found["round"] or found["square"]
    is_math = _LOOKS.search(dollars) or _SHORT.fullmatch(dollars.strip())
    return dollars if is_math else None


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    found = _INLINE.match(state.src, state.pos)
    source = _source(found) if found is not None else None
    if found is None or source is None:
        return False
    text = drawn(source)
    if not silent:
        token = state.push("math", "", 0)
        token.content = found[0] if text is None else text
    state.pos = found.end()
    return True


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.is_code_block(start):
        return False
    opening = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]].strip()
    closing = CLOSING.get(opening)
    if closing is None:
        return False
    last = start + 1
    while last < end and not _line(state, last).endswith(closing):
        if _line(state, last) and state.sCount[last] < state.blkIndent:
            return False
        last += 1
    if last == end:
        return False
    if silent:
        return True
    lines = state.getLines(start, last + 1, state.blkIndent, False)
    token = state.push("math_block", "", 0)
    token.content = drawn(lines.strip()[len(opening) : -len(closing)]) or lines
    state.line = last + 1
    return True


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()
