"""Maps character codes of PDF text to Unicode and CIDs: CMaps in the file and predefined ones.

Embedded CMaps follow Adobe Technical Note 5014 and ISO 32000-2, 9.7.5 and 9.10.3. The predefined
CMaps for Chinese, Japanese and Korean name a legacy or Unicode encoding (ISO 32000-2, table 116),
and Python's codecs decode these.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MAX_ENTRIES = 200_000
_MAX_TEXT_BYTES = 512

_TOKEN = re.compile(
    rb"%[^\r\n]*|<<|>>|<(?P<hex>[0-9A-Fa-f\s]*)>|[\[\]]|\((?:\\.|[^\\)])*\)"
    rb"|/[^\s<>\[\]()/%]*|[^\s<>\[\]()/%]+"
)


@dataclass
class CMap:
    """A parsed CMap: texts or CIDs by character code."""

    texts: dict[int, str] = field(default_factory=dict)
    cids: dict[int, int] = field(default_factory=dict)
    spaces: list[tuple[int, int, int]] = field(default_factory=list)
    """Code space ranges: length in bytes, lowest and highest code."""
    base: str | None = None
    """The name of the CMap that this one extends."""
    vertical: bool = False

    def codes(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield the length and value of each code in a string."""
        lengths = sorted({length for length, _, _ in self.spaces}) or [2]
        at = 0
        while at < len(data):
            for length in lengths:
                code = int.from_bytes(data[at : at + length])
                if any(
                    length == size and _within(code, low, high, size)
                    for size, low, high in self.spaces
                ):
                    break
            else:
                length = lengths[0]
                code = int.from_bytes(data[at : at + length])
            yield length, code
            at += length


def _within(code: int, low: int, high: int, size: int) -> bool:
    """Whether every byte of a code is within the range's bytes."""
    return all(
        low >> shift & 255 <= code >> shift & 255 <= high >> shift & 255
        for shift in range(0, 8 * size, 8)
    )


def parse_cmap(data: bytes) -> CMap:
    """Parse an embedded CMap; what is damaged or over ``MAX_ENTRIES`` is left out."""
    cmap = CMap()
    section = b""
    operands: list[bytes | list[bytes]] = []
    array: list[bytes] | None = None
    last = b""
    for match in _TOKEN.finditer(data):
        token = match[0]
        if token.startswith(b"%"):
            continue
        if match["hex"] is not None:
            digits = b"".join(match["hex"].split())
            value = bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode())
            (operands if array is None else array).append(value)
        elif token == b"[":
            array = []
        elif token == b"]":
            if array is not None:
                operands.append(array)
            array = None
        elif token.startswith(b"begin"):
            section, operands, array = token[5:], [], None
        elif token.startswith(b"end"):
            _add(cmap, section, operands)
            section, operands, array = b"", [], None
        elif token == b"usecmap":
            cmap.base = last.decode("latin-1")
        elif token == b"def" and last == b"1" and b"/WMode" in data[: match.start()][-20:]:
            cmap.vertical = True
        elif section in (b"cidrange", b"cidchar") and token.isdigit():
            operands.append(int(token[:9]).to_bytes(4))
        last = token
    _add(cmap, section, operands)
    return cmap


def _add(cmap: CMap, section: bytes, operands: list[bytes | list[bytes]]) -> None:
    width = {b"bfchar": 2, b"cidchar": 2, b"codespacerange": 2, b"bfrange": 3, b"cidrange": 3}
    step = width.get(section)
    if step is None:
        return
    for at in range(0, len(operands) - step + 1, step):
        low, *rest = operands[at : at + step]
        if not isinstance(low, bytes) or not 0 < len(low) <= 4:
            continue
        first = int.from_bytes(low)
        if section == b"codespacerange" and isinstance(rest[0], bytes):
            cmap.spaces.append((len(low), first, int.from_bytes(rest[0])))
        elif section == b"bfchar" and isinstance(rest[0], bytes):
            cmap.texts[first] = _text(rest[0])
        elif section == b"cidchar" and isinstance(rest[0], bytes):
            cmap.cids[first] = int.from_bytes(rest[0])
        elif step == 3 and isinstance(rest[0], bytes):
            _add_range(cmap, section, first, int.from_bytes(rest[0]), rest[1])
        if len(cmap.texts) + len(cmap.cids) > MAX_ENTRIES:
            return


def _add_range(cmap: CMap, section: bytes, first: int, end: int, to: bytes | list[bytes]) -> None:
    count = min(end - first + 1, MAX_ENTRIES - len(cmap.texts) - len(cmap.cids))
    if isinstance(to, list):
        for offset, value in enumerate(to[: max(count, 0)]):
            cmap.texts[first + offset] = _text(value)
    elif section == b"cidrange":
        cid = int.from_bytes(to)
        cmap.cids.update((first + offset, cid + offset) for offset in range(count))
    elif to:
        # The last code unit counts up.
        head, unit = to[:-2], int.from_bytes(to[-2:])
        size = len(to[-2:])
        for offset in range(min(count, 0x10000 - unit)):
            cmap.texts[first + offset] = _text(head + (unit + offset).to_bytes(2)[-size:])


def _text(value: bytes) -> str:
    if len(value) == 1:
        return value.decode("latin-1")
    return value[:_MAX_TEXT_BYTES].decode("utf-16-be", "replace")


def _by_lead(low: int, high: int = 0xFF) -> Callable[[bytes, int], int]:
    return lambda data, at: 2 if low <= data[at] <= high else 1


def _euc(data: bytes, at: int) -> int:
    return 3 if data[at] == 0x8F else 2 if data[at] >= 0x8E else 1


def _shift_jis(data: bytes, at: int) -> int:
    return 2 if 0x81 <= data[at] <= 0x9F or 0xE0 <= data[at] <= 0xFC else 1


def _gb18030(data: bytes, at: int) -> int:
    if data[at] < 0x81:
        return 1
    return 4 if data[at + 1 : at + 2].isdigit() else 2


def _utf8(data: bytes, at: int) -> int:
    lead = data[at]
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _utf16(data: bytes, at: int) -> int:
    return 4 if 0xD8 <= data[at] <= 0xDB else 2


@dataclass(frozen=True)
class LegacyEncoding:
    """A codec behind predefined CMaps."""

    codec: str
    length: Callable[[bytes, int], int]
    """The length of the code at an index of a string."""
    seven_bits: bool = False
    """Whether codes are those of the codec without their high bits."""

    def codes(self, data: bytes) -> Iterator[bytes]:
        """Yield the codes in a string."""
        at = 0
        while at < len(data):
            length = self.length(data, at)
            yield data[at : at + length]
            at += length

    def text(self, code: bytes) -> str | None:
        """Return the text of a code; None if it has none."""
        if self.seven_bits:
            code = bytes(byte | 0x80 for byte in code)
        try:
            return code.decode(self.codec)
        except UnicodeDecodeError:
            return None


def _two(_data: bytes, _at: int) -> int:
    return 2


_ENCODINGS: tuple[tuple[str, LegacyEncoding], ...] = (
    (r".*-UCS2-(HW-)?[HV]", LegacyEncoding("utf-16-be", _two)),
    (r".*-UTF16-[HV]", LegacyEncoding("utf-16-be", _utf16)),
    (r".*-UTF8-[HV]", LegacyEncoding("utf-8", _utf8)),
    (r".*-UTF32-[HV]", LegacyEncoding("utf-32-be", lambda _data, _at: 4)),
    (r"(78-|Add-|Ext-|NWP-)?[HV]", LegacyEncoding("euc_jp", _two, seven_bits=True)),
    (r"(78-)?EUC-[HV]", LegacyEncoding("euc_jp", _euc)),
    (r"(.*-)?RKSJ-[HV]", LegacyEncoding("cp932", _shift_jis)),
    (r"GBK2K-[HV]", LegacyEncoding("gb18030", _gb18030)),
    (r"GBT?-[HV]", LegacyEncoding("gbk", _two, seven_bits=True)),
    (r"GB(T|K|Kp|pc|Tpc)?-EUC-[HV]", LegacyEncoding("gbk", _by_lead(0x81, 0xFE))),
    (r"HK.*-B5-[HV]", LegacyEncoding("big5hkscs", _by_lead(0x81, 0xFE))),
    (r"B5pc-[HV]", LegacyEncoding("big5hkscs", _by_lead(0xA1, 0xFC))),
    (r"(ETen-|ETenms-)?B5-[HV]", LegacyEncoding("cp950", _by_lead(0x81, 0xFE))),
    (r"KSC-[HV]", LegacyEncoding("cp949", _two, seven_bits=True)),
    (r"KSC-Johab-[HV]", LegacyEncoding("johab", _by_lead(0x81, 0xFE))),
    (r"KSCpc-EUC-[HV]", LegacyEncoding("cp949", _by_lead(0xA1, 0xFD))),
    (r"KSC(-EUC|ms-UHC)(-HW)?-[HV]", LegacyEncoding("cp949", _by_lead(0x81, 0xFE))),
)


def predefined_encoding(name: str) -> LegacyEncoding | None:
    """Return the encoding of a predefined CMap, such as ``90ms-RKSJ-H``.

    None stands for CMaps that no codec covers: ``Identity``, CNS 11643 and those by CID.
    """
    for pattern, encoding in _ENCODINGS:
        if re.fullmatch(pattern, name):
            return encoding
    return None
