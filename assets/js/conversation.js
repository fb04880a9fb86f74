// Which conversation this browser tab had before it was refreshed.
//
// The id lies in the tab's session storage, which survives a refresh and ends with the tab. A duplicated tab starts with
// a copy of that storage, and two tabs must not share a conversation: a lock that each tab holds while it lives tells
// them apart. What a conversation is, only the server knows.

const STORAGE_KEY = "quest-chat-conversation";
// The page that is being refreshed may still hold the lock for a moment.
const LOCK_WAIT_MS = 400;
const OPENING_WAIT_MS = 20_000;

let tellOpened;
const opened = new Promise((resolve) => (tellOpened = resolve));

/**
 * The values of an event's inputs, the conversation's id first: whoever is quicker than the server, which opens the
 * conversation as the page loads, waits for it. If it never does, the server says what is wrong.
 */
export async function withConversation(conversationId, ...values) {
  const tooLong = new Promise((resolve) => setTimeout(resolve, OPENING_WAIT_MS, ""));
  return [conversationId || (await Promise.race([opened, tooLong])), ...values];
}

/** The id to reopen, or "" for a new conversation. */
export async function rememberedConversation() {
  const conversationId = sessionStorage.getItem(STORAGE_KEY);
  if (!conversationId) return "";
  return (await holdLock(conversationId)) ? conversationId : "";
}

/** Remember the conversation that the server has opened for this tab. */
export function rememberConversation(conversationId) {
  tellOpened(conversationId);
  if (sessionStorage.getItem(STORAGE_KEY) === conversationId) return;
  sessionStorage.setItem(STORAGE_KEY, conversationId);
  holdLock(conversationId);
}

/** Take this tab's lock on a conversation and keep it; false if another tab has it. */
function holdLock(conversationId) {
  // Browsers offer locks on this machine's own address and over HTTPS only; elsewhere a duplicated tab goes unnoticed.
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(LOCK_WAIT_MS);
    const keepForever = () => {
      resolve(true);
      return new Promise(() => {});
    };
    navigator.locks.request(`quest-chat-${conversationId}`, { signal }, keepForever).catch(() => resolve(false));
  });
}
