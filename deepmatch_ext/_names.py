"""Names in the characters that Keras, TensorFlow and files take."""

from __future__ import annotations

import re
import zlib


def plain_name(name: str, also: str = "", prefix: str = "") -> str:
    """``name`` in ASCII letters, digits, underscores and what is in ``also``; different names give different ones.

    Args:
        name: Any text.
        also: Further characters that may stay, as in a regular expression's ``[...]``.
        prefix: Put in front of the name.

    Example:
        >>> plain_name("user id")
        'user_id_f8c3fcf8'
    """
    plain = prefix + re.sub(rf"[^A-Za-z0-9_{also}]", "_", name)
    return name if plain == name else f"{plain}_{zlib.crc32(name.encode(errors='surrogatepass')):08x}"
