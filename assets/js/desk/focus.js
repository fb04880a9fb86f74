// Which element has the focus, also inside of custom elements.

/** The innermost focused element, null where nothing is focused. */
export function focusedElement() {
  let element = document.activeElement;
  while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  return element === document.body ? null : element;
}
