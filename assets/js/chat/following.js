// When the messages have to be looked at again: another conversation was opened, or the server says that this one has
// changed. One handler of Python's writes them (`ui/chat/chat_panel.py`); each call ends the one before.

import { currentConversation } from "./conversation.js";

// What comes together is one change.
const TOGETHER_MS = 25;

let number = 0;
let timer = null;
let missed = false;

/** Look now, or as soon as somebody looks at the tab. */
export function lookAgain() {
  missed = document.hidden;
  if (missed || timer) return;
  timer = setTimeout(() => {
    timer = null;
    const conversationId = currentConversation();
    if (!conversationId) return;
    const detail = { conversation_id: conversationId, number: ++number };
    // Gradio's listener prevents the default; while a page is being built there is none.
    missed = window.dispatchEvent(new CustomEvent("quest-follow", { detail, cancelable: true }));
  }, TOGETHER_MS);
}

/** Begin to follow the tab's conversation. */
export function followConversation() {
  window.addEventListener("quest-opened", lookAgain);
  window.addEventListener("quest-changed", lookAgain);
  window.addEventListener("quest-follow-ready", () => missed && lookAgain());
  document.addEventListener("visibilitychange", () => missed && lookAgain());
}
