import re
import struct
import time
from random import Random

import pytest

from hga_chat.documents.plain.decode import decode_text, is_binary
from hga_chat.documents.types import UnreadableError


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]
)
def test_encodings(encoding: str) -> None:
    text = "Größe: 12 µm, façade, naïve\n"
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    "data",
    [
        b"\xfe\xff\x00H\x00i",  # UTF-16, big-endian
        b"\xff\xfeH\x00i\x00",
        b"\x00\x00\xfe\xff\x00\x00\x00H\x00\x00\x00i",
        b"\xff\xfe\x00\x00H\x00\x00\x00i\x00\x00\x00",
    ],
)
def test_byte_order_marks(data: bytes) -> None:
    assert decode_text(data) == "Hi"


SENTENCES = {
    "ru": "Смотритель маяка каждый вечер записывает в журнал ветер и море, а утром гасит лампу. "
    "Ключ лежит под камнем у двери, и знают об этом только двое: он сам и почтальон.\n",
    "el": "Ο φύλακας του φάρου γράφει κάθε βράδυ στο ημερολόγιο τον άνεμο και τη θάλασσα. "
    "Το κλειδί είναι κάτω από την πέτρα δίπλα στην πόρτα, και το ξέρουν μόνο δύο.\n",
    "he": "שומר המגדלור כותב ביומן בכל ערב את הרוח ואת הים, ובבוקר הוא מכבה את המנורה. "
    "המפתח נמצא מתחת לאבן ליד הדלת, ורק שניים יודעים על כך.\n",
    "ar": "يكتب حارس المنارة كل مساء في دفتر اليومية عن الريح والبحر، وفي الصباح يطفئ المصباح. "
    "المفتاح تحت الحجر بجانب الباب، ولا يعرف ذلك إلا اثنان.\n",
    "th": "คนเฝ้าประภาคารเขียนบันทึกเรื่องลมและทะเลทุกเย็น ตอนเช้าเขาดับตะเกียงแล้วเดินลงไปที่ชายหาด "
    "กุญแจอยู่ใต้ก้อนหินข้างประตู\n",
    "ja": "灯台守は毎晩、日誌に風と海のようすを書き、朝になるとランプを消して浜へ下りていきます。"
    "鍵は戸口のそばの石の下にあり、それを知っているのは二人だけです。\n",
    "katakana": "コンピュータのプログラムとデータベース、インターネット。テレビとラジオ。\n",
    "zh": "灯塔看守人每天晚上都在日志里记下风和大海的情况，早上他熄灭灯火，走下海滩。"
    "钥匙在门边的石头下面，只有两个人知道。\n",
    "zht": "燈塔看守人每天晚上都在日誌裡記下風和大海的情況，早上他熄滅燈火，走下海灘。"
    "鑰匙在門邊的石頭下面，只有兩個人知道。\n",
    "ko": "등대지기는 매일 저녁 일지에 바람과 바다의 모습을 적고, 아침이 되면 등불을 끕니다. "
    "열쇠는 문 옆의 돌 아래에 있고, 그것을 아는 사람은 둘뿐입니다.\n",
    "pl": "Wieczorem łódka wróciła do portu, a rybacy śpiewali stare pieśni; wiatr ucichł, gwiazdy "
    "zaświeciły nad wodą. Latarnik każdego dnia zapisuje, jaki był wiatr i jakie było morze.\n",
    "cs": "Večer se loďka vrátila do přístavu a rybáři zpívali staré písně, vítr utichl a hvězdy "
    "svítily nad vodou. Strážce majáku každý večer zapisuje do deníku vítr a moře.\n",
    "tr": "Akşam küçük tekne limana döndü, balıkçılar eski şarkılar söyledi; rüzgâr dindi, "
    "yıldızlar suyun üstünde ışıldadı. Fener bekçisi her akşam deftere rüzgârı ve denizi yazar.\n",
    "de": "Der Wärter schreibt jeden Abend Wind und Meer ins Tagebuch; früh löscht er die Lampe, "
    "wäscht das Glas und geht über die Dünen zum Strand. Größe, Öl, Übermut, Äpfel, süß.\n",
    "fr": "Élève, garçon, forêt, naïve, où, cœur, «là-bas», façade… L’été dernier, à Besançon, "
    "nous avons mangé des pâtes très épicées.\n",
}


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        *(("ru", name) for name in ("cp1251", "koi8-r", "cp866", "iso8859-5", "utf-16-le")),
        ("el", "cp1253"),
        ("el", "iso8859-7"),
        ("he", "cp1255"),
        *(("ru", name) for name in ("mac_cyrillic", "cp855", "utf-32-le", "utf-32-be")),
        ("ar", "cp1256"),
        ("ar", "iso8859-6"),
        ("th", "cp874"),
        ("th", "utf-16-be"),
        ("ar", "utf-16-le"),
        *(("ja", name) for name in ("shift_jis", "euc-jp", "iso2022-jp", "utf-16-be")),
        ("katakana", "shift_jis"),
        ("zh", "gb18030"),
        ("zh", "gbk"),
        ("zht", "big5"),
        *(("ko", name) for name in ("euc-kr", "johab", "iso2022-kr")),
        ("pl", "cp852"),
        ("pl", "cp1250"),
        ("pl", "iso8859-2"),
        ("cs", "cp1250"),
        ("cs", "iso8859-2"),
        *(("tr", name) for name in ("cp1254", "iso8859-9", "cp857")),
        ("de", "cp1252"),
        *(("de", name) for name in ("cp850", "mac_roman")),
        ("fr", "cp1252"),
        ("de", "utf-16-le"),
    ],
)
@pytest.mark.parametrize("before", ["", "int main(void) { return 0; } /* plain */\n" * 300])
def test_encodings_are_detected_by_content(language: str, encoding: str, before: str) -> None:
    text = before + SENTENCES[language] * 2
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize("language", ["zh", "zht", "ja", "ko"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark(language: str, encoding: str) -> None:
    text = "".join(f"{n}: {SENTENCES[language]}" for n in range(200))
    assert decode_text(text.encode(encoding)) == text


def test_only_part_of_a_large_file_is_probed() -> None:
    text = SENTENCES["ru"] * 30_000
    started = time.monotonic()
    assert decode_text(text.encode("koi8-r")) == text
    assert time.monotonic() - started < 5


def test_other_bytes_with_nuls_are_binary() -> None:
    random = Random(0)
    for data in (
        b"first line\0second line\0third\0" * 30,
        bytes(range(256)) * 4,
        struct.pack("<1000h", *range(1000)),
        struct.pack("<500d", *(n / 7 for n in range(500))),
        b"\0" + random.randbytes(4000),
    ):
        assert is_binary(data)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Широкая электрификация", "cp1251"),
        # chardet/chardet: capital İ, which lower() makes two characters
        ("İstanbul için İmar planı İnşaat Kurulu'na gönderildi. İşçilerin ücreti arttı", "cp1254"),
        ("Összefoglaló: a honosító műhely hírei, őszi árak és új fordítások", "iso8859_2"),
        ("Largo não é opção; São João, ações, canções e corações", "latin-1"),
        ("it costs £5, then £7 more", "cp1252"),
        ("It can’t be “undone” – the file’s gone", "mac_roman"),
        ("Это «Мир», – сказал Пётр. Что ж… да!", "cp1251"),
    ],
)
def test_short_texts(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == text


def test_windows_quotes() -> None:
    assert decode_text(b"\x93quoted\x94 \x96 dash") == "“quoted” – dash"


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-01 INFO start\n" * 5 + "\0\0\0\0" + "2025-01-01 ERROR disk 4711 full\n",
        "\0" * 9_000 + "The log goes on here.\n",  # logrotate, copytruncate
        "The last lines before the power went.\n" + "\0" * 4096,
        "one stray NUL in the mid\0dle of a line that is long enough\n",
        "Größe: 12 µm\nfaçade\0 naïve, ein wenig länger\n",
        "Запасная лампа стоит в кладовой\0 за второй дверью налево.\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "cp1251", "cp1252", "utf-8-sig"])
def test_a_stray_nul_costs_itself_only(text: str, encoding: str) -> None:
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        return
    assert decode_text(data) == re.sub("\0+", "\ufffd", text)


def test_a_stray_nul_in_utf16_costs_itself_only() -> None:
    text = "one stray NUL in the mid\0dle of a line that is long enough\n"
    assert decode_text(text.encode("utf-16")) == text.replace("\0", "\ufffd")


def test_utf16_that_was_added_to_a_log_is_read() -> None:
    # What PowerShell's >> does
    log = b"started at noon\n" * 20 + "error: no space left\r\n".encode("utf-16-le")
    assert decode_text(log) == "started at noon\n" * 20 + "error: no space left\n"
    log = b"started at noon\n" * 20 + "error: no space left\n".encode("utf-16-be")
    assert decode_text(log) == "started at noon\n" * 20 + "error: no space left\n"


def test_utf16_without_a_mark_is_no_text_with_nuls() -> None:
    text = "Two only know of it.\n" * 3
    for encoding in ("utf-16-le", "utf-16-be"):
        assert decode_text(text.encode(encoding)) == text


def test_a_lone_surrogate_costs_itself_only() -> None:
    text = "a message of a program, cut in an emoji: "
    data = ("\ufeff" + text).encode("utf-16-le") + b"\x3d\xd8" + "!\n".encode("utf-16-le")
    assert decode_text(data) == text + "\ufffd!\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\r\nb\r\n\r\nd", "a\nb\n\nd"),
        (b"line one\r\r\nline two\r\r\nERROR three\r\r\n", "line one\nline two\nERROR three\n"),
        (b"an old Mac\rwrote\rthese lines\r", "an old Mac\nwrote\nthese lines\n"),
        (b"an old Mac\rwrote these\rlines, not the last\n", None),
        (b"name,share\rAlice,50%\rBob,60%\rCarol,70%\n", None),
        (b"first\n\rsecond\n\rthird", "first\n second\n third"),
        # One that ends no line: the lines are those of grep -n and git.
        (b"a\r\nb\rc\n\r\nd", "a\nb c\n\nd"),
        (b"a\x0cb\x0bc\x1cd\xc2\x85e\xe2\x80\xa8f\n", "a\x0cb\x0bc\x1cd\x85e\u2028f\n"),
    ],
)
def test_line_ends_become_unix(data: bytes, text: str | None) -> None:
    expected = data.decode().replace("\r", "\n") if text is None else text
    assert decode_text(data) == expected


def test_one_bad_byte_loses_nothing_else() -> None:
    data = "Grüße aus Zürich".encode() + b"\xff"
    assert decode_text(data) == "Grüße aus Zürich\ufffd"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"text\0text", "binary"),
        (b"\xff\xfeH\x00i", "has a UTF-16 byte order mark"),
        (b"\xef\xbb\xbf\xff\xff", "has a UTF-8 byte order mark"),
        ("a\0b".encode("utf-16"), "binary"),
        (bytes(range(1, 256)), "unknown text encoding"),
        (bytes(Random(0).choices(range(0x80, 0x100), k=300)), "unknown text encoding"),
    ],
)
def test_what_is_not_text_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode_text(data)
