"""Digests of texts that are secret or come from strangers, as keys of tables. Pure."""

from __future__ import annotations

import hashlib


def keyed(key: bytes, *parts: str) -> bytes:
    """Of all ``parts``, each for itself; without ``key``, a secret of this process, nobody can try what they were.

    >>> keyed(b"k", "ab", "c") == keyed(b"k", "a", "bc")
    False
    """
    digest = hashlib.blake2b(key=key, digest_size=32)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(data), data))
    return digest.digest()
