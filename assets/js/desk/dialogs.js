// The dialogs beside the desk: settings and keys; others hear "quest-open-dialog" {dialog} on the window, too.
//
// While one is open, the desk is inert, so that the focus stays inside, and goes round in it; it goes back to where it came
// from. Which dialog is open stands in the root element's data-dialog.

import { focusedElement } from "./focus.js";

const FOCUSABLE = "button, a[href], input, textarea, select, summary, [tabindex='0']";

const root = document.documentElement;
let open = null; // { element, cameFrom }

/** Open a dialog beside the desk, one at a time; its name stands in data-dialog. */
export function openDialog(element, name, label) {
  closeDialog();
  open = { element, cameFrom: focusedElement() };
  element.setAttribute("role", "dialog");
  element.setAttribute("aria-modal", "true");
  element.setAttribute("aria-label", label);
  element.tabIndex = -1;
  root.dataset.dialog = name;
  document.getElementById("desk").inert = true;
  element.focus({ preventScroll: true });
}

/** Close the open dialog; false if none is. */
export function closeDialog() {
  if (!open) return false;
  const { cameFrom } = open;
  open = null;
  delete root.dataset.dialog;
  document.getElementById("desk").inert = false;
  if (cameFrom?.isConnected) cameFrom.focus({ preventScroll: true });
  return true;
}

/** Open the dialogs of the page's frame when they are asked for. */
export function followDialogs() {
  window.addEventListener("quest-open-dialog", ({ detail }) => {
    if (detail.dialog === "settings") openDialog(document.getElementById("settings-dialog"), "settings", "Settings");
    else closeDialog();
  });
  document.addEventListener("click", ({ target }) => {
    const { dialog } = target.closest?.("[data-dialog]:not(html)")?.dataset ?? {};
    if (dialog) askForDialog(dialog);
    else if (target.closest?.(".dialog-close") || target === open?.element) closeDialog();
  });
  document.addEventListener("keydown", (event) => event.key === "Tab" && open && goRound(event));
}

/** Have a dialog opened by whoever has it. */
export function askForDialog(dialog) {
  window.dispatchEvent(new CustomEvent("quest-open-dialog", { detail: { dialog } }));
}

function goRound(event) {
  const all = [...open.element.querySelectorAll(FOCUSABLE)].filter((one) => one.getClientRects().length && !one.disabled);
  const [first, last] = [all[0], all.at(-1)];
  const { activeElement } = document;
  const isInside = open.element.contains(activeElement);
  if (event.shiftKey ? isInside && activeElement !== first && activeElement !== open.element : isInside && activeElement !== last) return;
  event.preventDefault();
  (event.shiftKey ? last : first)?.focus();
}
