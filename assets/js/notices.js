// Puts a message beside what it speaks of.
//
// Gradio shows what a handler raises as a toast in the corner, which covers the page and piles up. Those that name a place
// (`ui/notices.py`) are moved there, one at a time, and go with the next thing that is done in that part of the page.

import { RESTORED } from "./drafts.js";

const MESSAGE = ".toast-message-text [class^='notice-for-']";
const PARTS = "#documents-panel, #conversations-panel, #question-area, #race-panel, #messages";

/** Move messages to their places as they come. */
export function placeNotices() {
  new MutationObserver(() => document.querySelectorAll(MESSAGE).forEach(place)).observe(document.body, {
    subtree: true,
    childList: true,
  });
  for (const type of ["input", "change", "click"]) document.addEventListener(type, forget, true);
}

function place(message) {
  if (message.dataset.placed) return;
  const kind = message.closest(".toast-message-item")?.classList.contains("error") ? "error" : "hint";
  if (!showNotice(message.className.replace("notice-for-", ""), message.textContent, kind)) return;
  message.dataset.placed = "true";
  message.closest(".toast-body")?.querySelector(".toast-close")?.click();
}

/** Show a sentence at a place of `ui/notices.py`, as an "error" or a "hint"; false if the page has no such place. */
export function showNotice(place, text, kind) {
  const line = document.getElementById(`notice-at-${place}`);
  if (!line) return false;
  line.textContent = text;
  line.dataset.kind = kind;
  line.scrollIntoView({ block: "nearest" });
  return true;
}

function forget({ type, target, inputType }) {
  if (inputType === RESTORED) return;
  if (type === "click" && !target.closest?.("button")) return;
  for (const line of target.closest?.(PARTS)?.querySelectorAll(".notice") ?? []) line.textContent = "";
}
