// Defines the elements that show what the model reads.

import { LivePanel } from "./live-panel.js";

/** Called once, as the page starts. */
export function defineReading() {
  customElements.define("quest-live-panel", LivePanel);
}
