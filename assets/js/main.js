// Entry point of the page's own script: defines the custom elements that ui/ puts on the page, and what holds for all
// of it.
//
// Plain modules, run as they stand; there is no build step. Gradio builds the page around them. Each part of the page
// defines its elements in a module of its own; what is here is the frame.

import { AddDocuments } from "./add-documents.js";
import { markAnswers } from "./answer-markers.js";
import { AnswerRow } from "./answer-row.js";
import { ColumnTabs } from "./column-tabs.js";
import { watchServer } from "./connection.js";
import { followContextBar } from "./context-bar.js";
import { followAddress } from "./conversation.js";
import { followDesk } from "./desk.js";
import { followDialogs } from "./dialogs.js";
import { DocumentView } from "./document-view.js";
import { keepFocus, listenForEscape } from "./keyboard.js";
import { defineLibrary } from "./library-elements.js";
import { defineModels } from "./model-elements.js";
import { nameControls } from "./names.js";
import { placeNotices } from "./notices.js";
import { Passages } from "./passages.js";
import { QuestionBubble } from "./question-bubble.js";
import { watchRestarts } from "./restart.js";
import { shareGradioStreams } from "./shared-streams.js";
import { SideHandle } from "./side-handle.js";
import { SideTabs } from "./side-tabs.js";

shareGradioStreams();
followDesk();
followDialogs();
followContextBar();
// Before the elements, which tell of conversations that are opened.
followAddress();
watchRestarts();
customElements.define("quest-live-panel", LivePanel);
customElements.define("quest-question", QuestionBubble);
customElements.define("quest-unanswered", UnansweredQuestion);
customElements.define("quest-add-documents", AddDocuments);
customElements.define("quest-documents", DocumentList);
customElements.define("quest-conversations", ConversationList);
customElements.define("quest-passages", Passages);
customElements.define("quest-answer-row", AnswerRow);
customElements.define("quest-column-tabs", ColumnTabs);
customElements.define("quest-document-view", DocumentView);
placeNotices();
listenForNewChat();
listenForEscape();
keepFocus();
watchServer();
nameControls();
