"""Themes: dark, light, the terminal's own sixteen colours; signs for ASCII terminals."""

import os
from collections.abc import Mapping

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

NIGHT = Theme(
    name="night",
    primary="#4fa3d1",
    secondary="#7aa2f7",
    accent="#f2b84b",
    success="#8fc97a",
    warning="#e8a15a",
    error="#ef6f6c",
    foreground="#d7dde5",
    background="#12161c",
    surface="#1a2028",
    panel="#262e39",
    dark=True,
    variables={"source": "#ff4fb8"},
)
DAY = Theme(
    name="day",
    primary="#1f6f9f",
    secondary="#4a5fb0",
    accent="#94560a",
    success="#3c7a2c",
    warning="#9a5410",
    error="#b3302d",
    foreground="#242a31",
    background="#fbfaf6",
    surface="#f0eee7",
    panel="#dcd9d0",
    dark=False,
    variables={"source": "#c2187a", "footer-key-foreground": "#7d4706"},
)
SIXTEEN = Theme(
    name="sixteen",
    primary="ansi_bright_blue",
    secondary="ansi_cyan",
    accent="ansi_yellow",
    success="ansi_green",
    warning="ansi_yellow",
    error="ansi_red",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    dark=True,
    ansi=True,
    variables={
        "source": "ansi_bright_magenta",
        "ansi-background": "ansi_black",
        "ansi-foreground": "ansi_white",
        "block-cursor-background": "ansi_blue",
        "block-cursor-foreground": "ansi_bright_white",
        "block-cursor-text-style": "bold",
        "input-selection-background": "ansi_blue",
        "input-selection-foreground": "ansi_bright_white",
        "input-cursor-background": "ansi_white",
        "input-cursor-foreground": "ansi_black",
        "screen-selection-background": "ansi_blue",
        "screen-selection-foreground": "ansi_bright_white",
        "scrollbar": "ansi_bright_black",
        "scrollbar-hover": "ansi_white",
        "scrollbar-active": "ansi_white",
        "scrollbar-background": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "scrollbar-corner-color": "ansi_default",
        "border": "ansi_bright_black",
        "border-blurred": "ansi_bright_black",
        "footer-background": "ansi_default",
        "footer-key-foreground": "ansi_yellow",
    },
)
THEMES = (NIGHT, DAY, SIXTEEN)

_SIGNS = {
    **dict.fromkeys("─╌╴╶▁▔▂", "-"),
    **dict.fromkeys("━═╸╺", "="),
    **dict.fromkeys("│┃║▏▕▎▍▌▐╎┆", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛╋╞╡╪", "+"),
    **dict.fromkeys("█▉▊▋▇▆▅■◼", "#"),
    **dict.fromkeys("▀▄▃▖▗▘▝▞▚", ":"),
    **dict.fromkeys("•▪●·", "*"),
    **dict.fromkeys("◦○", "o"),
    **dict.fromkeys("▾▼", "v"),
    **dict.fromkeys("▸▶→›", ">"),
    **dict.fromkeys("←‹", "<"),
    **dict.fromkeys("–—", "-"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”„", '"'),
    "↑": "^",
    "↓": "v",
    "…": ".",
    "░": ".",
    "▒": "+",
    "▓": "%",
    "×": "x",
    "␤": "/",
}
_PLAIN = {ord(sign): plain for sign, plain in _SIGNS.items()}


class PlainSigns(LineFilter):
    """Draws lines, bars and bullets in ASCII; letters stay as they are."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        """Replace signs one by one, which keeps the width."""
        return [
            Segment(text if text.isascii() else text.translate(_PLAIN), style, control)
            for text, style, control in segments
        ]


def theme_for(name: str, environment: Mapping[str, str]) -> Theme:
    """Return the theme of this name; ``auto`` chooses by what the terminal can show."""
    for theme in THEMES:
        if theme.name == name:
            return theme
    if "NO_COLOR" in environment:
        return SIXTEEN
    term, depth = environment.get("TERM", ""), environment.get("COLORTERM", "")
    is_rich = depth in ("truecolor", "24bit") or "256" in term or "direct" in term
    if not is_rich and term in ("linux", "ansi", "vt100", "vt220", "xterm-16color", "screen"):
        return SIXTEEN
    # COLORFGBG holds the colours of text and background, such as "15;0".
    ground = environment.get("COLORFGBG", "").rpartition(";")[2]
    return DAY if ground in ("7", "15") else NIGHT


def is_plain(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the terminal shows only ASCII."""
    if environment.get("TERM") in ("vt100", "vt220", "dumb"):
        return True
    names = (environment.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    _, _, encoding = next((name for name in names if name), "").partition(".")
    return bool(encoding) and "utf" not in encoding.lower()
