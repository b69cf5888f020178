import pytest

from hga_chat.documents.html.decode import decode_html


@pytest.mark.parametrize(
    ("head", "encoding", "text"),
    [
        # tox-dev/turbohtml#424, #66, #99; scrapy/w3lib#155
        ('<meta charset="iso-8859-1">', "cp1252", "The clerk’s fee is “30 €” – not “45 €”… café"),
        ('<meta charset="shift_jis">', "cp932", "①髙橋さんは㈱日立に勤める。№３"),
        ('<meta charset="x-sjis">', "shift_jis", "こんにちは。値段は30円です。"),
        ('<meta charset="euc-kr">', "cp949", "똠방각하 펲시콜라 쑛 가격은 30원"),
        ('<meta charset="big5">', "big5hkscs", "香港嘅士多啤梨，價錢係30蚊"),
        ("<!--" + "x" * 3000 + '--><meta charset="windows-1251">', "cp1251", "Цена 30 рублей"),
        # the other ways to declare, and what only looks like one
        ("<META HTTP-EQUIV=content-type CONTENT='text/html; Charset = koi8-r'>", "koi8-r", "Цена"),
        ("<meta\ncharset = windows-1253\n>", "cp1253", "τιμή"),
        ("<!-- <meta charset=koi8-r> --><meta charset=cp1251>", "cp1251", "Цена"),
        ("<meta charset=bogus><meta charset=cp1251>", "cp1251", "Цена"),
        ("<p title='<meta charset=koi8-r>'><meta charset=cp1251>", "cp1251", "Цена"),
        # html5lib-tests: what looks like one within the first kilobyte, and only there
        ("<script>'<meta charset=cp1251>'</script><meta charset=koi8-r>", "cp1251", "Цена"),
        (
            "<!--"
            + "x" * 1024
            + "--><script>'<meta charset=koi8-r>'</script><meta charset=cp1251>",
            *("cp1251", "Цена"),
        ),
        ("<meta name=a content='charset=koi8-r'><meta charset=cp1251>", "cp1251", "Цена"),
        ('<?xml version="1.0" encoding="windows-1255"?>', "cp1255", "מחיר"),
        # standards say UTF-8 of what is said in ASCII to be UTF-16
        ('<meta charset="utf-16">', "utf-8", "Größe"),
    ],
)
def test_declared_encodings(head: str, encoding: str, text: str) -> None:
    assert decode_html(f"{head}<p>{text}".encode(encoding)) == f"{head}<p>{text}"
