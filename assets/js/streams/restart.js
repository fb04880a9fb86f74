// After the server was started anew: load the page again, and say what happened.
//
// Each start of the server has an "instance" of its own. The tab keeps the one that it has seen, so that the page can tell
// after it was loaded again, whoever did that.

import { conversationOpened } from "../chat/conversation.js";
import { showNotice } from "../desk/notices.js";

const STORAGE_KEY = "quest-chat-instance";
const SENTENCE = "Quest Chat was started again. This conversation is as it was stored.";

let isFirst = true;

/** Watch the server's state for another instance. */
export function watchRestarts() {
  window.addEventListener("quest-instance", ({ detail: instance }) => {
    const known = sessionStorage.getItem(STORAGE_KEY);
    const wasRestarted = known && known !== instance;
    if (wasRestarted && !isFirst) {
      location.reload();
      return;
    }
    isFirst = false;
    sessionStorage.setItem(STORAGE_KEY, instance);
    if (wasRestarted) conversationOpened().then(() => showNotice("question", SENTENCE, "hint"));
  });
}
