"""Unique identifiers: made of what an object is made of, and told to people without being told."""

from __future__ import annotations

import hashlib

__all__ = ["derived_uid", "fingerprint"]


def derived_uid(*made_of: object) -> str:
    """A UID (PS3.5 annex B.2, root 2.25) that is the same for the same ingredients, whenever and wherever it is made.

    Args:
        made_of: what the object is made of, such as the UIDs of its sources, their values and the settings; at least
            one of them must be unique in itself.
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in made_of).encode()).digest()
    number = bytearray(digest[:16])
    number[6] = number[6] & 0x0F | 0x50  # a name-based UUID, RFC 9562 section 5.5
    number[8] = number[8] & 0x3F | 0x80
    return f"2.25.{int.from_bytes(number, 'big')}"


def fingerprint(uid: str) -> str:
    """Eight hexadecimal digits by which a user can name a series where its UID must not be written."""
    return hashlib.sha256(str(uid).encode()).hexdigest()[:8]
