"""Import counts over small trees laid out like real projects of each language."""

import pytest

from hga_chat.documents.tree.imports import Imports

PYTHON = {
    # As in Click and Flask: a package below src that has a module named like one of Python's.
    "src/click/__init__.py": "from .core import Command as C\nfrom .types import (\n    INT,\n)",
    "src/click/core.py": "import typing as t\nfrom . import types\nfrom .types import INT",
    "src/click/types.py": "import os, sys\nfrom ._compat import open_stream",
    "src/click/typing.py": "import typing",
    "src/click/_compat.py": "import codecs",
    "tests/test_core.py": "import click\nfrom click.core import Command, Group as G",
    "tests/conftest.py": "import click.types as types  # and no more",
    "docs/conf.py": "from pallets_sphinx_themes import get_version",
}
TYPESCRIPT = {
    "src/index.ts": "export * from './core'\nimport './core.js'\nconst x = require('../lib/x.js')",
    "src/core/index.ts": "import { a } from '@/util/a'\nimport fs from 'fs'",
    "src/util/a.tsx": "const lazy = await import('../core')",
    "lib/x.js": "",
}
GO = {
    "go.mod": "module github.com/spf13/cobra\n\ngo 1.15\n",
    "cobra.go": 'package cobra\n\nimport (\n\t"fmt"\n)',
    "command.go": "package cobra",
    "command_test.go": "package cobra",
    "doc/man_docs.go": 'package doc\n\nimport (\n\t"os"\n\n\t"github.com/spf13/cobra"\n)',
    "site/main.go": 'package main\nimport "github.com/spf13/cobra/doc"',
}
RUST = {
    "src/main.rs": "mod cli;\npub mod filter;\nuse crate::cli::Opts;",
    "src/cli.rs": "use crate::{error::Error, filter::{self, Size}};",
    "src/error.rs": "",
    "src/filter/mod.rs": "mod size;\nfn f() { crate::error::print() }",
    "src/filter/size.rs": "use super::size;",
}
JAVA = {
    "app/src/org/x/Main.java": "import org.x.util.Strings;\nimport static org.x.util.Maths.max;",
    "lib/org/x/util/Strings.java": "",
    "lib/org/x/util/Maths.kt": "import java.util.List",
}
C = {
    "src/main.c": '#include "core.h"\n#include <stdio.h>\n # include <proj/list.h>',
    "src/core.c": '#include "core.h"',
    "src/core.h": '#include "../include/proj/list.h"',
    "include/proj/list.h": "",
}
RUBY = {"lib/a.rb": "require_relative 'b/c'\nrequire 'json'", "lib/b/c.rb": "require 'a'"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            PYTHON,
            {
                "src/click/types.py": 3,
                "src/click/core.py": 2,
                "src/click/__init__.py": 1,
                "src/click/_compat.py": 1,
            },
        ),
        (TYPESCRIPT, {"src/core/index.ts": 2, "lib/x.js": 1, "src/util/a.tsx": 1}),
        (GO, {"cobra.go": 1, "command.go": 1, "doc/man_docs.go": 1}),
        (
            RUST,
            {"src/error.rs": 2, "src/filter/mod.rs": 2, "src/cli.rs": 1, "src/filter/size.rs": 1},
        ),
        (JAVA, {"lib/org/x/util/Strings.java": 1, "lib/org/x/util/Maths.kt": 1}),
        (C, {"include/proj/list.h": 2, "src/core.h": 2, "src/core.c": 1}),
        (RUBY, {"lib/b/c.rb": 1, "lib/a.rb": 1}),
    ],
    ids=["python", "typescript", "go", "rust", "java", "c", "ruby"],
)
def test_counts(files: dict[str, str], expected: dict[str, int]) -> None:
    imports, names = Imports(), list(files)
    for number, (path, text) in enumerate(files.items()):
        imports.add(number, path, text)
    assert {names[number]: count for number, count in imports.counts().items()} == expected


def test_below_a_folder_that_was_named() -> None:
    """Paths begin with what a person typed."""
    imports, names = Imports(), [f"../work/click-8.1.8/{path}" for path in PYTHON]
    for number, (path, text) in enumerate(zip(names, PYTHON.values(), strict=True)):
        imports.add(number, path, text)
    assert {
        names[n].removeprefix("../work/click-8.1.8/"): c for n, c in imports.counts().items()
    } == {
        "src/click/types.py": 3,
        "src/click/core.py": 2,
        "src/click/__init__.py": 1,
        "src/click/_compat.py": 1,
    }
