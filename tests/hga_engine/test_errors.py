"""The engine knows nothing of the command line."""

import ast
import re
from pathlib import Path

import hga_engine

ENGINE = Path(hga_engine.__file__).parent
COMMAND_LINE = re.compile(r"(?<![\w-])--[a-z]|hga-chat|hga_chat")


def test_no_text_in_the_engine_names_a_flag_or_a_command() -> None:
    found = [
        f"{path.relative_to(ENGINE)}:{node.lineno}: {node.value}"
        for path in sorted(ENGINE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and COMMAND_LINE.search(node.value)
    ]
    assert found == []
