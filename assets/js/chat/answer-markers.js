// Turns the marks that `ui/chat/answer_markers.py` puts into an answer into what they stand for: numbers of sources that can be
// opened, and sentences without a source.
//
// They come as characters, because Gradio lets no element of ours through its Markdown; without this script they are
// plain numbers. Whatever Gradio renders anew is marked anew. What the numbers lead to, the row below the answer knows.

import { AnswerCitation, NoSource } from "./answer-citation.js";

const SIGN = "\u2060";
const NO_SOURCE_START = "\u2061";
const NO_SOURCE_END = "\u2062";
const ROOM = "\u2063";
const MARKS = new RegExp(`${SIGN}([\u2460-\u2473]|\\(\\d+\\))${SIGN}|[${NO_SOURCE_START}${NO_SOURCE_END}${ROOM}]`, "g");
const ONE = 0x2460;
const HIGHLIGHT = "quest-no-source";

/** Mark the answers in an element now, and whenever it changes. */
export function markAnswers() {
  customElements.define("quest-citation", AnswerCitation);
  customElements.define("quest-no-source", NoSource);
  let frame = null;
  const look = () => {
    frame = null;
    for (const answer of document.querySelectorAll("#messages .bot-row .md")) mark(answer);
    underline();
  };
  const soon = () => (frame ??= requestAnimationFrame(look));
  const hear = (changes) => {
    if (!changes.some(({ target }) => concernsAnswers(target))) return;
    // At once: an answer is written anew with each of its words, and would be drawn without the room for its signs first.
    for (const answer of new Set(changes.map(({ target }) => answerOf(target)))) if (answer) mark(answer);
    soon();
  };
  new MutationObserver(hear).observe(document.body, {
    subtree: true,
    childList: true,
    characterData: true,
  });
  document.addEventListener("pointermove", hover, { passive: true });
  soon();
}

function concernsAnswers(node) {
  const element = node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement;
  return Boolean(element?.closest("#messages, #chat-zone") || element?.querySelector?.("#messages"));
}

function answerOf(node) {
  const element = node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement;
  return element?.closest("#messages .bot-row .md");
}

function mark(answer) {
  const texts = document.createTreeWalker(answer, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    if (node.data.search(MARKS) >= 0) found.push(node);
  }
  for (const node of found) node.replaceWith(...parts(node.data));
  // In their order: the row below the answer has one source for each, and two may have the same number.
  if (found.length) answer.querySelectorAll("quest-citation").forEach((one, place) => one.setAttribute("place", place));
}

function parts(text) {
  const made = [];
  let end = 0;
  for (const found of text.matchAll(MARKS)) {
    made.push(text.slice(end, found.index));
    end = found.index + found[0].length;
    if (found[1]) {
      const number = found[1].startsWith("(") ? Number(found[1].slice(1, -1)) : found[1].charCodeAt(0) - ONE + 1;
      const citation = document.createElement("quest-citation");
      citation.setAttribute("number", number);
      made.push(citation);
    } else if (found[0] === ROOM) made.push(document.createElement("quest-sign-room"));
    else if (found[0] === NO_SOURCE_END) made.push(document.createElement("quest-no-source"));
    else made.push(document.createElement("quest-no-source-start"));
  }
  made.push(text.slice(end));
  return made.filter((part) => part !== "");
}

/** Sentences without a source are underlined where they stand, across whatever emphasis they hold. */
function underline() {
  if (!window.CSS?.highlights || !window.Highlight) return;
  const ranges = [];
  for (const end of document.querySelectorAll("#messages quest-no-source")) {
    const start = startOf(end);
    if (!start) continue;
    const range = document.createRange();
    range.setStartAfter(start);
    range.setEndBefore(end);
    end.range = range;
    ranges.push(range);
  }
  if (ranges.length) CSS.highlights.set(HIGHLIGHT, new Highlight(...ranges));
  else CSS.highlights.delete(HIGHLIGHT);
}

function startOf(end) {
  const all = [...end.closest(".md").querySelectorAll("quest-no-source-start, quest-no-source")];
  const before = all[all.indexOf(end) - 1];
  return before?.localName === "quest-no-source-start" ? before : null;
}

let pointed = null;
let hovering = null;

/** The sentence tells it has no source when it is pointed at, not only its sign. */
function hover(event) {
  if (hovering || !document.querySelector("quest-no-source")) return;
  const { clientX, clientY, target } = event;
  hovering = requestAnimationFrame(() => {
    hovering = null;
    const answer = target.closest?.("#messages .md");
    const found = answer ? [...answer.querySelectorAll("quest-no-source")].find((one) => holds(one, clientX, clientY)) : null;
    if (found === pointed) return;
    pointed?.hideTip();
    pointed = found ?? null;
    pointed?.showTip();
  });
}

function holds(sign, x, y) {
  const rectangles = [...(sign.range?.getClientRects() ?? []), ...sign.getClientRects()];
  return rectangles.some((box) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom);
}
