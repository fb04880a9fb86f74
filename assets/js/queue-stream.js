// The messages of this tab's Gradio events, none of them lost.
//
// Gradio's server ends the stream of a tab's messages when none of its events is pending, and tells so in a last message,
// "close_stream"; its client asks for another stream with the next event, unless it believes that the last one is open.
// An event that the server takes after that end, and of which the client hears before it hears of the end, is told to
// nobody. So to the client the stream never ends here, and below it there is a connection whenever an event is pending.

const PREFIX = "data:";
const OK = 200;
const BETWEEN = "\n\n";

/**
 * What Gradio's client takes for one stream.
 *
 * `open` is `openStream` of shared-streams.js.
 */
export class QueueStream {
  #open;
  #address;
  #listeners = null;
  #hasStarted = false;
  #connection = null; // { close }
  #pending = new Set();
  // Events that have ended before the answer to their request was here.
  #ended = new Set();

  constructor(open) {
    this.#open = open;
  }

  /** Gradio's client asks for the stream; returns a function that ends it for good. */
  hear(address, listeners) {
    this.#address = address;
    this.#listeners = listeners;
    this.#hasStarted = false;
    this.#connect();
    return () => {
      this.#listeners = null;
      this.#pending.clear();
      this.#disconnect();
    };
  }

  /** The server has taken an event. */
  taken(eventId) {
    if (this.#ended.delete(eventId)) return;
    this.#pending.add(eventId);
    this.#connect();
  }

  #connect() {
    if (this.#connection || !this.#listeners) return;
    const connection = (this.#connection = { close: () => {} });
    // Of a connection that was given up nothing is heard any more.
    const heard = (listener) => (value) => connection === this.#connection && listener(value);
    let rest = "";
    connection.close = this.#open(this.#address, {
      onStart: heard((status) => this.#started(status)),
      onText: heard((text) => {
        const messages = (rest + text).split(BETWEEN);
        rest = messages.pop();
        for (const message of messages) if (connection === this.#connection) this.#handOn(message);
      }),
      onEnd: heard(() => this.#broken()),
    });
  }

  #started(status) {
    if (!this.#hasStarted) this.#listeners.onStart(status);
    else if (status !== OK) this.#broken();
    this.#hasStarted = true;
  }

  #disconnect() {
    const connection = this.#connection;
    this.#connection = null;
    connection?.close();
  }

  #handOn(message) {
    const { msg: kind, event_id: eventId } = JSON.parse(message.slice(PREFIX.length));
    if (kind === "close_stream") {
      this.#disconnect();
      // What the server has taken since waits there for the next connection.
      if (this.#pending.size) this.#connect();
      return;
    }
    if (kind === "process_completed" && !this.#pending.delete(eventId)) this.#ended.add(eventId);
    this.#listeners.onText(message + BETWEEN);
  }

  /** The connection has ended without a word. The server has forgotten what was pending; of that the client is told. */
  #broken() {
    this.#disconnect();
    if (!this.#pending.size) return;
    this.#pending.clear();
    const { onEnd } = this.#listeners;
    this.#listeners = null;
    onEnd(true);
  }
}
