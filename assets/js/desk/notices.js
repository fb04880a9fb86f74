// Puts a message beside what it speaks of.
//
// Gradio shows what a handler raises as a toast in the corner, which covers the page and piles up. Those that name a place
// (`ui/notices.py`) are moved there, one at a time, and go with the next thing that is done in that part of the page. What
// Gradio says by itself stays in its own words: whoever knows better hears "quest-toast" {text} on the window
// and prevents the default, a sentence above the question.

import { server } from "../streams/connection.js";
import { RESTORED } from "../chat/drafts.js";

const TOAST = ".toast-body";
const MESSAGE = ".toast-message-text [class^='notice-for-']";
const UNKNOWN = "That did not work. Try it again; if it goes on, the terminal in which Quest Chat runs says why.";
const PARTS = "#documents-panel, #conversations-panel, #question-area, #race-panel, #messages";

/** Move messages to their places as they come. */
export function placeNotices() {
  new MutationObserver(() => document.querySelectorAll(TOAST).forEach(place)).observe(document.body, {
    subtree: true,
    childList: true,
  });
  for (const type of ["input", "change", "click"]) document.addEventListener(type, forget, true);
}

function place(toast) {
  const messages = [...toast.querySelectorAll(MESSAGE)];
  const news = messages.filter((message) => !message.dataset.placed);
  if (messages.length ? !news.length : toast.dataset.placed) return;
  for (const message of news) {
    const kind = message.closest(".toast-message-item")?.classList.contains("error") ? "error" : "hint";
    if (showNotice(message.className.replace("notice-for-", ""), message.textContent, kind)) message.dataset.placed = "true";
  }
  if (!messages.length) translate(toast);
  toast.querySelector(".toast-close")?.click();
}

function translate(toast) {
  toast.dataset.placed = "true";
  const told = new CustomEvent("quest-toast", { cancelable: true, detail: { text: toast.textContent } });
  // Of a server that is gone, a line tells already.
  if (window.dispatchEvent(told) && server.reachable) showNotice("question", UNKNOWN, "error");
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
