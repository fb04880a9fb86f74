// When the messages have to be looked at again: another conversation was opened, or the server says that this one has
// changed. One handler of Python's writes them (`ui/chat_panel.py`); each call ends the one before.

import { currentConversation } from "./conversation.js";

// What comes together is one change.
const TOGETHER_MS = 25;
// On a busy machine Gradio may not listen yet when a tab opens, and may lose the last of an answer's updates.
const ONCE_MORE_MS = 2500;

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
    window.dispatchEvent(new CustomEvent("quest-follow", { detail }));
  }, TOGETHER_MS);
}

/** Begin to follow the tab's conversation. */
export function followConversation() {
  window.addEventListener("quest-opened", lookAgain);
  window.addEventListener("quest-changed", lookAgain);
  window.addEventListener("quest-opened", lookOnceMore);
  window.addEventListener("quest-telemetry", ({ detail }) => detail.type === "finished" && lookOnceMore());
  document.addEventListener("visibilitychange", () => missed && lookAgain());
}

function lookOnceMore() {
  setTimeout(lookAgain, ONCE_MORE_MS);
}
