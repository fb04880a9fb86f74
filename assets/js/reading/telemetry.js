// Telemetry of one conversation: the event stream of app/web/server.py and the look-ups beside it.
//
// The stream is open while the tab lives, also while nobody sees it: by it the server knows that the conversation has a
// tab. What events mean is for others to know.

import { openStream } from "../streams/shared-streams.js";

const RETRY_MS = 2000;
const NOT_FOUND = 404;

/**
 * The event stream; calls `onEvent` with each event, `onConnection` with whether the stream is open, and `onClosed` with
 * the server's sentence if the conversation is closed.
 */
export class TelemetryStream {
  constructor(conversationId, onEvent, onConnection, onClosed) {
    this.address = `${base(conversationId)}/events`;
    this.onEvent = onEvent;
    this.onConnection = onConnection;
    this.onClosed = onClosed;
    this.connect();
  }

  connect() {
    let rest = "";
    let closed = false;
    this.closeStream = openStream(this.address, {
      onStart: (status) => {
        closed = status === NOT_FOUND;
        this.onConnection(status === 200);
      },
      onText: (text) => {
        const events = (rest + text).split("\n\n");
        rest = events.pop();
        for (const event of events) if (event.startsWith("data: ")) this.onEvent(JSON.parse(event.slice(6)));
      },
      onEnd: () => {
        this.onConnection(false);
        if (closed) this.onClosed(JSON.parse(rest).error);
        else this.retryTimer = setTimeout(() => this.connect(), RETRY_MS);
      },
    });
  }

  close() {
    clearTimeout(this.retryTimer);
    this.closeStream();
  }
}

/** A step of the last answer, or null if it is not kept any more. */
export function fetchStep(conversationId, step) {
  return fetchJson(`${base(conversationId)}/steps/${step}`);
}

/** The text of a KV page and where it comes from, or null if the page is gone. */
export function fetchPage(conversationId, page) {
  return fetchJson(`${base(conversationId)}/pages/${page}`);
}

/** The page map of a step event as bytes, row by row; null for a step that read everything. */
export function decodePageReads(event) {
  return event.page_reads ? decodeBytes(event.page_reads) : null;
}

/** The bytes of a text in base64. In a plain loop: a step's map has fifty thousand, and `from` takes milliseconds. */
export function decodeBytes(encoded) {
  const text = atob(encoded);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

function base(conversationId) {
  return `telemetry/${encodeURIComponent(conversationId)}`;
}

async function fetchJson(address) {
  try {
    const response = await fetch(address);
    return response.ok ? await response.json() : null;
  } catch {
    // The server has stopped; the panel says so by its connection.
    return null;
  }
}
