import pytest

FONT = (
    b"<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman /Encoding << /Differences "
    b"[1 /dotlessi /dieresis /circumflex /cedilla /hungarumlaut /element] >> >>"
)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        # The accent first and then its letter, as TeX sets them: Times' i is 0.278 em wide.
        (rb"[(na) 28 (\002) 305 (\001ve)] TJ", "naïve"),
        (rb"[(Erd) (\005) 416 (os)] TJ", "Erdős"),
        # The letter first.
        (rb"[(gar) (c) 388 (\004) -55 (on)] TJ", "garçon"),
        # Raised over a capital.
        (rb"(Punkt ) Tj 27 2 Td (\003) Tj -1.2 -2 Td (P) Tj", "Punkt P̂"),
        # Strokes over relations, and a stroke that divides.
        (rb"[(x ) (/) 421 (= y)] TJ", "x ≠ y"),
        (rb"[(x ) (/) 495 (\006 Y)] TJ", "x ∉ Y"),
        (rb"[(a/b and 5/) -50 (= 6)] TJ", "a/b and 5/= 6"),
        # An accent that stands alone.
        (rb"[(the sign \002) (a)] TJ", "the sign ¨a"),
    ],
)
def test_accents_and_strokes_join_what_they_stand_over(text_of, shown: bytes, text: str) -> None:
    content = b"BT /T 10 Tf 72 700 Td %b ET" % shown
    assert text_of(content, fonts={"T": FONT}) == text
