"""Annotations and form fields (ISO 32000-2, 12.5 and 12.7), in files made from the standard."""

from tests.hga_chat.documents.pdf.conftest import pdf_of, stream, texts_of

LABELS = b"BT /F1 12 Tf 72 700 Td (Name:) Tj ET BT /F1 12 Tf 72 670 Td (Member:) Tj ET"
FORM = b"<< /Type /XObject /Subtype /Form /BBox [0 0 200 20] /Resources 3 0 R"


def _with(*annotations: bytes, content: bytes = LABELS, **entries) -> str:
    listed = b" ".join(annotations)
    (text,) = texts_of(pdf_of(content, page=b"/Annots [%b]" % listed, **entries))
    return text


def _widget(entries: bytes, rect: bytes = b"150 695 400 715") -> bytes:
    return b"<< /Type /Annot /Subtype /Widget /Rect [%b] /F 4 %b >>" % (rect, entries)


def test_a_value_without_appearance_stands_beside_its_label() -> None:
    assert _with(_widget(b"/FT /Tx /T (n) /V (Erika Mustermann)")) == (
        "Name: Erika Mustermann\nMember:"
    )


def test_a_value_of_the_parent_field() -> None:
    parent = b"<< /FT /Tx /T (n) /V <FEFF00C4006E006E0065> /Kids [20 0 R] >>"
    objects = {20: _widget(b"/Parent 21 0 R"), 21: parent}
    assert _with(b"20 0 R", objects=objects) == "Name: Änne\nMember:"


OPTIONS = b"/FT /Ch /Opt [[(de) (Germany)] [(fr) (France)] (Italy)] "


def test_the_choice_of_a_drop_down_list_is_named_as_displayed() -> None:
    drop_down = OPTIONS + b"/Ff 131072 "
    assert _with(_widget(drop_down + b"/V (fr)")) == "Name: France\nMember:"
    assert _with(_widget(drop_down)) == "Name:\nMember:"


def test_the_entries_of_a_list_are_ticked_if_chosen() -> None:
    shown = b"BT /F1 10 Tf 0 10 Td (Germany) Tj 0 -10 Td (France) Tj ET"
    form = stream(shown, b"/Type /XObject /Subtype /Form /BBox [0 0 200 55] /Resources 3 0 R")
    rect = b"150 660 400 720"
    for appearance in (b"", b"/AP << /N 20 0 R >> "):
        widget = _widget(OPTIONS + appearance + b"/V [(de) (Italy)]", rect)
        lines = _with(widget, content=b"", objects={20: form}).splitlines()
        assert lines == ["☑ Germany", "☐ France", "☑ Italy"]


def test_of_a_long_list_only_the_choice_is_named() -> None:
    options = b"/FT /Ch /Opt [%b] /V (C7)" % b" ".join(b"(C%d)" % n for n in range(200))
    assert _with(_widget(options)) == "Name: C7\nMember:"


def test_an_appearance_that_is_to_be_made_anew_gives_way_to_the_value() -> None:
    form = stream(b"BT /F1 10 Tf 2 5 Td (old) Tj ET", FORM.removeprefix(b"<< "))
    widget = _widget(b"/FT /Tx /V (new) /AP << /N 20 0 R >>")
    empty = _widget(b"/FT /Tx /V () /AP << /N 20 0 R >>")

    def shown(widget: bytes, form_entries: bytes) -> str:
        catalog = b"/AcroForm << /Fields [] %b >>" % form_entries
        return _with(widget, objects={20: form}, catalog=catalog).splitlines()[0]

    assert shown(widget, b"") == "Name: old"
    assert shown(widget, b"/NeedAppearances true") == "Name: new"
    assert shown(empty, b"/NeedAppearances true") == "Name: old"


def test_what_a_sound_or_film_shows_is_text() -> None:
    form = stream(b"BT /F1 10 Tf 2 5 Td (Play) Tj ET", FORM.removeprefix(b"<< "))
    for kind in (b"Screen", b"Sound", b"Movie", b"RichMedia"):
        entries = b"/Type /Annot /Rect [150 695 350 715] /AP << /N 20 0 R >>"
        shown = _with(b"<< %b /Subtype /%b >>" % (entries, kind), objects={20: form})
        assert shown == "Name: Play\nMember:"


def test_check_boxes_and_radio_buttons_without_text() -> None:
    empty = stream(b"0 0 m 9 9 l S", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]")
    states = b"/AP << /N << /Yes 20 0 R /Off 20 0 R >> >>"
    box = b"/FT /Btn /T (b) %b /AS /%b"
    rect = b"150 667 160 677"
    for state, mark in ((b"Yes", "☑"), (b"Off", "☐")):
        text = _with(_widget(box % (states, state), rect), objects={20: empty})
        assert text == f"Name:\nMember: {mark}"
    radio = b"/FT /Btn /Ff 32768 /V /Yes %b" % states
    assert _with(_widget(radio, rect), objects={20: empty}).endswith("Member: ◉")


def test_a_mark_of_zapf_dingbats() -> None:
    dingbats = b"<< /Type /Font /Subtype /Type1 /BaseFont /ZapfDingbats >>"
    resources = b"/Resources << /Font << /Z %b >> >>" % dingbats
    shown = stream(
        b"BT /Z 9 Tf (4) Tj ET", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] " + resources
    )
    box = b"/FT /Btn /AS /Yes /AP << /N << /Yes 20 0 R >> >>"
    text = _with(_widget(box, b"150 667 160 677"), objects={20: shown})
    assert text == "Name:\nMember: ✔"


def test_what_is_hidden_or_secret_is_left_out() -> None:
    hidden = _widget(b"/FT /Tx /V (unseen)").replace(b"/F 4", b"/F 2")
    no_view = _widget(b"/FT /Tx /V (unseen)").replace(b"/F 4", b"/F 32")
    password = _widget(b"/FT /Tx /Ff 8192 /V (unseen)")
    assert _with(hidden, no_view, password) == "Name:\nMember:"


def test_appearances_are_moved_and_scaled_into_their_rectangle() -> None:
    shown = stream(
        b"BT /F1 100 Tf 10 20 Td (Berlin) Tj ET",
        b"/Type /XObject /Subtype /Form /BBox [0 0 2000 200] /Resources 3 0 R",
    )
    stamp = b"<< /Type /Annot /Subtype /Stamp /Rect [150 665 350 685] /AP << /N 20 0 R >> >>"
    assert _with(stamp, objects={20: shown}) == "Name:\nMember: Berlin"


def test_free_text_without_appearance() -> None:
    note = b"<< /Type /Annot /Subtype /FreeText /Rect [150 665 350 685] /Contents (to be paid) >>"
    assert _with(note) == "Name:\nMember: to be paid"


def test_comments_come_last() -> None:
    comment = (
        b"<< /Type /Annot /Subtype /Text /Rect [10 740 30 760] /T (Ada) /Contents (Check this.) >>"
    )
    marked = b"<< /Type /Annot /Subtype /Highlight /Rect [10 1 30 9] /Contents (twice) >>"
    assert (
        _with(comment, marked) == "Name:\nMember:\n[comment by Ada: Check this.]\n[comment: twice]"
    )


def test_damaged_annotations_lose_nothing_else() -> None:
    assert _with(
        b"null", b"99 0 R", b"<< /Rect 3 >>", b"[1]", b"<< /Rect [1 2 (x) 4] /AP 7 >>"
    ) == ("Name:\nMember:")


def test_values_a_little_above_their_labels_stay_in_a_table(text_of) -> None:
    names = (b"Value 1", b"Value 2", b"Sum")
    content = b"".join(
        b"BT /F1 12 Tf 72 %d Td (%b) Tj 200 0 Td (left) Tj ET " % (700 - 20 * n, name)
        for n, name in enumerate(names)
    )
    objects = {}
    for n, value in enumerate((b"1.00", b"2.00", b"3.00")):
        low = 696 + 5 * n - 20 * n
        objects[20 + n] = (
            b"<< /Type /Annot /Subtype /Widget /FT /Tx /V (%b) /Rect [150 %d 200 %d] >>"
            % (value, low, low + 20)
        )
    page = b"/Annots [20 0 R 21 0 R 22 0 R]"
    shown = text_of(content, objects=objects, page=page)
    assert [value in shown for value in ("1.00", "2.00", "3.00")] == [True] * 3
