// The keyboard on the page as a whole: Escape leaves what is open or running, and the focus is never lost.
//
// What has an Escape of its own (an edit box, the dialog of a link) has taken it before it comes here.

import { closeContext } from "../chat/context-bar.js";
import { closeSheet } from "./desk.js";
import { closeDialog } from "./dialogs.js";

const STOP_BUTTONS = "#stop-answer";
const FOCUSABLE = "button, a, input, textarea, [tabindex], quest-question";
// Where the focus goes when the element that had it vanishes from inside of one of these.
const HEIRS = [
  ["#document-list", nextDocument],
  ["#conversation-list", nextConversation],
  ["#documents-panel", () => dropZone()],
  ["#chat-zone", () => document.querySelector("#question textarea")],
];

/** Let Escape close the page detail, or else stop what runs. */
export function listenForEscape() {
  document.addEventListener("keydown", (event) => {
    // An input method takes Escape for its own choice.
    if (event.key !== "Escape" || event.isComposing || event.defaultPrevented || isInOtherDialog(event)) return;
    if (closeDialog() || closeContext() || document.querySelector("quest-reading")?.closePage() || closeSheet()) return;
    [...document.querySelectorAll(STOP_BUTTONS)].find((button) => button.offsetParent)?.click();
  });
}

/** A dialog that is none of ours closes itself. */
function isInOtherDialog(event) {
  return event.composedPath().some((element) => element.localName === "dialog");
}

/** Hand the focus on when its element is taken away: to the question box, the next document, the drop zone. */
export function keepFocus() {
  let last = null;
  const remember = (element) => {
    const heir = HEIRS.find(([selector]) => element?.closest(selector));
    last = heir ? { element, find: heir[1], index: indexInList(element) } : null;
  };
  document.addEventListener("focusin", ({ target }) => remember(target));
  // Not every browser focuses a button that is clicked. Whoever clicks on nothing gives the focus up.
  document.addEventListener("pointerdown", ({ target }) => remember(target.closest(FOCUSABLE)), true);
  // An element that a style has hidden keeps the focus until the page is drawn again, of which nothing tells.
  const isLost = () => [document.body, last.element].includes(document.activeElement) && !isThere(last.element);
  let frame = null;
  const look = () => {
    frame = null;
    if (!last || !isLost()) return;
    const { find, index } = last;
    last = null;
    find(index)?.focus({ preventScroll: true });
  };
  new MutationObserver(() => (frame ??= requestAnimationFrame(look))).observe(document.body, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["class", "style", "hidden", "disabled"],
  });
}

function isThere(element) {
  return element.checkVisibility({ visibilityProperty: true }) && !element.disabled;
}

function indexInList(element) {
  const row = element.closest("#document-list li, #conversation-list li");
  return row ? [...row.parentElement.children].indexOf(row) : 0;
}

function nextDocument(index) {
  return rowButton("#document-list", index) ?? dropZone();
}

function nextConversation(index) {
  return rowButton("#conversation-list", index) ?? document.querySelector("#conversation-list button");
}

/** The first control of a list's row, or of its last row. */
function rowButton(list, index) {
  const rows = document.querySelectorAll(`${list} li`);
  return rows[Math.min(index, rows.length - 1)]?.querySelector("a, button");
}

function dropZone() {
  return document.querySelector("#document-files button");
}
