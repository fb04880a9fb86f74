// Entry point of the page's own script: defines the custom elements that ui/ puts on the page.
//
// Plain modules, run as they stand; there is no build step. Gradio builds the page around them.

import { LivePanel } from "./live-panel.js";
import { quietUploads } from "./quiet-uploads.js";
import { shareGradioStreams } from "./shared-streams.js";

quietUploads();
shareGradioStreams();
customElements.define("quest-live-panel", LivePanel);
