// Which conversation this tab shows: the one that its address names, as in /?c=<id>.
//
// So a reload, a copied address and the Back button find it again. A tab whose address names none is given one by the
// server. What a conversation is, only the server knows; scripts hear "quest-opened" when the tab shows another.
//
// From when another conversation is asked for until it is there, the tab is between the two: "quest-leaving" and
// "quest-arrived". What is typed or asked meanwhile is meant for the one that comes.

const PARAMETER = "c";
const OPENING_WAIT_MS = 20_000;

let current = "";
let leaving = null; // { arrived: a promise, tellArrived }
let tellOpened;
const opened = new Promise((resolve) => (tellOpened = resolve));

/** The id of the tab's conversation, "" before the server has opened one. */
export function currentConversation() {
  return current;
}

/** Whether another conversation was asked for and is not there yet. */
export function isLeaving() {
  return leaving !== null;
}

/** Another conversation was asked for. */
export function leaveConversation() {
  if (leaving || !current) return;
  leaving = {};
  leaving.arrived = new Promise((resolve) => (leaving.tellArrived = resolve));
  window.dispatchEvent(new Event("quest-leaving"));
}

/** The server has answered: with this conversation, which the page is about to show if it does not already. */
export function arrive(conversationId) {
  if (conversationId === current) endLeaving();
  return [];
}

function endLeaving() {
  if (!leaving) return;
  const { tellArrived } = leaving;
  leaving = null;
  tellArrived();
  window.dispatchEvent(new Event("quest-arrived"));
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
 * conversation as the page loads or another is asked for, waits for it. If it never does, the server says what is wrong.
 */
export async function withConversation(conversationId, ...values) {
  if (!leaving) return withPresentConversation(conversationId, ...values);
  await inTime(leaving.arrived);
  return [current, ...values];
}

/** The same, but of the conversation that the tab shows yet. */
export async function withPresentConversation(conversationId, ...values) {
  return [conversationId || current || (await inTime(opened)), ...values];
}

/** What a promise gives, or "" if that takes too long. */
async function inTime(promise) {
  let timer;
  const tooLong = new Promise((resolve) => (timer = setTimeout(resolve, OPENING_WAIT_MS, "")));
  try {
    return await Promise.race([promise, tooLong]);
  } finally {
    clearTimeout(timer);
  }
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
  endLeaving();
}

/** Ask the server to open a conversation in this tab. */
export function openConversation(conversationId) {
  leaveConversation();
  window.dispatchEvent(new CustomEvent("quest-open", { detail: { conversation_id: conversationId } }));
}

/** Follow the Back and Forward buttons. */
export function followAddress() {
  window.addEventListener("popstate", () => {
    const wanted = wantedConversation();
    if (wanted && wanted !== current) openConversation(wanted);
  });
}
