"""The state that sizing reads: the records of an account, and the market at the close of the current bar."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class AccountState(NamedTuple):
    """An account and its market at the close of one bar, N symbols; valid until the account advances.

    A broker may hand out views of its own records, but none that can be written to.

    Attributes:
        account: `core.records.ACCOUNT`, (1,): cash, equity and so on, quote units.
        positions: `core.records.POSITION`, (N,): what is held, the lots of the orders that wait, and the target weight
            given last.
        closes: prices at which the account is marked, float64 (N,), quote units; NaN where a symbol is not listed.
        eligible: bool (N,), the symbols whose position may grow.
        opening_equity: equity at the beginning of the UTC day in which the bar closes, quote units.
    """

    account: np.ndarray
    positions: np.ndarray
    closes: np.ndarray
    eligible: np.ndarray
    opening_equity: float
