/** Decimals as text, compared exactly: no float holds them. */

import type { Decimal } from "./messages.js";

function parts(text: Decimal): [isNegative: boolean, whole: string, fraction: string] {
  const isNegative = text.startsWith("-");
  const [whole = "", fraction = ""] = (isNegative ? text.slice(1) : text).split(".");
  return [isNegative, whole.replace(/^0+(?=\d)/, ""), fraction.replace(/0+$/, "")];
}

/** Below 0 if `a` is less than `b`, above 0 if it is more. */
export function compareDecimals(a: Decimal, b: Decimal): number {
  const [aNegative, aWhole, aFraction] = parts(a);
  const [bNegative, bWhole, bFraction] = parts(b);
  const isZero = (whole: string, fraction: string) => whole === "0" && fraction === "";
  const aSign = isZero(aWhole, aFraction) ? 0 : aNegative ? -1 : 1;
  const bSign = isZero(bWhole, bFraction) ? 0 : bNegative ? -1 : 1;
  if (aSign !== bSign || aSign === 0) return aSign - bSign;
  // Digits that say the same place compare as text.
  const size = aWhole.length - bWhole.length || order(aWhole, bWhole) || order(aFraction, bFraction);
  return aSign > 0 ? size : 0 - size;
}

const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
