"""Suggest what a misspelt word may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: object, among: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the candidate most like a word, None if none is like it.

    Args:
        word: what was written; case does not count.
        among: what could have been meant.
        cutoff: how alike they must be, from 0 (anything) to 1 (equal); default 0.6. See `difflib.get_close_matches`.
    """
    candidates = {candidate.lower(): candidate for candidate in among}
    found = difflib.get_close_matches(str(word).lower(), candidates, n=1, cutoff=cutoff)
    return candidates[found[0]] if found else None


def did_you_mean(word: object, among: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `; did you mean x?` for the candidate most like a word, an empty text if none is like it.

    Args:
        word: what was written; case does not count.
        among: what could have been meant.
        cutoff: how alike they must be, from 0 (anything) to 1 (equal); default 0.6.
    """
    found = nearest(word, among, cutoff=cutoff)
    return "" if found is None else f"; did you mean {found}?"
