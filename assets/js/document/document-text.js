// A document page's text, well set, with places in it marked. Characters are counted as the server counts them.
//
// Everything comes from documents: it is set as text, never as markup.

const BLANK_LINES = /\n[ \t]*(?:\n[ \t]*)+/g;
// Lines that are this long were broken by whoever wrote the file, not where a line of verse or of a list ends.
const BROKEN_LINE = [42, 96];

/** Paragraphs as elements; `marks` are [{start, end, kind}], in UTF-16 units like the text. */
export function setTextPage(text, marks) {
  return paragraphs(text).map(([start, end]) => {
    const element = document.createElement("p");
    const part = text.slice(start, end);
    if (isBrokenByHand(part)) element.className = "broken-lines";
    element.append(...markedText(part, start, marks));
    return element;
  });
}

/** Python counts code points, JavaScript halves of those beyond the sixteenth bit: the same place in the other count. */
export function toUtf16(text, codePoints) {
  let index = 0;
  for (let count = 0; count < codePoints && index < text.length; count++) {
    index += text.codePointAt(index) > 0xffff ? 2 : 1;
  }
  return index;
}

function paragraphs(text) {
  const found = [];
  let start = 0;
  for (const blank of text.matchAll(BLANK_LINES)) {
    if (blank.index > start) found.push([start, blank.index]);
    start = blank.index + blank[0].length;
  }
  if (start < text.length) found.push([start, text.length]);
  return found;
}

function isBrokenByHand(paragraph) {
  const lines = paragraph.trim().split("\n").map((line) => line.trimEnd().length);
  if (lines.length < 2) return false;
  const whole = lines.slice(0, -1);
  return whole.every((length) => length <= BROKEN_LINE[1]) && whole.filter((length) => length >= BROKEN_LINE[0]).length >= 0.8 * whole.length;
}

function markedText(part, offset, marks) {
  const cuts = new Set([0, part.length]);
  const own = marks.filter(({ start, end }) => end > offset && start < offset + part.length);
  for (const { start, end } of own) {
    cuts.add(Math.max(0, start - offset));
    cuts.add(Math.min(part.length, end - offset));
  }
  const places = [...cuts].sort((one, other) => one - other);
  return places.slice(0, -1).map((from, number) => {
    const text = part.slice(from, places[number + 1]);
    const kinds = own.filter(({ start, end }) => start - offset <= from && end - offset >= places[number + 1]);
    if (!kinds.length) return text;
    const mark = document.createElement("mark");
    mark.dataset.kind = kinds.map(({ kind }) => kind).join(" ");
    mark.textContent = text;
    return mark;
  });
}
