// The context bar's details: what fills the window, above the line that is clicked.
//
// Gradio writes the bar anew after each answer, so that whether they are open stands in the root element's data-context.

const root = document.documentElement;
const OPENER = ".context-line";

/** Open them by the bar, close them by whatever is clicked next. */
export function followContextBar() {
  document.addEventListener("click", ({ target }) => {
    if (target.closest?.(OPENER)) show(root.dataset.context !== "open");
    else if (!target.closest?.(".context-details")) show(false);
  });
}

/** Close the details; false if they are not open. */
export function closeContext() {
  if (root.dataset.context !== "open") return false;
  show(false);
  document.querySelector(OPENER)?.focus();
  return true;
}

function show(opens) {
  root.dataset.context = opens ? "open" : "closed";
  document.querySelector(OPENER)?.setAttribute("aria-expanded", String(opens));
}
