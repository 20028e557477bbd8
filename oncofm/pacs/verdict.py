"""What a peer said to an instance, and what that means."""

from dataclasses import dataclass

from oncofm.pacs.database import PENDING, REFUSED, SENT

_CLASS_MASK, _WARNING = 0xF000, 0xB000
"""Stored, with something coerced or left out (PS3.4 B.2.3, PS3.7 annex C)."""
_DUPLICATE = 0x0111
"""It has an instance of that UID, which follows from what the instance says."""
_NOT_SUPPORTED = 0x0122
_MASK, _MISMATCH = 0xFF00, 0xA900
_PASSING_HTTP = (408, 425, 429)


@dataclass(frozen=True)
class Verdict:
    """How sending an instance ended.

    Attributes
    ----------
    state : str
        ``sent``, ``pending`` if it may work later, or ``refused``.
    status : str
        The peer's status, for example ``A900`` or ``HTTP 415``.
    message : str
        A sentence, unless it was sent.
    """

    state: str
    status: str = ""
    message: str = ""


def judge_status(status: int) -> Verdict:
    """Judge a C-STORE status (PS3.4 table B.2-1, PS3.7 annex C)."""
    text = f"{status:04X}"
    if status in (0, _DUPLICATE) or status & _CLASS_MASK == _WARNING:
        return Verdict(SENT, text)
    if status & _MASK == _MISMATCH or status == _NOT_SUPPORTED:
        return Verdict(REFUSED, text, f"The peer refuses the instance with status {text}.")
    return Verdict(PENDING, text, f"The peer could not store the instance (status {text}).")


def judge_http(code: int) -> Verdict:
    """Judge a status of HTTP: 4xx is for good, but for those that ask for patience."""
    text = f"HTTP {code}"
    if 200 <= code < 300:
        return Verdict(SENT, text)
    if 400 <= code < 500 and code not in _PASSING_HTTP:
        return Verdict(REFUSED, text, f"The server refuses the instance ({text}).")
    return Verdict(PENDING, text, f"The server could not store the instance ({text}).")
