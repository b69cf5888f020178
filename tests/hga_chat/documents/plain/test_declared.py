import pytest

from hga_chat.documents.plain.declared import declared_encoding
from hga_chat.documents.plain.decode import decode_text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        # PEP 263, with the comment in either of the first two lines
        ("# -*- coding: cp1251 -*-\n# Расчёт налога\n", "cp1251"),
        ("#!/usr/bin/python\n# -*- coding: euc-kr -*-\n# 세금\n", "euc-kr"),
        ("\n# vim: set fileencoding=iso-8859-2 :\nNAME = 'Łódź'\n", "iso-8859-2"),
        ("#coding=shift_jis\nprint('髙橋')\n", "cp932"),
        ('# encoding: koi8-r\nname = "Сумма"\n', "koi8-r"),
        # the same in other languages, as Emacs writes it, with its line ends
        ("/* -*- coding: iso-8859-7-dos -*- */\n/* τιμή */\n", "iso-8859-7"),
        (";; -*- mode: lisp; coding: euc-jp -*-\n;; 値段\n", "euc-jp"),
        ("% -*- coding: latin-2 -*-\n% Łódź\n", "iso-8859-2"),
        # Vim, at the end
        ("int a; // Сумма\n/* vim: ts=4 fenc=cp866 : */\n", "cp866"),
        # XML 1.0
        ('<?xml version="1.0" encoding="Shift_JIS"?>\n<name>髙橋商店</name>\n', "cp932"),
        ("<?xml version='1.0'\n encoding='windows-1253'?><a>τιμή</a>", "cp1253"),
        ('<?xml version="1.0" encoding="IBM855" standalone="yes"?><a>Цена</a>', "cp855"),
        # CSS, LaTeX, gettext, mail
        ('@charset "windows-1251";\na::after { content: "Цена" }\n', "cp1251"),
        ("\\documentclass{article}\n\\usepackage[latin2]{inputenc}\nŁódź\n", "iso-8859-2"),
        ("\\usepackage[applemac]{inputenc}\nÉté\n", "mac_roman"),
        (
            'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=ISO-8859-2\\n"\n'
            'msgid "x"\nmsgstr "Łódź"\n',
            "iso-8859-2",
        ),
        (
            "From: a\nContent-Type: text/plain; format=flowed;\n  charset=windows-1251\n\nЦена\n",
            "cp1251",
        ),
        ("From: a\nContent-Type: text/plain; charset=iso-2022-kr\n\n가격은 삼십원\n", "iso2022-kr"),
        ("From: a\nContent-Type: text/plain; charset=hz-gb-2312\n\n价格\n", "hz"),
        # a template of a page
        ("{% x %}<meta http-equiv=a content='text/html; charset=koi8-r'>Цена", "koi8-r"),
    ],
)
def test_declared_encodings_beat_guesses(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    "data",
    [
        b"x = 1\ny = 2\n# coding: cp1251\n",
        b"x = 'coding: cp1251'\n",
        b"import a\n# coding: cp1251\n",
        b'<a/><?xml version="1.0" encoding="koi8-r"?>',
        b"%\\usepackage[latin1]{inputenc}\n\n",
        b"plain",
        b"",
    ],
)
def test_what_declares_nothing(data: bytes) -> None:
    assert declared_encoding(data) is None


def test_utf8_is_utf8_whatever_is_declared() -> None:
    text = "# coding: latin-1\nGröße = 'Öl für 5 €'\n"
    assert decode_text(text.encode()) == text


def test_a_word_that_is_valid_utf8_by_chance_is_what_is_declared() -> None:
    text = "# coding: cp1251\nx = 'Её'\n"
    assert text.encode("cp1251").decode() != text
    assert decode_text(text.encode("cp1251")) == text


def test_a_false_declaration_is_not_believed() -> None:
    text = '<?xml version="1.0" encoding="Shift_JIS"?><a>' + "세금 계산 합계 " * 9 + "</a>"
    assert decode_text(text.encode("euc-kr")) == text


def test_invalid_bytes_of_a_declared_encoding() -> None:
    data = b'<?xml version="1.0" encoding="EUC-JP"?>' + "値段は三十円です。".encode("euc-jp") * 9
    text = decode_text(data + b"\xff<")
    assert text.endswith("値段は三十円です。\ufffd<")
