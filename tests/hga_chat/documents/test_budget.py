from hga_chat.documents.budget import over_budget
from hga_chat.documents.survey import Counted


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
        "1,260 tokens are over the budget of 400; largest: huge.txt (900), src/[x]*.py (300), "
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
