// Holds the one connection over which the server sends the event streams of all tabs (app/web/shared_streams.py).
//
// A shared worker: one for all tabs of a browser. A tab tells it which streams it wants, by numbers of its own; here
// they get numbers of this worker's. The connection is open while anybody wants a stream.

const streams = new Map(); // number here -> { port, number of the tab's }
let lastNumber = 0;
let connection = null; // { id, ready: a promise, abort }

self.onconnect = (event) => {
  const [port] = event.ports;
  const numbers = new Map(); // number of the tab's -> number here
  port.onmessage = ({ data }) => {
    if (data.open) {
      const number = ++lastNumber;
      numbers.set(data.open, number);
      streams.set(number, { port, number: data.open });
      add(number, data.address);
    } else if (data.close) {
      remove(numbers.get(data.close));
      numbers.delete(data.close);
    } else if (data.leave) {
      for (const number of numbers.values()) remove(number);
      numbers.clear();
    }
  };
};

function tell(number, what) {
  const stream = streams.get(number);
  if (!stream) return;
  if (what.end || what.broken) streams.delete(number);
  stream.port.postMessage({ number: stream.number, ...what });
  if (!streams.size) disconnect();
}

async function add(number, address) {
  try {
    connection ??= connect();
    const { id, ready } = connection;
    await ready;
    const added = await fetch(`/streams/${id}/${number}?address=${encodeURIComponent(address)}`, { method: "POST" });
    if (!added.ok) tell(number, { broken: true });
    // Its tab has gone meanwhile.
    else if (!streams.has(number)) end(id, number);
  } catch {
    tell(number, { broken: true });
  }
}

function remove(number) {
  if (!streams.delete(number) || !connection) return;
  if (streams.size) end(connection.id, number);
  else disconnect();
}

function end(id, number) {
  fetch(`/streams/${id}/${number}`, { method: "DELETE" }).catch(() => {});
}

function disconnect() {
  connection?.controller.abort();
  connection = null;
}

function connect() {
  // Not randomUUID(): browsers offer that on this machine's own address and over HTTPS only.
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const opened = { id, controller: new AbortController() };
  opened.ready = new Promise((resolve, reject) => read(opened, resolve).then(reject, reject));
  // Whoever waits for it hears of it; a connection that ends later has nobody waiting.
  opened.ready.catch(() => {});
  return opened;
}

/** Hand on the lines of a connection until it ends; then all streams are broken. */
async function read(opened, onReady) {
  try {
    const response = await fetch(`/streams/${opened.id}`, { signal: opened.controller.signal });
    if (!response.ok) throw new Error(`${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const { stream, ...what } = JSON.parse(line);
        if (stream === undefined) onReady();
        else tell(stream, what);
      }
    }
  } finally {
    if (connection === opened) {
      connection = null;
      for (const number of [...streams.keys()]) tell(number, { broken: true });
    }
  }
}
