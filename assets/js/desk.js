// Which zones of the desk are open, and what stands in the one at the right.
//
// The state is in the root element's dataset, which the style sheets follow: data-side ("open", "closed"), data-side-tab
// ("page", "reading", "race") and, on a telephone, data-sheet ("library", "side", ""). Anybody asks for a tab with
// "quest-show-side" {tab} on the window; "quest-side-shown" {tab} tells which is seen, "" for none.

const STORAGE_KEY = "quest-chat-side";
const TABS = ["page", "reading", "race"];

/** Below it the right zone is a drawer, and closed until somebody opens it. */
export const narrow = matchMedia("(max-width: 1180px)");
/** Below it both zones are sheets over the conversation. */
export const phone = matchMedia("(max-width: 760px)");

const root = document.documentElement;

/** Open the zones as they were left, and follow who asks for others. */
export function followDesk() {
  root.dataset.sideTab ??= "reading";
  arrange();
  narrow.addEventListener("change", arrange);
  phone.addEventListener("change", arrange);
  window.addEventListener("quest-show-side", ({ detail }) => showSide(detail.tab));
  window.addEventListener("quest-page-shown", () => showSide("page"));
  document.addEventListener("click", ({ target }) => {
    const opener = target.closest?.("[data-desk]");
    if (opener) press(opener.dataset.desk);
  });
}

/** The tab that is seen, "" while the zone is closed. */
export function shownTab() {
  return root.dataset.side === "open" ? root.dataset.sideTab : "";
}

/** Open the right zone at a tab. */
export function showSide(tab) {
  root.dataset.sideTab = TABS.includes(tab) ? tab : root.dataset.sideTab;
  root.dataset.side = "open";
  root.dataset.sheet = phone.matches ? "side" : "";
  remember();
  tell();
}

/** Close the right zone; on a telephone, its sheet. */
export function closeSide() {
  root.dataset.side = "closed";
  root.dataset.sheet = "";
  remember();
  tell();
}

/** Open or close the library, where it is not always in sight. */
export function toggleLibrary() {
  const opens = root.dataset.sheet !== "library";
  if (opens && phone.matches) root.dataset.side = "closed";
  root.dataset.sheet = opens ? "library" : "";
  tell();
}

/** Close what lies over the conversation; false if nothing does. */
export function closeSheet() {
  if (root.dataset.sheet === "library") toggleLibrary();
  else if (narrow.matches && root.dataset.side === "open") closeSide();
  else return false;
  return true;
}

function press(wanted) {
  if (wanted === "library") toggleLibrary();
  else if (wanted === "sheet") closeSheet();
  else if (root.dataset.side === "open") closeSide();
  else showSide(root.dataset.sideTab);
}

function arrange() {
  root.dataset.side = narrow.matches ? "closed" : (localStorage.getItem(STORAGE_KEY) ?? "open");
  root.dataset.sheet = "";
  tell();
}

/** A drawer or a sheet is not remembered: it would be in the way of the next visit. */
function remember() {
  if (!narrow.matches) localStorage.setItem(STORAGE_KEY, root.dataset.side);
}

function tell() {
  window.dispatchEvent(new CustomEvent("quest-side-shown", { detail: { tab: shownTab() } }));
}
