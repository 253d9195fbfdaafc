"""The stand-in as a ranker: it reads the table of symbols in a prompt, ranks them, and gives the first ones weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

_HEADER = re.compile(r"^symbol(?:,[a-z][a-z0-9_]*)+$", re.MULTILINE)
_NO_SCORE = ("symbol", "price", "weight")
_SHORT = "from -1 to 1"

Draw = Callable[[str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The table of a prompt.

    Attributes:
        symbols: their names.
        scores: the column they are ranked by; -inf where it is not known.
    """

    symbols: tuple[str, ...]
    scores: tuple[float, ...]


def read_panel(text: str) -> Panel | None:
    """Return the last table that begins with the column `symbol`; None where there is none."""
    headers = list(_HEADER.finditer(text))
    if not headers:
        return None
    names = headers[-1].group().split(",")
    lines = text[headers[-1].end() + 1 :].partition("\n\n")[0].splitlines()
    rows = [row for row in (line.split(",") for line in lines) if len(row) == len(names)]
    at = next((at for at, name in enumerate(names) if name not in _NO_SCORE), None)
    scores = tuple(0.0 if at is None else _number(row[at]) for row in rows)
    return Panel(symbols=tuple(row[0] for row in rows), scores=scores)


def allows_short(text: str) -> bool:
    """Return whether a prompt allows negative weights."""
    return _SHORT in text


def rank(panel: Panel, *, column_weight: float, draw: Draw, short: bool) -> str:
    """Return the reply: equal weights for the upper third of a ranking.

    Args:
        panel: the table of the prompt.
        column_weight: weight of the table's column in the ranking, in [0, 1]; the rest is random.
        draw: random number of each symbol.
        short: whether half of the equity is sold short in the lower third.
    """
    count = len(panel.symbols)
    order = sorted(range(count), key=lambda at: (panel.scores[at], at))
    place = {at: rank / max(1, count - 1) for rank, at in enumerate(order)}
    mixed = sorted(
        range(count), key=lambda at: -(column_weight * place[at] + (1.0 - column_weight) * draw(panel.symbols[at]))
    )
    third = max(1, count // 3) if count else 0
    chosen = [(at, 1.0) for at in mixed[:third]]
    if short and count > third:
        chosen += [(at, -1.0) for at in mixed[-min(third, count - third) :]]
    weights = [
        # Rounded down, so that they never add up to more than one.
        {"symbol": panel.symbols[at], "weight": side * (10_000 // len(chosen)) / 10_000}
        for at, side in chosen
    ]
    return json.dumps({"weights": weights, "note": "the first of the table's first column, as far as I follow it"})


def uniform_draw(seed: int, key: str) -> Draw:
    """Return a function that draws a number in [0, 1) for each word.

    Args:
        seed: of the draws.
        key: another one gives other draws too.
    """

    def draw(word: str) -> float:
        return int.from_bytes(hashlib.sha256(f"{seed}:{key}:{word}".encode()).digest()[:8], "big") / 2**64

    return draw


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("-inf")


MALFORMED: tuple[Callable[[str], str], ...] = (
    lambda text: "I would wait here: the symbols are close together.",  # noqa: ARG005
    lambda text: f"```json\n{text}\n```",
    lambda text: text[: len(text) // 2],
    lambda text: "",  # noqa: ARG005
    lambda text: text.replace('"weight": ', '"weight": 5'),
    lambda text: text.replace('"weight": ', '"weight": "', 1).replace("}", '"}', 1),
    lambda text: text.replace('"symbol": "', '"symbol": "X', 1),
    lambda text: re.sub(r"\[(\{.*?\})", r"[\1, \1", text, count=1),
    lambda text: re.sub(r'"weight": -?[\d.]+', '"weight": NaN', text, count=1),
    lambda text: text.replace('"weights"', '"weights": [], "weights"', 1),
    lambda text: text[:-1] + ', "confidence": 0.8}',
    lambda text: '{"weights": {"BTCUSDT": 0.5}}',  # noqa: ARG005
)
"""Functions that make a valid reply invalid, each in another way."""
