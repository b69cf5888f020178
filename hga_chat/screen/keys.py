"""Names of keys."""

from textual.binding import Binding

_NAMES = {
    "ctrl": "Ctrl",
    "shift": "Shift",
    "enter": "Enter",
    "escape": "Esc",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "slash": "/",
    "question_mark": "?",
}


def key_name(binding: Binding) -> str:
    """Return ``Ctrl+F``, ``Esc``, ``F1``, ``j``, as in the footer, the help and docs/screen.md."""
    if binding.key_display:
        return binding.key_display
    *held, key = binding.key.split("+")
    is_function = key[0] == "f" and key[1:].isdecimal()
    name = key.upper() if held or is_function else key
    return "+".join([*(_NAMES.get(part, part) for part in held), _NAMES.get(key, name)])
