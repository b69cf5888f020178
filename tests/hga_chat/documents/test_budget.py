import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hga_chat.display import displayable
from hga_chat.documents.budget import over_budget
from hga_chat.documents.survey import Counted
from hga_chat.documents.tree.ignore import Globs


def _counted(sizes: dict[str, int]) -> list[Counted]:
    return [Counted(path, "text", 1, tokens, ()) for path, tokens in sizes.items()]


def test_within_the_budget() -> None:
    assert over_budget(_counted({"a": 10}), 10) is None
    assert over_budget([], 0) is None


def test_the_largest_files_are_named_and_excluded() -> None:
    sizes = {"small": 10, "src/[x]*.py": 300, "huge.txt": 900, "mid": 50}
    report = over_budget(_counted(sizes), 400)
    assert report is not None
    assert (report.total, report.budget) == (1260, 400)
    assert report.largest == (
        ("huge.txt", 900),
        ("src/[x]*.py", 300),
        ("mid", 50),
        ("small", 10),
    )
    assert report.folders == (("src/", 300),)
    assert report.options == ("--exclude 'huge.txt'",)
    assert str(report) == (
        "1,260 tokens are over the budget of 400. Largest: huge.txt (900), src/[x]*.py (300), "
        "mid (50), small (10); folders: src/ (300)\n"
        "For example, --exclude 'huge.txt' makes it fit; --fit chooses for you."
    )
    report = over_budget(_counted(sizes), 100)
    assert report is not None
    assert report.options == ("--exclude 'huge.txt'", r"--exclude 'src/\[x\]\*.py'")


def test_for_one_file_over_the_budget_no_glob_helps() -> None:
    report = over_budget(_counted({"book.txt": 900}), 100)
    assert report is not None
    assert report.options == ()
    assert str(report).endswith(
        "Name fewer files or a smaller folder, or let --fit leave files out."
    )


def test_a_file_of_the_same_name_in_a_folder_is_kept() -> None:
    report = over_budget(_counted({"a.py": 900, "lib/a.py": 10, "b.py": 10}), 200)
    assert report is not None
    assert report.options == ("--exclude '/a.py'",)


def test_test_example_and_translation_folders_are_excluded_before_files() -> None:
    sizes = {
        "src/app.py": 500,
        "src/Tests/test_app.py": 300,
        "pkg/Tests/test_pkg.py": 200,
        "examples/one.py": 100,
        "locale/de.po": 5,
    }
    report = over_budget(_counted(sizes), 505)
    assert report is not None
    # The translations are too small to be worth a glob.
    assert report.options == ("--exclude 'Tests/'", "--exclude 'examples/'")
    report = over_budget(_counted(sizes), 700)
    assert report is not None
    assert report.options == ("--exclude 'Tests/'",)


def test_if_many_files_must_go_the_largest_folder_that_fits_is_included() -> None:
    sizes = {f"big/{n}.py": 50 for n in range(100)}
    sizes |= {f"lib/{n}.py": 20 for n in range(10)}
    sizes |= {"tests/test_x.py": 250, "lib/deep/x.py": 30}
    report = over_budget(_counted(sizes), 300)
    assert report is not None
    assert report.folders == (("big/", 5000), ("tests/", 250), ("lib/", 230), ("lib/deep/", 30))
    assert report.options == ("--include '/lib/'",)


def test_the_folder_that_is_imported_most_is_included_and_documentation_never_instead() -> None:
    many = {f"docs/{n}.md": 10 for n in range(20)} | {f"data/{n}.md": 60 for n in range(50)}
    counted = _counted(many) + [
        Counted(f"src/{n}.py", "text", 1, 15, importance=(5, n)) for n in range(10)
    ]
    report = over_budget(counted, 210)
    assert report is not None
    assert report.options == ("--include '/src/'",)
    report = over_budget([*counted, Counted("src/big.py", "text", 1, 300, importance=(5, 9))], 210)
    assert report is not None
    assert report.options == ()


def test_what_matters_least_is_excluded_first() -> None:
    counted = [
        Counted("src/core.py", "text", 1, 400, importance=(5, 12)),
        Counted("src/rare.py", "text", 1, 300, importance=(5, 0)),
        Counted("notes.md", "markdown", 1, 100, importance=(4, 0)),
        Counted("icons.svg", "text", 1, 90, importance=(0, 0)),
    ]
    report = over_budget(counted, 700)
    assert report is not None
    assert report.options == ("--exclude 'icons.svg'", "--exclude 'notes.md'")
    report = over_budget(counted, 650)
    assert report is not None
    # Without the largest of them, others can stay.
    assert report.options == ("--exclude 'src/rare.py'",)


def _pasted(option: str) -> list[str]:
    """Return the arguments that a shell makes of an option that was copied from a terminal."""
    shown = displayable(option)
    assert "\n" not in shown
    command = f"printf '%s\\0' {shown}"
    found = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    return found.stdout.decode().split("\0")[:-1]


_NAMES = st.text(
    st.sampled_from("ab.-!#~$`\"'\\[]{}()*?<>|&; \t\n\r\x1b\u2028\u202e\u00a0é\ufffd"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell")
@given(_NAMES, st.booleans())
@example("it's.txt", False)
@example("-x.txt", True)
@example("notes  ", False)
@example("a\nb", False)
@example("[draft] 'v2' (1).md", True)
def test_options_can_be_pasted_into_a_shell(name: str, is_inside: bool) -> None:
    path = f"src/{name}" if is_inside else name
    report = over_budget(_counted({path: 900, "another document": 10}), 100)
    assert report is not None
    (option,) = report.options
    flag, glob = _pasted(option)
    assert flag == "--exclude"
    globs = Globs.parse([], [glob])
    assert globs.excludes(path, is_folder=False)
    assert not globs.excludes("another document", is_folder=False)


def test_an_option_for_a_folder_can_be_pasted() -> None:
    sizes = {f"big/{n}.py": 50 for n in range(100)} | {"it's [x]/a.py": 200}
    report = over_budget(_counted(sizes), 300)
    assert report is not None
    flag, glob = _pasted(report.options[0])
    assert flag == "--include"
    assert Globs.parse([glob], []).includes("it's [x]/a.py")
