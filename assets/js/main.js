// Entry point of the page's own script: defines the custom elements that ui/ puts on the page, and what holds for all
// of it.
//
// Plain modules, run as they stand; there is no build step. Gradio builds the page around them. Each part of the page
// defines its elements in a module of its own; what is here is the frame.

import { defineChat } from "./chat/chat-elements.js";
import { ChatTitle, listenForNewChat } from "./chat/chat-title.js";
import { ConnectionLine } from "./streams/connection-line.js";
import { watchServer } from "./streams/connection.js";
import { followContextBar } from "./chat/context-bar.js";
import { followAddress } from "./chat/conversation.js";
import { followDesk } from "./desk/desk.js";
import { followDialogs } from "./desk/dialogs.js";
import { DocumentView } from "./document/document-view.js";
import { keepFocus, listenForEscape } from "./desk/keyboard.js";
import { KeysDialog, listenForKeys } from "./desk/keys-dialog.js";
import { defineLibrary } from "./library/library-elements.js";
import { defineModels } from "./models/model-elements.js";
import { placeNotices } from "./desk/notices.js";
import { defineRace } from "./race/race-elements.js";
import { defineReading } from "./reading/reading-elements.js";
import { watchRestarts } from "./streams/restart.js";
import { shareGradioStreams } from "./streams/shared-streams.js";
import { SideHandle } from "./desk/side-handle.js";
import { SideTabs } from "./desk/side-tabs.js";

shareGradioStreams();
followDesk();
followDialogs();
followContextBar();
// Before the elements, which tell of conversations that are opened.
followAddress();
watchRestarts();
defineChat();
defineLibrary();
defineReading();
defineRace();
defineModels();
customElements.define("quest-chat-title", ChatTitle);
customElements.define("quest-connection-line", ConnectionLine);
customElements.define("quest-keys", KeysDialog);
customElements.define("quest-side-tabs", SideTabs);
customElements.define("quest-side-handle", SideHandle);
customElements.define("quest-document-view", DocumentView);
placeNotices();
listenForNewChat();
listenForKeys();
listenForEscape();
keepFocus();
watchServer();
