// The tab's telemetry: one stream, of the conversation that the tab shows, for all who want to hear it.
//
// A browser allows few connections, so nobody opens another. On the window one hears, as an event's detail,
//   "quest-telemetry"   each event of the stream (app/chat/answers/telemetry.py); also {type: "closed", sentence} if the
//                       conversation is not there any more,
//   "quest-race-event"  what a race tells, {type: "race", ...},
// and, with nothing to tell but that it is time to look again, "quest-changed" (the conversation), "quest-library" and
// "quest-models". The last three are sent also when the stream comes back: something may have been missed.

import { checkServer, server } from "../streams/connection.js";
import { currentConversation } from "../chat/conversation.js";
import { TelemetryStream } from "./telemetry.js";

const LOOK_AGAIN = ["changed", "library", "models"];

let stream = null;

/** Hear the conversation that the tab shows, and each that it shows later. */
export function followTelemetry() {
  window.addEventListener("quest-opened", hearAgain);
}

/** Begin anew, for one who has come late: if nothing runs, the first event tells of the last answer. */
export function hearAgain() {
  stream?.close();
  stream = new TelemetryStream(currentConversation(), tell, tellConnection, (sentence) => tell({ type: "closed", sentence }));
}

function tell(event) {
  if (LOOK_AGAIN.includes(event.type)) window.dispatchEvent(new Event(`quest-${event.type}`));
  else if (event.type === "race") window.dispatchEvent(new CustomEvent("quest-race-event", { detail: event }));
  else window.dispatchEvent(new CustomEvent("quest-telemetry", { detail: event }));
}

function tellConnection(open) {
  // The stream breaks with the server, and comes back with it: so this is the time to look.
  if (open !== server.reachable) checkServer();
  if (open) for (const type of LOOK_AGAIN) tell({ type });
}
