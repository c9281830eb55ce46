"""Exact money. No float appears: a price is a fraction, an amount a whole number of picos, 10^-12 of
the currency's unit. A price is rounded once, when it meets a quantity: to the nearest pico, halves to even."""

import re

PICOS_PER_UNIT = 10**12
MOST = 2**63 - 1
SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
COUNTS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
PRICE = re.compile(r"([$€£¥]|[A-Z]{3} )?([0-9]{1,15}(?:\.[0-9]{1,9})?)/(?:1?(k|K|M|B)|token)", re.ASCII)
AMOUNT = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)
MOST_DIGITS = 24


class OutOfRange(Exception):
    """An amount beyond what one cost line can hold: about 9.2 million units of the currency."""


class Price:
    """The price of one token, as written by people: "$0.15/M", "0.002/k", "EUR 1.25/M"."""

    def __init__(self, text):
        match = PRICE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{text!r} is not a price per token such as $0.15/M")
        sign, amount, count = match.groups()
        whole, _, decimals = amount.partition(".")
        self.currency = sign and SIGNS.get(sign, sign.strip())
        self.numerator = int(whole + decimals) * PICOS_PER_UNIT
        self.denominator = 10 ** len(decimals) * COUNTS[count or ""]

    def times(self, quantity):
        """The amount for so many tokens, in picos."""
        picos, rest = divmod(quantity * self.numerator, self.denominator)
        if rest * 2 > self.denominator or (rest * 2 == self.denominator and picos % 2):
            picos += 1
        if picos > MOST:
            raise OutOfRange(f"the amount is out of range: {quantity} tokens")
        return picos


def picos(text):
    """The picos of an amount that is written as a plain decimal, such as "0.0042"; None if it is not, or does not fit."""
    match = AMOUNT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    sign, whole, decimals = match.group(1), match.group(2), match.group(3) or ""
    if len(whole) + len(decimals) > MOST_DIGITS:
        return None
    amount, finer = divmod(int(whole + decimals) * PICOS_PER_UNIT, 10 ** len(decimals))
    amount = -amount if sign else amount
    return amount if not finer and -MOST - 1 <= amount <= MOST else None
