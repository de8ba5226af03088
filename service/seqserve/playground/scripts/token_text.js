// How tokens are shown: as what they stand for in the text, whatever their vocabulary calls them.

/** What stands at a token's place in the text; its entry in the vocabulary if it has no place. */
function tokenLabel(token, characters) {
  const found = characters.slice(token.startOffset ?? 0, token.endOffset ?? 0).join("");
  const shown = found.trim() ? found.trim() : found || (token.text ?? "");
  return shown.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

/** Labels of tokens. Offsets count characters, of which JavaScript's may be two. */
function tokenLabels(tokens, text) {
  const characters = Array.from(text ?? "");
  return tokens.map((token) => tokenLabel(token, characters));
}

/** Where a text begins: by its first letter, as `dir="auto"` has it. */
function directionOf(text) {
  const letter = /\p{L}/u.exec(text ?? "")?.[0] ?? "";
  return /[\u0590-\u08FF\uFB1D-\uFDFF\uFE70-\uFEFF\u{10800}-\u{10FFF}\u{1E800}-\u{1EFFF}]/u.test(letter) ? "rtl" : "ltr";
}

/** A number between 0 and 1, with as many digits as are read. */
function formatWeight(weight) {
  return weight.toFixed(weight < 0.0995 ? 3 : 2);
}
