// Which conversation this tab shows: the one that its address names, as in /?c=<id>.
//
// So a reload, a copied address and the Back button find it again. A tab whose address names none is given one by the
// server. What a conversation is, only the server knows; scripts hear "quest-opened" when the tab shows another.

const PARAMETER = "c";
const OPENING_WAIT_MS = 20_000;

let current = "";
let tellOpened;
const opened = new Promise((resolve) => (tellOpened = resolve));

/** The id of the tab's conversation, "" before the server has opened one. */
export function currentConversation() {
  return current;
}

/** Wait for the tab's first conversation. */
export function conversationOpened() {
  return opened;
}

/** The id that the address names, or "" for whichever the server chooses. */
export function wantedConversation() {
  return new URLSearchParams(location.search).get(PARAMETER) ?? "";
}

/** The address of a conversation on this page. */
export function addressOf(conversationId) {
  const address = new URL(location.href);
  address.searchParams.set(PARAMETER, conversationId);
  return address.pathname + address.search;
}

/**
 * The values of an event's inputs, the conversation's id first: whoever is quicker than the server, which opens the
 * conversation as the page loads, waits for it. If it never does, the server says what is wrong.
 */
export async function withConversation(conversationId, ...values) {
  const tooLong = new Promise((resolve) => setTimeout(resolve, OPENING_WAIT_MS, ""));
  return [conversationId || (await Promise.race([opened, tooLong])), ...values];
}

/** The server has opened this conversation for the tab. */
export function showConversation(conversationId) {
  if (conversationId === current) return;
  if (wantedConversation() !== conversationId) {
    // The first one has taken the place of an address without one; later ones are steps that Back takes again.
    const change = current ? "pushState" : "replaceState";
    history[change](null, "", addressOf(conversationId));
  }
  const before = current;
  current = conversationId;
  window.dispatchEvent(new CustomEvent("quest-opened", { detail: { before, conversationId } }));
  tellOpened(conversationId);
}

/** Ask the server to open a conversation in this tab. */
export function openConversation(conversationId) {
  window.dispatchEvent(new CustomEvent("quest-open", { detail: { conversation_id: conversationId } }));
}

/** Follow the Back and Forward buttons. */
export function followAddress() {
  window.addEventListener("popstate", () => {
    const wanted = wantedConversation();
    if (wanted && wanted !== current) openConversation(wanted);
  });
}
