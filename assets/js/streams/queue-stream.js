// The messages of this tab's Gradio events: none of them lost, and all in the order in which the server wrote them.
//
// Gradio's server ends the stream of a tab's messages when none of its events is pending, and tells so in a last message,
// "close_stream"; its client asks for another stream with the next event, unless it believes that the last one is open.
// An event that the server takes after that end, and of which the client hears before it hears of the end, is told to
// nobody. So to the client the stream never ends here, and below it there is a connection whenever an event is pending.
//
// Messages may also be quicker than the answer to the request that began their event. Gradio's client keeps those until
// it has the answer, and then draws them over what later events have drawn meanwhile. So they wait here, and all that
// come after them.

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
  #requests = 0; // that ask for an event and are not answered
  #pending = new Set(); // events that the client knows of and that have not ended
  #waiting = []; // messages of the connection, and null for its end

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

  /** Gradio's client asks the server for an event; `taken` or `refused` is called when it has the answer. */
  asked() {
    this.#requests++;
  }

  /** The server has taken an event, and Gradio's client knows its id. */
  taken(eventId) {
    this.#requests--;
    this.#pending.add(eventId);
    this.#connect();
    this.#handOn();
  }

  /** The server has not taken an event. */
  refused() {
    this.#requests--;
    this.#handOn();
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
        this.#waiting.push(...messages);
        this.#handOn();
      }),
      onEnd: heard(() => {
        this.#waiting.push(null);
        this.#handOn();
      }),
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
    this.#waiting = [];
    connection?.close();
  }

  /** Hand on what has come, up to a message whose event the client may not know yet. */
  #handOn() {
    while (this.#waiting.length) {
      const [message] = this.#waiting;
      if (message === null) return this.#broken();
      const { msg: kind, event_id: eventId } = JSON.parse(message.slice(PREFIX.length));
      if (eventId && this.#requests && !this.#pending.has(eventId)) return;
      if (kind === "close_stream") return this.#closed();
      this.#waiting.shift();
      if (kind === "process_completed") this.#pending.delete(eventId);
      this.#listeners.onText(message + BETWEEN);
    }
  }

  /** The server has closed the connection. What it has taken since waits there for the next one. */
  #closed() {
    this.#disconnect();
    if (this.#pending.size) this.#connect();
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
