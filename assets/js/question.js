// Puts the cursor into the question box when the page opens.
//
// Only where the box is in view: below the width at which the columns stand one below the other (page.css), it would
// scroll past the documents and, on a telephone, raise the keyboard.

const SIDE_BY_SIDE = "(min-width: 861px)";

/** Let typing begin a question. */
export function focusQuestion() {
  if (matchMedia(SIDE_BY_SIDE).matches) document.querySelector("#question textarea")?.focus({ preventScroll: true });
}
