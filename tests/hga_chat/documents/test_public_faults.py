"""The documents of public bug reports, by kind."""

import shutil

import pytest

from tools.measure.public_faults import DATA, Case, cases, wrong


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.kind}: {case.case}")
def test_documents_of_public_reports_are_read_right(case: Case) -> None:
    if case.tree and shutil.which("git") is None:
        pytest.skip("git makes the tree")
    assert wrong(case) == []


def test_every_document_belongs_to_a_case() -> None:
    named = {path for case in cases() for path in case.says}
    named |= {path for case in cases() for content in case.tree.values() for path in content}
    files = {f"faults/{file.name}" for file in (DATA / "faults").iterdir()}
    assert files - named == {"faults/cases.json"}


def test_a_wrong_text_is_found() -> None:
    good = next(case for case in cases() if case.case.startswith("29"))
    bad = Case(
        *(good.case, good.kind, good.source, {"faults/progress.log": ["90%"], "gone": ["x"]}),
        says_not={"faults/progress.log": ["Installing"]},
        lines={"faults/progress.log": {"ERROR": 55}},
    )
    assert wrong(bad) == [
        "faults/progress.log does not say '90%'",
        "faults/progress.log says 'Installing'",
        "faults/progress.log: 'ERROR' is in line 4, not 55",
        "gone is not loaded",
    ]
