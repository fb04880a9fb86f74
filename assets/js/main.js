// Entry point of the page's own script: defines the custom elements that ui/ puts on the page, and what holds for all
// of it.
//
// Plain modules, run as they stand; there is no build step. Gradio builds the page around them. Each part of the page
// defines its elements in a module of its own; what is here is the frame.

import { defineChat } from "./chat-elements.js";
import { ChatTitle, listenForNewChat } from "./chat-title.js";
import { ConnectionLine } from "./connection-line.js";
import { watchServer } from "./connection.js";
import { followContextBar } from "./context-bar.js";
import { followAddress } from "./conversation.js";
import { followDesk } from "./desk.js";
import { followDialogs } from "./dialogs.js";
import { DocumentView } from "./document-view.js";
import { keepFocus, listenForEscape } from "./keyboard.js";
import { KeysDialog, listenForKeys } from "./keys-dialog.js";
import { defineLibrary } from "./library-elements.js";
import { defineModels } from "./model-elements.js";
import { placeNotices } from "./notices.js";
import { defineRace } from "./race-elements.js";
import { defineReading } from "./reading-elements.js";
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
