"""Flyway's checksum as its source computes it, transcribed step by step: the second opinion on ours.

github.com/flyway/flyway, flyway-core/src/main/java/org/flywaydb/core/internal/resolver/ChecksumCalculator.java:
``calculateChecksumForResource`` reads the file as UTF-8 by ``java.io.BufferedReader.readLine()``, takes a byte order
mark from the first line (``internal/util/BomFilter``), and feeds each line's UTF-8 bytes to ``java.util.zip.CRC32``,
whose value it casts to a signed ``int``. ``StringUtils.trimLineBreak`` finds nothing to trim behind ``readLine``.
"""

from __future__ import annotations

from collections.abc import Iterator


def checksum(content: bytes) -> int:
    """The checksum of a file's content."""
    crc = 0xFFFFFFFF
    for number, line in enumerate(_lines(content.decode("utf-8"))):
        if number == 0 and line[:1] == "\ufeff":
            line = line[1:]
        for byte in line.encode("utf-8"):
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    value = crc ^ 0xFFFFFFFF
    return value - 0x100000000 if value & 0x80000000 else value


def _lines(text: str) -> Iterator[str]:
    """``BufferedReader.readLine``: a line ends at line feed, carriage return, or both in this order (Java SE API)."""
    line, after_return, something = "", False, False
    for character in text:
        if character == "\n" and after_return:
            after_return = False
        elif character in "\r\n":
            yield line
            line, something = "", False
            after_return = character == "\r"
        else:
            line, something, after_return = line + character, True, False
    if something:
        yield line
