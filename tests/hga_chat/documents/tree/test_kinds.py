from pathlib import Path, PurePath

import pytest

from hga_chat.documents.tree.kinds import Kind, is_generated, kind_of, project_of


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        (Kind.README, "README.md readme docs/README.rst"),
        (Kind.MANIFEST, "pyproject.toml package.json crates/x/Cargo.toml"),
        (
            Kind.ENTRY,
            "main.py src/main.rs src/lib.rs cmd/tool/main.go shop.py shop/__init__.py app.js "
            "src/shop/__init__.py shop/cli.py index.ts",
        ),
        (
            Kind.FILE,
            "a/b/c/main.py src/util/lib.rs other/__init__.py pages/index.ts guide.md main.md "
            "docs/en/guide.md docs/db/guide.md mydocs/de/a.md history.py docs/api/guide.md "
            "contest.py spec.md openapi-spec.md",
        ),
        (
            Kind.TEST,
            "tests/data.json src/__tests__/a.js test_a.py a_test.go b.spec.ts FooTest.java "
            "tests/README.md conftest.py",
        ),
        (Kind.EXAMPLE, "examples/main.py docs/tutorials/a.md"),
        (Kind.DATA, "a.csv config/tsconfig.json logo.svg"),
        (Kind.TRANSLATION, "README.zh-CN.md locale/de/django.po docs/pt-BR/index.md"),
        (Kind.LICENCE, "LICENSE COPYING.txt"),
        (Kind.CHANGES, "CHANGELOG.md docs/history.rst CHANGES"),
        (Kind.LOG, "logs/run.log"),
        (Kind.GENERATED, "poetry.lock web/app.min.js tests/package-lock.json"),
    ],
)
def test_kinds(kind: Kind, paths: str) -> None:
    assert {path: kind_of(PurePath(path), "shop") for path in paths.split()} == dict.fromkeys(
        paths.split(), kind
    )


@pytest.mark.parametrize(
    ("folder", "project"),
    [("Flask-3.1.0", "flask"), ("my-app", "my_app"), ("django", "django"), ("x_v2", "x")],
)
def test_the_name_of_the_main_module(folder: str, project: str) -> None:
    assert project_of(Path("/somewhere") / folder) == project


def test_generated_files_by_name() -> None:
    assert is_generated("Cargo.lock")
    assert is_generated("jquery.MIN.js")
    assert not is_generated("lock.py")
