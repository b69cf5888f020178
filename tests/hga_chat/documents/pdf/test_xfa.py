"""Dynamic forms, made by hand after the XFA 3.3 specification."""

import pytest

from hga_chat.documents.pdf.worker import extract
from tests.hga_chat.documents.pdf.conftest import pdf_of, stream, texts_of

WAIT = b"BT /F1 12 Tf 72 700 Td (Please wait...) Tj ET"
TEMPLATE = """<template xmlns="http://www.xfa.org/schema/xfa-template/3.3/">
<subform name="form1" layout="tb">
 <pageSet><pageArea name="P"><draw><value><text>Form 7</text></value></draw></pageArea></pageSet>
 <draw name="t"><value><exData contentType="text/html"><body xmlns="http://www.w3.org/1999/xhtml">
   <p>Application <b>to travel</b></p><p>Please print</p></body></exData></value></draw>
 <subform name="person" layout="position">
  <field name="First" x="50mm" y="10mm"><caption><value><text>First name</text></value></caption>
   <ui><textEdit/></ui></field>
  <field name="Last" x="0mm" y="10.2mm"><caption><value><text>Last name</text></value></caption>
   <ui><textEdit/></ui></field>
  <draw x="0mm" y="1mm"><value><text>You</text></value></draw>
  <exclGroup name="Sex" y="20mm">
   <field><ui><checkButton/></ui><caption><value><text>Female</text></value></caption>
    <items><text>f</text></items></field>
   <field><ui><checkButton/></ui><caption><value><text>Male</text></value></caption>
    <items><text>m</text></items></field>
  </exclGroup>
  <field name="Country" y="30mm"><caption><value><text>Country</text></value></caption>
   <ui><choiceList/></ui><items save="1"><text>DE</text><text>CH</text></items>
   <items><text>Germany</text><text>Switzerland</text></items></field>
  <field name="Lang" y="40mm"><caption><value><text>Language</text></value></caption>
   <ui><choiceList/></ui>
   <bindItems ref="xfa.datasets.Lists.Lang[*]" labelRef="$" valueRef="code"/></field>
  <field name="Secret" y="50mm"><caption><value><text>PIN</text></value></caption>
   <ui><passwordEdit/></ui></field>
 </subform>
 <subform name="trip" layout="tb"><occur min="0" max="-1"/>
  <field name="To"><caption><value><text>To</text></value></caption><ui><textEdit/></ui></field>
 </subform>
 <subform name="child"><occur min="0" max="-1"/>
  <draw><value><text>A child</text></value></draw></subform>
 <field name="Go"><caption><value><text>Send</text></value></caption><ui><button/></ui></field>
 <subform name="office" presence="hidden"><draw><value><text>Office</text></value></draw></subform>
 <field name="Note"><bind match="dataRef" ref="$.remarks.note"/><ui><textEdit/></ui></field>
 <field name="Free"><bind match="none"/><value><text>as printed</text></value></field>
</subform></template>"""
DATASETS = """<xfa:datasets xmlns:xfa="http://www.xfa.org/schema/xfa-data/1.0/">
<Lists><Lang code="1">English</Lang><Lang code="2">French</Lang></Lists>
<xfa:data><form1>
 <person><First>Leonhard</First><Last>Euler &amp; Sons</Last><Sex>m</Sex><Country>CH</Country>
  <Lang>2</Lang><Secret>1234</Secret></person>
 <trip><To>Basel</To></trip><trip><To>Berlin</To></trip>
 <remarks><note>By coach</note></remarks><Free>no</Free>
</form1></xfa:data></xfa:datasets>"""
SHOWN = """Form 7
Application to travel
Please print
You
Last name: Euler & Sons
First name: Leonhard
☐ Female
☑ Male
Country: Switzerland
Language: French
PIN:
To: Basel
To: Berlin
By coach
as printed"""


def _form(template: str, datasets: str, *, dynamic: bytes = b"/NeedsRendering true") -> bytes:
    xfa = b"/AcroForm << /Fields [] /XFA [(template) 20 0 R (datasets) 21 0 R] >>"
    objects = {20: stream(template.encode()), 21: stream(datasets.encode())}
    return pdf_of(WAIT, objects=objects, catalog=xfa + dynamic)


def test_a_dynamic_form_stands_in_place_of_its_page() -> None:
    answer = extract(_form(TEMPLATE, DATASETS))
    assert [page["text"] for page in answer["pages"]] == [SHOWN]
    assert answer["left_out"] == ["hidden parts of the form (1)"]


def test_all_parts_in_one_stream() -> None:
    whole = f"<xdp:xdp xmlns:xdp='http://ns.adobe.com/xdp/'>{TEMPLATE}{DATASETS}</xdp:xdp>"
    catalog = b"/AcroForm << /Fields [] /XFA 20 0 R >> /NeedsRendering true"
    assert texts_of(pdf_of(WAIT, objects={20: stream(whole.encode())}, catalog=catalog)) == [SHOWN]


@pytest.mark.parametrize("dynamic", [b"", b"/NeedsRendering false", b"/NeedsRendering 1"])
def test_the_pages_of_a_static_form_stay(dynamic: bytes) -> None:
    assert texts_of(_form(TEMPLATE, DATASETS, dynamic=dynamic)) == ["Please wait..."]


@pytest.mark.parametrize("template", ["", "<template/>", "no XML", "<template><subform>" * 300])
def test_a_form_that_cannot_be_read_is_said(template: str) -> None:
    answer = extract(_form(template, DATASETS))
    assert [page["text"] for page in answer["pages"]] == ["Please wait..."]
    assert answer["left_out"] == ["a dynamic form (XFA)"]


def test_a_form_without_anything_to_read_is_refused() -> None:
    catalog = b"/AcroForm << /Fields [] /XFA [] >> /NeedsRendering true"
    error = extract(pdf_of(b"", catalog=catalog))["error"]
    assert error.startswith("a dynamic form (XFA)")


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE t [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    text = "<draw><value><text>x &b; y</text></value></draw>"
    answer = extract(_form(f"{bomb}<template><subform>{text}</subform></template>", ""))
    assert "haha" not in answer["pages"][0]["text"]


def test_a_form_that_repeats_itself_without_end_is_said(monkeypatch) -> None:
    monkeypatch.setattr("hga_chat.documents.pdf.xfa._MAX_PARTS", 1000)
    fields = "<field name='f'/>" * 100
    template = f"<template><subform name='a'><occur max='-1'/>{fields}</subform></template>"
    datasets = "<x:datasets xmlns:x='x'><x:data>" + "<a/>" * 100 + "</x:data></x:datasets>"
    assert extract(_form(template, datasets))["left_out"] == ["a dynamic form (XFA)"]
