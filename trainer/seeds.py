"""Counters instead of generator states: every random draw names what it is for."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed that is a pure function of the parts, equal on every machine.

    Two different lists of parts give unrelated seeds, so a resumed run, another number of
    workers or another number of processes draws the very same numbers.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    # A photo's name need not be UTF-8.
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
