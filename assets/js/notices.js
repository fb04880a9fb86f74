// Puts a message beside what it speaks of.
//
// Gradio shows what a handler raises as a toast in the corner, which covers the page and piles up. Those that name a place
// (`ui/notices.py`) are moved there, one at a time, and go with the next thing that is done in that part of the page.

const MESSAGE = ".toast-message-text [class^='notice-for-']";
const PARTS = "#documents-panel, #chat-column, #compare-panel";

/** Move messages to their places as they come. */
export function placeNotices() {
  new MutationObserver(() => document.querySelectorAll(MESSAGE).forEach(place)).observe(document.body, {
    subtree: true,
    childList: true,
  });
  for (const type of ["input", "change", "click"]) document.addEventListener(type, forget, true);
}

function place(message) {
  const line = document.getElementById(message.className.replace("notice-for-", "notice-at-"));
  if (!line || message.dataset.placed) return;
  message.dataset.placed = "true";
  line.textContent = message.textContent;
  line.dataset.kind = message.closest(".toast-message-item")?.classList.contains("error") ? "error" : "hint";
  line.scrollIntoView({ block: "nearest" });
  message.closest(".toast-body")?.querySelector(".toast-close")?.click();
}

function forget({ type, target }) {
  if (type === "click" && !target.closest?.("button")) return;
  for (const line of target.closest?.(PARTS)?.querySelectorAll(".notice") ?? []) line.textContent = "";
}
