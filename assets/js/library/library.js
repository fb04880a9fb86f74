// What the library holds: documents with how far each is read, sample books, and conversations, as /library tells.
//
// Asked for when the server says that something has changed, never at intervals, and only while somebody looks at the tab.
// The lists hear "quest-library-shown"; what is done in them goes to Python as an event (`ui/library_panel.py`).

import { currentConversation } from "../chat/conversation.js";
import { lookAgain as lookAtMessages } from "../chat/following.js";
import { setText } from "../desk/list-rows.js";
import { counted } from "../wording.js";

const SEARCH_FIELD = "library-search";
const FOUND_LINE = "library-found";
const SEARCH_PAUSE_MS = 150;
// Of what the server has not done after so long, it has not even heard.
const DONE_MS = 10_000;

/**
 * The last answer of the server; `search` is what it was asked for, `isKnown` whether there was one, and `isSettled`
 * whether it tells of all that was done to the tab's conversation in the lists.
 */
export const library = {
  documents: [],
  samples: [],
  conversations: [],
  search: "",
  isKnown: false,
  isSettled: true,
};

let underWay = 0; // actions
let last = { conversationId: "", at: -Infinity }; // the action that was begun last
let isAsking = false;
let askAgain = false;
let searchTimer = null;
let shownFor = null;

/** Begin to watch. */
export function watchLibrary() {
  window.addEventListener("quest-opened", lookAgain);
  window.addEventListener("quest-library", lookAgain);
  document.addEventListener("visibilitychange", () => askAgain && lookAgain());
  document.addEventListener("input", ({ target }) => {
    if (target.id !== SEARCH_FIELD) return;
    clearTimeout(searchTimer);
    searchTimer = setTimeout(lookAgain, SEARCH_PAUSE_MS);
  });
  // Escape ends the search first, and only then what is running.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.target.id !== SEARCH_FIELD || !event.target.value) return;
    event.preventDefault();
    event.target.value = "";
    lookAgain();
  });
}

/** Ask the server now, or as soon as somebody looks; while it is being asked, once more afterwards. */
export async function lookAgain() {
  askAgain = isAsking || document.hidden || !currentConversation();
  if (askAgain) return;
  isAsking = true;
  const search = document.getElementById(SEARCH_FIELD)?.value.trim() ?? "";
  const conversationId = currentConversation();
  const isQuiet = underWay === 0 || performance.now() - last.at > DONE_MS;
  const lastBefore = last;
  const query = new URLSearchParams({ conversation: conversationId, search });
  try {
    const response = await fetch(`library?${query}`, { cache: "no-store" });
    if (response.ok) {
      const listing = await response.json();
      library.isSettled = (isQuiet && last === lastBefore) || conversationId !== last.conversationId;
      show(listing, conversationId, search);
    }
  } catch {
    // The server is gone; the telemetry stream comes back with it, and then this is asked again.
  }
  isAsking = false;
  if (askAgain) lookAgain();
}

function show({ documents, samples = [], conversations }, conversationId, search) {
  if (conversationId !== currentConversation()) return;
  Object.assign(library, { documents, samples, conversations, search, isKnown: true });
  tellFound();
  window.dispatchEvent(new Event("quest-library-shown"));
  // The context meter counts the conversation's documents that are there.
  const own = documents.filter((one) => one.in_conversation).map((one) => `${one.document_id} ${one.state}`);
  if (search) return;
  const shown = `${conversationId} ${own.join()}`;
  if (shownFor !== null && shownFor !== shown) lookAtMessages();
  shownFor = shown;
}

/** Say what a search has found to those who do not see the lists. */
function tellFound() {
  const line = document.getElementById(FOUND_LINE);
  if (!line) return;
  const { documents, samples, conversations, search } = library;
  const found = `${counted(documents.length + samples.length, "document")}, ${counted(conversations.length, "chat")} found.`;
  setText(line, search ? found : "");
}

/** Have something done, by its name in `ui/library_panel.py`. */
export function act(action, values = {}) {
  underWay++;
  last = { conversationId: currentConversation(), at: performance.now() };
  window.dispatchEvent(new CustomEvent("quest-library-action", { detail: { action, ...values } }));
}

/** An action has ended, done or refused. */
export function acted() {
  underWay = Math.max(0, underWay - 1);
  lookAgain();
  return [];
}
