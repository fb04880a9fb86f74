// The question box: the cursor is in it when the page opens, and it is emptied as its question is asked.
//
// It is emptied here and not by the server: what somebody types until that answers would be lost. The cursor is set only
// where that raises no keyboard, which would cover half of a telephone.

import { setQuestion, typedQuestion } from "./drafts.js";
import { withConversation } from "./conversation.js";

// The second press of what is meant as one.
const TWICE_MS = 1000;
const SIDE_BY_SIDE = "(min-width: 761px)";

/** Let typing begin a question. */
export function focusQuestion() {
  if (matchMedia(SIDE_BY_SIDE).matches) focusBox();
}

let asked = "";
let askedAt = -Infinity;

/**
 * The values of the event that asks: the conversation's id, the question, and others; the box is empty from now on.
 *
 * The question is null where a quick hand has pressed twice.
 */
export function takeQuestion(conversationId, question, ...values) {
  // Gradio may not have heard yet that the box is empty, and still have the question.
  if (!typedQuestion().trim() && performance.now() - askedAt < TWICE_MS) return [conversationId, null, ...values];
  [asked, askedAt] = [question, performance.now()];
  setQuestion("");
  // The Ask button is about to be hidden, and would take the focus with it.
  if (document.activeElement?.closest("#question")) focusBox();
  return withConversation(conversationId, question, ...values);
}

/** The question was refused: it comes back, unless another is typed already. */
export function giveBackQuestion() {
  if (!typedQuestion()) setQuestion(asked);
}

function focusBox() {
  document.querySelector("#question textarea")?.focus({ preventScroll: true });
}
