// Entry point of the page's own script: defines the custom elements that ui/ puts on the page, and what holds for all
// of it.
//
// Plain modules, run as they stand; there is no build step. Gradio builds the page around them.

import { watchServer } from "./connection.js";
import { takeDrops } from "./drop.js";
import { keepFocus, listenForEscape } from "./keyboard.js";
import { askBeforeLinks } from "./links.js";
import { LivePanel } from "./live-panel.js";
import { nameControls } from "./names.js";
import { placeNotices } from "./notices.js";
import { QuestionBubble } from "./question-bubble.js";
import { quietUploads } from "./quiet-uploads.js";
import { shareGradioStreams } from "./shared-streams.js";
import { UndoOffer } from "./undo.js";

quietUploads();
shareGradioStreams();
customElements.define("quest-live-panel", LivePanel);
customElements.define("quest-question", QuestionBubble);
customElements.define("quest-undo", UndoOffer);
askBeforeLinks("#messages");
placeNotices();
listenForEscape();
keepFocus();
takeDrops();
watchServer();
nameControls();
