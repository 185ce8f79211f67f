"""``--chown`` and ``--chmod`` of COPY and ADD (rows CPY-12, CPY-13)."""

from __future__ import annotations

from builder.llb.ops import ChownOpt, UserOpt

_WHO, _HOW, _WHAT = frozenset("ugoa"), frozenset("+-="), frozenset("rwxXst")


def parse_chown(text: str, position: int) -> ChownOpt | None:
    """``user[:group]``; names are looked up in the tree at input ``position``.

    A lone number is also the group's; a lone name means its own primary group, which is left to whoever reads
    the passwd file (``group`` None).
    """
    if not text:
        return None
    user_text, colon, group_text = text.partition(":")
    user = _principal(user_text, position) if user_text else UserOpt(id=0)
    if colon and group_text:
        return ChownOpt(user=user, group=_principal(group_text, position))
    return ChownOpt(user=user, group=None if user.name else UserOpt(id=user.id))


def _principal(text: str, position: int) -> UserOpt:
    if text.isascii() and text.isdigit() and len(text) < 11:
        return UserOpt(id=int(text))
    return UserOpt(name=text, input=position)


def needs_names(text: str) -> bool:
    """Whether a ``--chown`` value holds a name."""
    return any(part and not (part.isascii() and part.isdigit()) for part in text.split(":", 1))


def parse_chmod(text: str) -> tuple[int, str]:
    """``(mode, "")`` for an octal mode, ``(-1, text)`` for a symbolic one; raises ValueError."""
    if not text:
        return -1, ""
    if text[0].isdigit():
        if len(text) <= 6 and all(c in "01234567" for c in text) and int(text, 8) <= 0o7777:
            return int(text, 8), ""
    elif all(_is_clause(clause) for clause in text.split(",")):
        return -1, text
    raise ValueError(
        f"invalid chmod parameter: '{text[:80]}'. it should be octal string and between 0 and 07777"
    )


def _is_clause(clause: str) -> bool:
    """``[ugoa]*([-+=][rwxXst]*|[-+=][ugo])+``."""
    rest = clause.lstrip("ugoa")
    if not rest or rest[0] not in _HOW:
        return False
    for part in rest.replace("-", "+").replace("=", "+").split("+")[1:]:
        if not (_WHAT.issuperset(part) or part in ("u", "g", "o")):
            return False
    return True
