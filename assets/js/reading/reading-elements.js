// Defines the elements that show what the model reads.

import { EngineView } from "./engine-view.js";
import { LiveStrip } from "./live-strip.js";
import { followTelemetry } from "./live-stream.js";
import { ReadingPanel } from "./reading-panel.js";
import { followReading } from "./reading-state.js";

/** Called once, as the page starts. */
export function defineReading() {
  followReading();
  followTelemetry();
  customElements.define("quest-engine-view", EngineView);
  customElements.define("quest-reading", ReadingPanel);
  customElements.define("quest-live-strip", LiveStrip);
}
