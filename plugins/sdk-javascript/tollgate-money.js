// Exact money. No float appears: a price is a fraction of BigInts, an amount a whole number of picos,
// 10^-12 of the currency's unit. A price is rounded once, when it meets a quantity: to the nearest pico, halves to even.

const PICOS_PER_UNIT = 10n ** 12n;
const MOST = 2n ** 63n - 1n;
const SIGNS = { $: "USD", "€": "EUR", "£": "GBP", "¥": "JPY" };
const COUNTS = { "": 1n, k: 10n ** 3n, K: 10n ** 3n, M: 10n ** 6n, B: 10n ** 9n };
const PRICE = /^([$€£¥]|[A-Z]{3} )?([0-9]{1,15})(?:\.([0-9]{1,9}))?\/(?:1?(k|K|M|B)|token)$/;
const AMOUNT = /^(-?)([0-9]+)(?:\.([0-9]+))?$/;
const MOST_DIGITS = 24;

/** The price of one token, as written by people: "$0.15/M", "0.002/k", "EUR 1.25/M". */
export class Price {
  constructor(text) {
    const match = typeof text === "string" && PRICE.exec(text);
    if (!match) throw new Error(`${JSON.stringify(text)} is not a price per token such as $0.15/M`);
    const [, sign, whole, decimals = "", count = ""] = match;
    this.currency = sign && (SIGNS[sign] ?? sign.trim());
    this.numerator = BigInt(whole + decimals) * PICOS_PER_UNIT;
    this.denominator = 10n ** BigInt(decimals.length) * COUNTS[count];
  }

  /** The amount for so many tokens (a BigInt), in picos (a BigInt). */
  times(quantity) {
    const exact = quantity * this.numerator;
    let picos = exact / this.denominator;
    const twice = (exact % this.denominator) * 2n;
    if (twice > this.denominator || (twice === this.denominator && picos % 2n === 1n)) picos += 1n;
    if (picos > MOST) throw new RangeError(`the amount is out of range: ${quantity} tokens`);
    return picos;
  }
}

/** The picos (a BigInt) of an amount that is written as a plain decimal, such as "0.0042"; undefined if it is not, or does
 * not fit. */
export function picos(text) {
  const match = typeof text === "string" && AMOUNT.exec(text);
  if (!match) return undefined;
  const [, sign, whole, decimals = ""] = match;
  if (whole.length + decimals.length > MOST_DIGITS) return undefined;
  const [exact, divisor] = [BigInt(whole + decimals) * PICOS_PER_UNIT, 10n ** BigInt(decimals.length)];
  const amount = sign ? -(exact / divisor) : exact / divisor;
  return exact % divisor === 0n && -MOST - 1n <= amount && amount <= MOST ? amount : undefined;
}
