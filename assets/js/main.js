// Entry point of the page's own script: defines the custom elements that ui/ puts on the page, and what holds for all
// of it.
//
// Plain modules, run as they stand; there is no build step. Gradio builds the page around them.

import { markAnswers } from "./answer-markers.js";
import { AnswerRow } from "./answer-row.js";
import { ColumnTabs } from "./side-tabs.js";
import { watchServer } from "./connection.js";
import { followAddress } from "./conversation.js";
import { ConversationList } from "./conversation-list.js";
import { DocumentList } from "./document-list.js";
import { DocumentView } from "./document-view.js";
import { keepDrafts, UnansweredQuestion } from "./drafts.js";
import { takeDrops } from "./drop.js";
import { followConversation } from "./following.js";
import { keepFocus, listenForEscape } from "./keyboard.js";
import { watchLibrary } from "./library.js";
import { askBeforeLinks } from "./links.js";
import { LivePanel } from "./live-panel.js";
import { followTelemetry } from "./live-stream.js";
import { nameControls } from "./names.js";
import { placeNotices } from "./notices.js";
import { Passages } from "./passages.js";
import { QuestionBubble } from "./question-bubble.js";
import { quietUploads } from "./quiet-uploads.js";
import { watchRestarts } from "./restart.js";
import { shareGradioStreams } from "./shared-streams.js";

quietUploads();
shareGradioStreams();
// Before the elements, which tell of conversations that are opened.
keepDrafts();
followConversation();
followAddress();
followTelemetry();
watchLibrary();
watchRestarts();
customElements.define("quest-live-panel", LivePanel);
customElements.define("quest-question", QuestionBubble);
customElements.define("quest-unanswered", UnansweredQuestion);
customElements.define("quest-documents", DocumentList);
customElements.define("quest-conversations", ConversationList);
customElements.define("quest-passages", Passages);
customElements.define("quest-answer-row", AnswerRow);
customElements.define("quest-column-tabs", ColumnTabs);
customElements.define("quest-document-view", DocumentView);
markAnswers();
askBeforeLinks("#messages");
placeNotices();
listenForEscape();
keepFocus();
takeDrops();
watchServer();
nameControls();
