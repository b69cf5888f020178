"""Packed weights in registers: loading their blocks and unpacking them.

A thread takes a unit: 16 bytes of quants, or several times 16 that share scales or higher bits.
Each part of a unit is 16 consecutive weights of a row, which have one scale and one shift: a weight
is ``value * scale + shift``. Neighbouring parts with the same scale are pieces of a run.

Products take a part as words [units, 4] of four integers each. Unpacking takes it as four tensors
[units, 4]: the first weights of each four, the second ones and so on, from the bytes of a word.

``gguf_blocks`` defines the formats. A matrix is stored in planes (see ``gguf_blocks.to_planes``),
or block after block where BLOCKS, its number of blocks, is given as 0.
"""

import triton
import triton.language as tl

from hga_kernels.gguf_blocks import FORMATS, IQ4_VALUES

_WITH_MINIMA = ("Q4_K", "Q5_K")
WIDE = ("Q2_K", "Q3_K", "Q6_K", *_WITH_MINIMA)
"""Formats whose units have 64 weights; those of others have 32."""
KINDS = (*(name for name in FORMATS if name != "F16"),)
"""Formats that the kernels unpack."""


@triton.constexpr_function
def parts_of(name: str) -> int:
    """Return the parts of a unit."""
    return 4 if name in WIDE else 2


@triton.constexpr_function
def unit_of(name: str) -> int:
    """Return the weights of a unit."""
    return 64 if name in WIDE else 32


@triton.constexpr_function
def pieces_of(name: str) -> int:
    """Return the parts of a run, which share their scale."""
    return 2 if name in _WITH_MINIMA else 1


@triton.constexpr_function
def size_of(name: str) -> int:
    """Return the weights of a block."""
    return FORMATS[name].size


@triton.constexpr_function
def bytes_of(name: str) -> int:
    """Return the bytes of a block."""
    return FORMATS[name].bytes


@triton.constexpr_function
def _start(name: str, field: int) -> int:
    return sum(FORMATS[name].fields[:field])


@triton.constexpr_function
def _length(name: str, field: int) -> int:
    return FORMATS[name].fields[field]


@triton.constexpr_function
def _plane(name: str, field: int) -> int:
    """Return where the plane of a field starts, in bytes per block of the matrix."""
    planes = FORMATS[name].planes
    start = sum(FORMATS[name].fields[:field])
    before = planes[: [offset for offset, _ in planes].index(start)]
    return sum(size for _, size in before)


@triton.constexpr_function
def _iq4_values(first: int) -> int:
    """Return eight of the values as the bytes of one number."""
    values = IQ4_VALUES[first : first + 8]
    return int.from_bytes(bytes(value % 256 for value in values), "little", signed=True)


@triton.jit
def _field(w_ptr, block, FIELD: tl.constexpr, FORMAT: tl.constexpr, BLOCKS: tl.constexpr):
    if BLOCKS == 0:
        return w_ptr + block * bytes_of(FORMAT) + _start(FORMAT, FIELD)
    return w_ptr + BLOCKS * _plane(FORMAT, FIELD) + block * _length(FORMAT, FIELD)


@triton.jit
def _number(pointer, mask, TYPE: tl.constexpr, MASKED: tl.constexpr):
    pointer = pointer.to(tl.pointer_type(TYPE), bitcast=True)
    if MASKED:
        return tl.load(pointer, mask=mask, other=0)
    return tl.load(pointer)


@triton.jit
def _word(pointer, mask, MASKED: tl.constexpr, BLOCKS: tl.constexpr):
    """Load 4 bytes; outside of planes, only 2 of them are aligned."""
    if BLOCKS == 0:
        low = _number(pointer, mask, tl.uint16, MASKED).to(tl.int32)
        return low | _number(pointer + 2, mask, tl.uint16, MASKED).to(tl.int32) << 16
    return _number(pointer, mask, tl.int32, MASKED)


@triton.jit
def load_words(pointer, mask, MASKED: tl.constexpr, BLOCKS: tl.constexpr):
    """Load 16 bytes at each of some addresses, as [units, 4] words."""
    words = tl.arange(0, 4)[None, :]
    if BLOCKS == 0:
        return _word(pointer[:, None] + words * 4, mask[:, None], MASKED, BLOCKS)
    pointer = pointer.to(tl.pointer_type(tl.int32), bitcast=True)
    pointer = tl.multiple_of(pointer, 16)[:, None] + words
    if MASKED:
        return tl.load(pointer, mask=mask[:, None], other=0)
    return tl.load(pointer)


@triton.jit
def _half(bits):
    """Return the float16 in the low 16 bits of an int32."""
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def nothing():
    """Return an empty tuple, to which others are added."""
    return ()


@triton.jit
def split_words(words):
    """Return the columns [units] of words [units, 4]."""
    even, odd = tl.split(tl.reshape(words, [words.shape[0], 2, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def load_units(
    w_ptr, block, within, mask, FORMAT: tl.constexpr, BLOCKS: tl.constexpr, MASKED: tl.constexpr
):
    """Load the ``within``-th units of some blocks of a matrix, zero where ``mask`` is false.

    Args: ``block``, ``within`` and ``mask``: [units].
    """
    found = nothing()
    if FORMAT == "Q4_K" or FORMAT == "Q5_K":
        header = _field(w_ptr, block, 0, FORMAT, BLOCKS)
        quants = _field(w_ptr, block, 1 if FORMAT == "Q4_K" else 2, FORMAT, BLOCKS)
        quants += within * 32
        low = load_words(quants, mask, MASKED, BLOCKS)
        more = load_words(quants + 16, mask, MASKED, BLOCKS)
        # d and dmin, then the scales and minima of sub-blocks.
        header = split_words(load_words(header, mask, MASKED, BLOCKS))
        if FORMAT == "Q5_K":
            high = _field(w_ptr, block, 1, FORMAT, BLOCKS)
            others = load_words(high + 16, mask, MASKED, BLOCKS)
            high = load_words(high, mask, MASKED, BLOCKS)
            found = low, more, header, high, others
        else:
            found = low, more, header
    elif FORMAT == "Q6_K":
        # Halves of a block have 64 bytes of low bits, 32 of high bits and 8 scales.
        half, place = within // 2, within % 2 * 16
        low = _field(w_ptr, block, 0, FORMAT, BLOCKS) + half * 64 + place
        high = _field(w_ptr, block, 1, FORMAT, BLOCKS) + half * 32 + place
        scales = _field(w_ptr, block, 2, FORMAT, BLOCKS) + half * 8
        found = (
            load_words(low, mask, MASKED, BLOCKS),
            load_words(low + 32, mask, MASKED, BLOCKS),
            load_words(high, mask, MASKED, BLOCKS),
            _word(scales, mask, MASKED, BLOCKS),
            _word(scales + 4, mask, MASKED, BLOCKS),
            _number(_field(w_ptr, block, 3, FORMAT, BLOCKS), mask, tl.float16, MASKED),
        )
    elif FORMAT == "Q2_K":
        half = within // 2
        quants = _field(w_ptr, block, 1, FORMAT, BLOCKS) + half * 32 + within % 2 * 16
        scales = _field(w_ptr, block, 0, FORMAT, BLOCKS) + half * 8
        found = (
            load_words(quants, mask, MASKED, BLOCKS),
            _word(scales, mask, MASKED, BLOCKS),
            _word(scales + 4, mask, MASKED, BLOCKS),
            _word(_field(w_ptr, block, 2, FORMAT, BLOCKS), mask, MASKED, BLOCKS),
        )
    elif FORMAT == "Q3_K":
        place = within % 2 * 16
        quants = _field(w_ptr, block, 1, FORMAT, BLOCKS) + within // 2 * 32 + place
        scales = _field(w_ptr, block, 2, FORMAT, BLOCKS)
        found = (
            load_words(quants, mask, MASKED, BLOCKS),
            load_words(_field(w_ptr, block, 0, FORMAT, BLOCKS) + place, mask, MASKED, BLOCKS),
            _word(scales, mask, MASKED, BLOCKS),
            _word(scales + 4, mask, MASKED, BLOCKS),
            _word(scales + 8, mask, MASKED, BLOCKS),
            _number(_field(w_ptr, block, 3, FORMAT, BLOCKS), mask, tl.float16, MASKED),
        )
    elif FORMAT == "IQ4_XS":
        header = _field(w_ptr, block, 0, FORMAT, BLOCKS)
        found = (
            load_words(_field(w_ptr, block, 1, FORMAT, BLOCKS) + within * 16, mask, MASKED, BLOCKS),
            _word(header, mask, MASKED, BLOCKS),
            _word(header + 4, mask, MASKED, BLOCKS),
        )
    elif FORMAT == "Q8_0":
        quants = _field(w_ptr, block, 1, FORMAT, BLOCKS)
        found = (
            load_words(quants, mask, MASKED, BLOCKS),
            load_words(quants + 16, mask, MASKED, BLOCKS),
            _number(_field(w_ptr, block, 0, FORMAT, BLOCKS), mask, tl.float16, MASKED),
        )
    else:
        # Q4_0, Q4_1, Q5_0, Q5_1 and IQ4_NL.
        IS_FIFTH: tl.constexpr = FORMAT == "Q5_0" or FORMAT == "Q5_1"
        scale = _field(w_ptr, block, 0, FORMAT, BLOCKS)
        quants = _field(w_ptr, block, 2 if IS_FIFTH else 1, FORMAT, BLOCKS)
        if FORMAT == "Q4_1" or FORMAT == "Q5_1":
            scale = _word(scale, mask, MASKED, BLOCKS)
        else:
            scale = _number(scale, mask, tl.float16, MASKED)
        low = load_words(quants, mask, MASKED, BLOCKS)
        if IS_FIFTH:
            high = _field(w_ptr, block, 1, FORMAT, BLOCKS)
            found = low, scale, _word(high, mask, MASKED, BLOCKS)
        else:
            found = low, scale
    return found


@triton.jit
def place_of(within, PART: tl.constexpr, FORMAT: tl.constexpr):
    """Return where in its block a part of a unit begins, in weights."""
    if FORMAT == "Q4_K" or FORMAT == "Q5_K":
        found = within * 64 + PART * 16
    elif unit_of(FORMAT) == 64:
        found = within // 2 * 128 + PART * 32 + within % 2 * 16
    else:
        found = within * 32 + PART * 16
    return found


@triton.jit
def _bits(word, AT: tl.constexpr, WIDTH: tl.constexpr, TO: tl.constexpr):
    """Return the bits of a word from AT on, moved to TO."""
    moved = word << (TO - AT) if TO > AT else word >> (AT - TO)
    return moved & (((1 << WIDTH) - 1) << TO)


@triton.jit
def _number_of(bits, WIDTH: tl.constexpr):
    """Return ``2**WIDTH`` plus a number of so many bits that begin at bit 23 - WIDTH, as float32.

    They become the mantissa: converting integers is slow.
    """
    return (bits | (127 + WIDTH) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _iq4(nibbles):
    shift = (nibbles & 7).to(tl.int64) * 8
    values = tl.where(nibbles < 8, _iq4_values(0), _iq4_values(8))
    return (values >> shift).to(tl.int8).to(tl.float32)


@triton.jit
def _values(units, within, BYTE: tl.constexpr, PART: tl.constexpr, FORMAT: tl.constexpr):
    """Return ``values_of`` one byte of each word, [units, 4]."""
    NIBBLE: tl.constexpr = BYTE * 8 + PART * 4
    HALF: tl.constexpr = BYTE * 8 + PART // 2 * 4
    if FORMAT == "Q4_0" or FORMAT == "Q4_1":
        found = _number_of(_bits(units[0], NIBBLE, 4, 19), 4)
    elif FORMAT == "Q4_K":
        found = _number_of(_bits(units[PART % 2], HALF, 4, 19), 4)
    elif FORMAT == "Q5_K":
        high = units[3 + PART % 2] >> (within * 2 + PART // 2)[:, None]
        found = _number_of(_bits(units[PART % 2], HALF, 4, 18) | _bits(high, BYTE * 8, 1, 22), 5)
    elif FORMAT == "Q5_0" or FORMAT == "Q5_1":
        high = units[2][:, None] >> (tl.arange(0, 4) * 4 + PART * 16)[None, :]
        found = _number_of(_bits(units[0], NIBBLE, 4, 18) | _bits(high, BYTE, 1, 22), 5)
    elif FORMAT == "Q6_K":
        low = _bits(units[PART % 2], HALF, 4, 17)
        found = _number_of(low | _bits(units[2], BYTE * 8 + PART * 2, 2, 21), 6)
    elif FORMAT == "Q2_K":
        found = _number_of(_bits(units[0], BYTE * 8 + PART * 2, 2, 21), 2)
    elif FORMAT == "Q3_K":
        high = units[1] >> (within // 2 * 4 + PART)[:, None]
        low = _bits(units[0], BYTE * 8 + PART * 2, 2, 20)
        found = _number_of(low | _bits(high, BYTE * 8, 1, 22), 3)
    elif FORMAT == "Q8_0":
        # From -128..127 to 0..255.
        found = _number_of(_bits(units[PART] ^ -0x7F7F7F80, BYTE * 8, 8, 15), 8)
    else:
        # IQ4_NL and IQ4_XS.
        found = _iq4(units[0] >> NIBBLE & 15)
    return found


@triton.constexpr_function
def _bias_of(name: str) -> int:
    """Return what the values have too much."""
    widths = {"Q2_K": 2, "Q3_K": 3, "Q5_0": 5, "Q5_1": 5, "Q5_K": 5, "Q6_K": 6}
    if name in ("IQ4_NL", "IQ4_XS"):
        return 0
    return 256 + 128 if name == "Q8_0" else 2 ** widths.get(name, 4)


@triton.jit
def scale_and_shift(units, within, PART: tl.constexpr, FORMAT: tl.constexpr):
    """Return scales and shifts [units] of a part, float32."""
    if FORMAT == "Q4_K" or FORMAT == "Q5_K":
        factors, first, second, third = units[2]
        # Eight scales and minima of 6 bits: four whole ones, and four with their upper 2 bits
        # elsewhere. A unit has two of each.
        shift = within % 2 * 16 + PART // 2 * 8
        first, second, third = first >> shift, second >> shift, third >> shift
        scale = tl.where(within < 2, first & 63, third & 15 | first >> 2 & 48)
        minimum = tl.where(within < 2, second & 63, third >> 4 & 15 | second >> 2 & 48)
        scale = _half(factors) * scale.to(tl.float32)
        found = scale, -_half(factors >> 16) * minimum.to(tl.float32)
    elif FORMAT == "Q6_K":
        bits = units[3 + PART // 2] >> (PART % 2 * 16 + within % 2 * 8)
        scale = units[5].to(tl.float32) * bits.to(tl.int8).to(tl.float32)
        found = scale, -32 * scale
    elif FORMAT == "Q2_K":
        bits = units[1 + PART // 2] >> (PART % 2 * 16 + within % 2 * 8)
        scale = _half(units[3]) * (bits & 15).to(tl.float32)
        found = scale, -_half(units[3] >> 16) * (bits >> 4 & 15).to(tl.float32)
    elif FORMAT == "Q3_K":
        half = within // 2
        shift = PART % 2 * 16 + within % 2 * 8
        low = units[2 + PART // 2] >> (shift + half * 4) & 15
        upper = units[4] >> (shift + half * 4 + PART // 2 * 2) & 3
        scale = units[5].to(tl.float32) * ((low | upper << 4) - 32).to(tl.float32)
        found = scale, -4 * scale
    elif FORMAT == "IQ4_XS":
        low = units[2] >> (within * 4) & 15
        high = units[1] >> (within * 2 + 16) & 3
        scale = _half(units[1]) * ((low | high << 4) - 32).to(tl.float32)
        found = scale, 0 * scale
    elif FORMAT == "Q4_1" or FORMAT == "Q5_1":
        found = _half(units[1]), _half(units[1] >> 16)
    elif FORMAT == "Q8_0":
        scale = units[2].to(tl.float32)
        found = scale, 0 * scale
    else:
        # Q4_0, Q5_0 and IQ4_NL.
        scale = units[1].to(tl.float32)
        OFFSET: tl.constexpr = 16 if FORMAT == "Q5_0" else 8 if FORMAT == "Q4_0" else 0
        found = scale, -OFFSET * scale
    return found


@triton.jit
def unpack_part(units, within, PART: tl.constexpr, FORMAT: tl.constexpr):
    """Return values, four tensors [units, 4], and scales and shifts [units] of a part: float32."""
    scale, shift = scale_and_shift(units, within, PART, FORMAT)
    values = (
        _values(units, within, 0, PART, FORMAT),
        _values(units, within, 1, PART, FORMAT),
        _values(units, within, 2, PART, FORMAT),
        _values(units, within, 3, PART, FORMAT),
    )
    return values, scale, shift - _bias_of(FORMAT) * scale


@triton.constexpr_function
def factor_of(name: str, part: int) -> int:
    """Return what ``integers_of`` has multiplied the integers of a part by."""
    if name == "Q4_K":
        return (1, 1, 16, 16)[part]
    if name in ("Q4_0", "Q4_1"):
        return (1, 16)[part]
    if name == "Q6_K":
        return (1, 1, 1, 4)[part]
    return 4**part if name == "Q2_K" else 1


@triton.constexpr_function
def offset_of(name: str) -> int:
    """Return what the integers of a format have too much."""
    return {"Q4_0": 8, "Q5_0": 16, "Q6_K": 32, "Q3_K": 4}.get(name, 0)


@triton.constexpr_function
def is_signed(name: str) -> bool:
    """Tell whether the integers of a format are signed bytes."""
    return name in ("Q8_0", "IQ4_NL", "IQ4_XS")


@triton.constexpr_function
def has_shifts(name: str) -> bool:
    """Tell whether weights have a shift other than ``offset_of``."""
    return name in ("Q4_1", "Q5_1", "Q2_K", *_WITH_MINIMA)


@triton.constexpr_function
def _in_each(bits: int) -> int:
    """Return an int32 with these bits in every byte."""
    return int.from_bytes(bytes((bits,) * 4), "little", signed=True)


@triton.jit
def _each(words, AT: tl.constexpr, WIDTH: tl.constexpr, TO: tl.constexpr):
    """Return so many bits of every byte from AT on, moved to TO."""
    moved = words << (TO - AT) if TO > AT else words >> (AT - TO)
    return moved & _in_each(((1 << WIDTH) - 1) << TO)


@triton.jit
def integers_of(units, within, PART: tl.constexpr, FORMAT: tl.constexpr):
    """Return the integers of a part times ``factor_of``, as words [units, 4] of four bytes.

    The factor saves shifts: bits stay where they are.
    """
    if FORMAT == "Q4_0" or FORMAT == "Q4_1":
        found = _each(units[0], PART * 4, 4, PART * 4)
    elif FORMAT == "Q4_K":
        found = _each(units[PART % 2], PART // 2 * 4, 4, PART // 2 * 4)
    elif FORMAT == "Q5_K":
        high = units[3 + PART % 2] >> (within * 2 + PART // 2)[:, None]
        found = _each(units[PART % 2], PART // 2 * 4, 4, 0) | _each(high, 0, 1, 4)
    elif FORMAT == "Q5_0" or FORMAT == "Q5_1":
        four = units[2][:, None] >> (tl.arange(0, 4) * 4 + PART * 16)[None, :] & 15
        # Bit i moves to the lowest of byte i.
        found = _each(units[0], PART * 4, 4, 0) | _each(four * 0x00204081, 0, 1, 4)
    elif FORMAT == "Q6_K":
        TO: tl.constexpr = 2 if PART == 3 else 0
        low = _each(units[PART % 2], PART // 2 * 4, 4, TO)
        found = low | _each(units[2], PART * 2, 2, TO + 4)
    elif FORMAT == "Q2_K":
        found = _each(units[0], PART * 2, 2, PART * 2)
    elif FORMAT == "Q3_K":
        high = units[1] >> (within // 2 * 4 + PART)[:, None]
        found = _each(units[0], PART * 2, 2, 0) | _each(high, 0, 1, 2)
    elif FORMAT == "Q8_0":
        found = units[PART]
    else:
        # IQ4_NL and IQ4_XS.
        found = _iq4_byte(units[0], PART * 4, 0)
        for byte in tl.static_range(1, 4):
            found |= _iq4_byte(units[0], byte * 8 + PART * 4, byte)
    return found


@triton.jit
def _iq4_byte(words, NIBBLE: tl.constexpr, BYTE: tl.constexpr):
    nibbles = words >> NIBBLE & 15
    values = tl.where(nibbles < 8, _iq4_values(0), _iq4_values(8))
    value = (values >> ((nibbles & 7).to(tl.int64) * 8)).to(tl.int32) & 255
    return value << BYTE * 8
