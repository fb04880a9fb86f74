// What is typed and not asked yet: kept with its conversation while the tab lives, whatever becomes of the page.
//
// Each tab has drafts of its own, in its session storage. A question that the server could not answer comes back, too,
// where nothing else has been typed.

import { currentConversation, isLeaving } from "./conversation.js";

export const BOX = "#question textarea";
// Tells what a script has put into the box from what somebody types.
export const RESTORED = "questRestored";

/** Keep drafts of this tab. */
export function keepDrafts() {
  window.addEventListener("quest-leaving", () => {
    keep(currentConversation());
    setQuestion("");
  });
  // Whoever was quicker than the server has typed into the conversation that comes.
  window.addEventListener("quest-arrived", () => typedQuestion() || setQuestion(draftOf(currentConversation())));
  window.addEventListener("quest-opened", ({ detail: { before, conversationId } }) => {
    if (isLeaving()) return;
    // The server has chosen another, as for one that was deleted.
    if (before) keep(before);
    if (before || !typedQuestion()) setQuestion(draftOf(conversationId));
  });
  window.addEventListener("pagehide", () => currentConversation() && keep(currentConversation()));
}

/** The question that was not answered: put it back into an empty box. */
export class UnansweredQuestion extends HTMLElement {
  static observedAttributes = ["question"];

  attributeChangedCallback() {
    if (!typedQuestion()) setQuestion(this.getAttribute("question") ?? "");
  }
}

function keep(conversationId) {
  if (typedQuestion()) sessionStorage.setItem(key(conversationId), typedQuestion());
  else sessionStorage.removeItem(key(conversationId));
}

function draftOf(conversationId) {
  return sessionStorage.getItem(key(conversationId)) ?? "";
}

function key(conversationId) {
  return `quest-chat-draft-${conversationId}`;
}

/** What stands in the question box. */
export function typedQuestion() {
  return document.querySelector(BOX)?.value ?? "";
}

/** Put something else into the question box. */
export function setQuestion(text) {
  const box = document.querySelector(BOX);
  if (!box || box.value === text) return;
  box.value = text;
  // Gradio takes the value from its box as somebody types.
  box.dispatchEvent(new InputEvent("input", { bubbles: true, inputType: RESTORED }));
}
