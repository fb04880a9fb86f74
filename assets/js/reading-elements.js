// Defines the elements that show what the model reads.

import { LivePanel } from "./engine-view.js";
import { followTelemetry } from "./live-stream.js";

/** Called once, as the page starts. */
export function defineReading() {
  customElements.define("quest-live-panel", LivePanel);
}
