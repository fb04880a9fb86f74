// The question box: the cursor is in it when the page opens, and it is emptied as its question is asked.
//
// Its text is taken here, as it is at the press, and not by Gradio, which hands on a box's text some time later: by then
// another question may stand there, and be asked or lost. The cursor is set only where that raises no keyboard, which
// would cover half of a telephone.

import { BOX, setQuestion, typedQuestion } from "./drafts.js";

const ASK_BUTTON = "#question .submit-button";
// The second press of what is meant as one.
const TWICE_MS = 1000;
const SIDE_BY_SIDE = "(min-width: 761px)";

let asked = "";
let askedAt = -Infinity;

/** Ask what stands in the box when Enter or Ask is pressed. */
export function askFromBox() {
  document.addEventListener("keypress", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || !event.target.matches?.(BOX)) return;
    event.preventDefault();
    ask();
  });
  document.addEventListener("click", ({ target }) => target.closest?.(ASK_BUTTON) && ask());
  window.addEventListener("quest-ask", ({ detail: { question } }) => (asked = question));
}

function ask() {
  const question = typedQuestion();
  if (!question.trim() && performance.now() - askedAt < TWICE_MS) return;
  // Gradio's listener prevents the default; while a page is being built there is none.
  if (window.dispatchEvent(new CustomEvent("quest-ask", { detail: { question }, cancelable: true }))) return;
  askedAt = performance.now();
  setQuestion("");
  // The Ask button is about to be hidden, and would take the focus with it.
  if (document.activeElement?.closest("#question")) focusBox();
}

/** The question was refused: it comes back, unless another is typed already. */
export function giveBackQuestion() {
  if (!typedQuestion()) setQuestion(asked);
}

/** Let typing begin a question. */
export function focusQuestion() {
  if (matchMedia(SIDE_BY_SIDE).matches) focusBox();
}

function focusBox() {
  document.querySelector(BOX)?.focus({ preventScroll: true });
}
