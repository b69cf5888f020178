"""How keys are called, and which of them are of use."""

from typing import TYPE_CHECKING

from textual.binding import Binding

if TYPE_CHECKING:
    from hga_chat.screen.app import ChatApp

_NAMES = {
    "ctrl": "Ctrl",
    "shift": "Shift",
    "enter": "Enter",
    "escape": "Esc",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
}


def key_name(binding: Binding) -> str:
    """``Ctrl+F``, ``Esc``, ``F1``, ``j``: the same in the footer, the help and the README."""
    if binding.key_display:
        return binding.key_display
    *held, key = binding.key.split("+")
    is_function = key[0] == "f" and key[1:].isdecimal()
    name = key.upper() if held or is_function else key
    return "+".join([*(_NAMES.get(part, part) for part in held), _NAMES.get(key, name)])


def is_of_use(app: "ChatApp", action: str) -> bool:
    """Whether an action of the application would do something now."""
    turns = app.transcript.turns
    match action:
        case "leave_off":
            return app.flow.is_stoppable
        case "find":
            return bool(turns)
        case "sources":
            return any(turn.sources for turn in turns)
        case "copy":
            is_selected = bool(app.screen.get_selected_text())
            return is_selected or any(turn.text for turn in turns)
        case "map_mode":
            return any(turn.reading.total for turn in turns)
        case "step_layer":
            return app.flow.view.num_layers > 0
    return True
