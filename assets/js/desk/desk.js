// Which zones of the desk are open, and what stands in the one at the right.
//
// The state is in the root element's dataset, which the style sheets follow: data-side ("open", "closed"), data-side-tab
// ("page", "reading", "race"), data-sheet ("library", "side", "") for what lies over the conversation on a narrow screen,
// and data-race, which the race sets to "stage" while it takes all but the library. Anybody asks for a tab with
// "quest-show-side" {tab} on the window; "quest-side-shown" {tab} tells which is seen, "" for none.

import { focusedElement } from "./focus.js";

const STORAGE_KEY = "quest-chat-side";
const TABS = ["page", "reading", "race"];
const NAMES = { library: "Library", side: "Beside the conversation" };

/** Below it the right zone is a drawer, and closed until somebody opens it. */
export const narrow = matchMedia("(max-width: 1180px)");
/** Below it both zones are sheets over the conversation. */
export const phone = matchMedia("(max-width: 760px)");

const root = document.documentElement;
let cameFrom = null;

/** Open the zones as they were left, and follow who asks for others. */
export function followDesk() {
  root.dataset.sideTab ??= "reading";
  arrange();
  narrow.addEventListener("change", arrange);
  phone.addEventListener("change", arrange);
  window.addEventListener("quest-show-side", ({ detail }) => showSide(detail.tab));
  window.addEventListener("quest-page-shown", () => showSide("page"));
  // Before, nobody knows how long its lists are: drawn, they would be pushed down.
  window.addEventListener("quest-library-shown", () => (root.dataset.library = "known"), { once: true });
  // Another conversation is looked at, not its library.
  window.addEventListener("quest-opened", ({ detail }) => detail.before && root.dataset.sheet === "library" && toggleLibrary());
  document.addEventListener("click", ({ target }) => {
    const opener = target.closest?.("[data-desk]");
    if (opener) press(opener.dataset.desk, opener);
    else if (target.id === "desk") closeSheet();
  });
  new MutationObserver(keepApart).observe(root, { attributes: true, attributeFilter: ["data-race"] });
}

/** The tab that is seen, "" while the zone is closed. */
export function shownTab() {
  return root.dataset.side === "open" ? root.dataset.sideTab : "";
}

/** Open the right zone at a tab. */
export function showSide(tab) {
  if (phone.matches && root.dataset.sheet !== "side") cameFrom = focusedElement();
  root.dataset.sideTab = TABS.includes(tab) ? tab : root.dataset.sideTab;
  root.dataset.side = "open";
  root.dataset.sheet = phone.matches ? "side" : "";
  remember();
  tell();
}

/** Close the right zone; on a telephone, its sheet. */
export function closeSide() {
  const isSheet = root.dataset.sheet === "side";
  const hadFocus = isSheet || document.getElementById("side-zone")?.contains(document.activeElement);
  root.dataset.side = "closed";
  root.dataset.sheet = "";
  remember();
  tell();
  if (hadFocus) giveFocusBack(".toggle-side");
}

/** Open or close the library, where it is not always in sight. */
export function toggleLibrary() {
  if (root.dataset.sheet === "library") {
    root.dataset.sheet = "";
    tell();
    giveFocusBack(".open-library");
    return;
  }
  cameFrom = focusedElement();
  if (phone.matches) root.dataset.side = "closed";
  root.dataset.sheet = "library";
  tell();
}

/** Close what lies over the conversation; false if nothing does. */
export function closeSheet() {
  if (root.dataset.race === "stage") delete root.dataset.race;
  else if (root.dataset.sheet === "library") toggleLibrary();
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
  keepApart();
  window.dispatchEvent(new CustomEvent("quest-side-shown", { detail: { tab: shownTab() } }));
}

/** What lies over the conversation is a dialog, and what is below it is out of reach. */
function keepApart() {
  const isStage = root.dataset.race === "stage";
  const { sheet } = root.dataset;
  const over = isStage ? "side" : sheet;
  for (const name of ["library", "chat", "side"]) {
    const zone = document.getElementById(`${name}-zone`);
    if (!zone) continue;
    const isOver = name === over && !isStage;
    zone.inert = Boolean(over) && name !== over && !(isStage && name === "library" && !narrow.matches);
    if (isOver === (zone.getAttribute("role") === "dialog")) continue;
    if (isOver) {
      zone.setAttribute("role", "dialog");
      zone.setAttribute("aria-modal", "true");
      zone.setAttribute("aria-label", NAMES[name]);
      zone.tabIndex = -1;
      if (!zone.contains(document.activeElement)) zone.focus({ preventScroll: true });
    } else {
      for (const attribute of ["role", "aria-modal", "aria-label", "tabindex"]) zone.removeAttribute(attribute);
    }
  }
}

function giveFocusBack(otherwise) {
  const heir = cameFrom?.isConnected && cameFrom.getClientRects().length ? cameFrom : document.querySelector(otherwise);
  cameFrom = null;
  heir?.focus({ preventScroll: true });
}
