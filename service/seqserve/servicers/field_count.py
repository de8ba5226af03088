"""How many fields a message has, told from its bytes, before anything is made of each.

A message of a few megabytes can have millions of empty parts, of which the parser makes objects of
a hundred bytes each, all at once and on the event loop.

Source: the protobuf encoding, https://protobuf.dev/programming-guides/encoding
"""

from google.protobuf.descriptor import Descriptor

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_CONTINUES = 0x80


def count_fields(data: bytes, descriptor: Descriptor, most: int) -> int:
    """Counts the fields of a message and of the messages in it.

    Args:
        data: Its bytes. Where they are no message, what comes before counts.
        descriptor: Its type.
        most: After so many it does not go on.

    Returns:
        The number, or one more than ``most``.
    """
    num_fields = 0
    parts: list[tuple[int, int, Descriptor]] = [(0, len(data), descriptor)]
    while parts:
        position, end, descriptor = parts.pop()
        messages = {
            field.number: field.message_type for field in descriptor.fields if field.message_type
        }
        while position < end:
            num_fields += 1
            if num_fields > most:
                return num_fields
            tag, position = _read_varint(data, position, end)
            kind = tag & 7
            if kind == _VARINT:
                _, position = _read_varint(data, position, end)
            elif kind == _LENGTH:
                length, position = _read_varint(data, position, end)
                inner = messages.get(tag >> 3)
                if inner is not None and length:
                    parts.append((position, min(position + length, end), inner))
                position += length
            elif kind == _FIXED64:
                position += 8
            elif kind == _FIXED32:
                position += 4
            else:
                break  # groups are not ours; the parser says what is wrong
    return num_fields


def _read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number and the position behind it."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & ~_CONTINUES) << shift
        if not byte & _CONTINUES:
            break
        shift += 7
        if shift > 63:
            return 0, end
    return value, position
