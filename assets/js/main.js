// Entry point of the page's own script: defines the custom elements that ui/ puts on the page.
//
// Plain modules, run as they stand; there is no build step. Gradio builds the page around them.

import { LivePanel } from "./live-panel.js";

customElements.define("quest-live-panel", LivePanel);
