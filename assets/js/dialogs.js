// The dialogs beside the desk: settings, and whatever else hears "quest-open-dialog" {dialog} on the window.
//
// While one is open, the desk is inert, so that the focus stays inside; it goes back to where it came from. Which dialog is
// open stands in the root element's data-dialog.

const root = document.documentElement;
let open = null; // { element, cameFrom }

/** Open a dialog beside the desk, one at a time; its name stands in data-dialog. */
export function openDialog(element, name, label) {
  closeDialog();
  open = { element, cameFrom: document.activeElement };
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

/** Open the dialogs of this page's frame when they are asked for. */
export function followDialogs() {
  window.addEventListener("quest-open-dialog", ({ detail }) => {
    if (detail.dialog === "settings") openDialog(document.getElementById("settings-dialog"), "settings", "Settings");
  });
  document.addEventListener("click", ({ target }) => {
    const { dialog } = target.closest?.("[data-dialog]:not(html)")?.dataset ?? {};
    if (dialog) window.dispatchEvent(new CustomEvent("quest-open-dialog", { detail: { dialog } }));
    else if (target.closest?.(".dialog-close") || target.id === "settings-dialog") closeDialog();
  });
}
