// The list of keys, and the keys that work everywhere on the page; Escape is in keyboard.js.
//
// They are taken by their place on the keyboard: with Alt, some systems type other characters.

import { beginChat } from "../chat/chat-title.js";
import { closeSide, narrow, phone, showSide, shownTab, toggleLibrary } from "./desk.js";
import { askForDialog, openDialog } from "./dialogs.js";

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const ALT = IS_MAC ? "⌥" : "Alt";
const CONTROL = IS_MAC ? "⌘" : "Ctrl";
const KEYS = [
  [[ALT, "N"], "New chat"],
  [[CONTROL, "K"], "Search the library"],
  [[ALT, "Q"], "Go to the question"],
  [["Enter"], "Ask"],
  [["Shift", "Enter"], "New line in the question"],
  [["Esc"], "Close what is open, or stop the answer"],
  [[ALT, "1"], "Page of the document"],
  [[ALT, "2"], "Reading: what the model looks at"],
  [[ALT, "3"], "Race"],
  [[ALT, "0"], "Close or open the right side"],
  [[ALT, "S"], "Settings"],
  [["?"], "This list"],
];
const TABS = { Digit1: "page", Digit2: "reading", Digit3: "race" };

export class KeysDialog extends HTMLElement {
  connectedCallback() {
    if (this.firstChild) return;
    const rows = KEYS.map(([keys, what]) => `<dt>${keys.map((key) => `<kbd>${key}</kbd>`).join(" ")}</dt><dd>${what}</dd>`);
    this.innerHTML = `<div class="dialog-head"><h2>Keyboard</h2>
      <button type="button" class="dialog-close" aria-label="Close">✕</button></div><dl>${rows.join("")}</dl>`;
    window.addEventListener("quest-open-dialog", ({ detail }) => {
      if (detail.dialog === "keys") openDialog(document.getElementById("keys-dialog"), "keys", "Keyboard");
    });
  }
}

/** Take the keys that work everywhere. */
export function listenForKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.defaultPrevented || document.documentElement.dataset.dialog) return;
    if (act(event)) event.preventDefault();
  });
}

function act(event) {
  const { key, code, altKey, shiftKey } = event;
  const control = event.ctrlKey || event.metaKey;
  if (key === "?" && !control && !altKey) return !isTyping(event) && run(() => askForDialog("keys"));
  if (code === "KeyK" && control && !altKey && !shiftKey) return run(search);
  if (!altKey || control || shiftKey) return false;
  if (code === "KeyN") return run(beginChat);
  if (code === "KeyQ") return run(goToQuestion);
  if (code === "KeyS") return run(() => askForDialog("settings"));
  if (code in TABS) return run(() => goToTab(TABS[code]));
  if (code === "Digit0") return run(() => (shownTab() ? closeSide() : showSide()));
  return false;
}

function run(action) {
  action();
  return true;
}

function isTyping(event) {
  const element = event.composedPath()[0];
  return Boolean(element.isContentEditable) || (element.matches?.("input, textarea, select") && !/^(radio|checkbox|range)$/.test(element.type));
}

function search() {
  const field = document.getElementById("library-search");
  if (!field.getClientRects().length && narrow.matches) toggleLibrary();
  field.focus();
}

function goToQuestion() {
  if (document.documentElement.dataset.sheet === "library") toggleLibrary();
  if (phone.matches && shownTab()) closeSide();
  document.querySelector("#question textarea")?.focus();
}

function goToTab(tab) {
  showSide(tab);
  document.querySelector("quest-side-tabs")?.focusTab();
}
