// Event streams of this tab, over the connection that all tabs share (stream-worker.js); see app/web/shared_streams.py.
//
// Where a browser has no shared workers, each stream is a connection of its own, and six tabs are the limit.

import { QueueStream } from "./queue-stream.js";

const QUEUE_PATH = "/gradio_api/queue/data";
const JOIN_PATH = "/gradio_api/queue/join";
const UPLOAD_PROGRESS_PATH = "/gradio_api/upload_progress";

const nativeFetch = window.fetch.bind(window);
const streams = new Map(); // number -> the listeners of a stream
const queue = new QueueStream(openStream);
let lastNumber = 0;
let port = null;

function connectToWorker() {
  if (!("SharedWorker" in window)) return;
  const worker = new SharedWorker(new URL("stream-worker.js", import.meta.url), { name: "quest-chat-streams" });
  port = worker.port;
  port.onmessage = ({ data: { number, ...what } }) => hear(number, what);
  worker.onerror = () => {
    // It could not be loaded.
    port = null;
    breakAll();
  };
  // No browser tells a worker that a tab has closed.
  window.addEventListener("pagehide", () => port?.postMessage({ leave: true }));
  // A page that the user comes back to, as the browser has kept it.
  window.addEventListener("pageshow", (event) => event.persisted && breakAll());
}

function breakAll() {
  for (const number of [...streams.keys()]) hear(number, { broken: true });
}

function hear(number, { status, text, end, broken }) {
  const listeners = streams.get(number);
  if (!listeners) return;
  if (end || broken) streams.delete(number);
  if (status) listeners.onStart(status);
  else if (text) listeners.onText(text);
  else listeners.onEnd(Boolean(broken));
}

/**
 * Open an event stream; returns a function that closes it, after which nothing more is heard.
 *
 * Calls `onStart` with the HTTP status, `onText` with each part of the stream as it comes, and `onEnd` with whether the
 * stream broke off.
 */
export function openStream(address, listeners) {
  const { pathname, search } = new URL(address, document.baseURI);
  const number = ++lastNumber;
  streams.set(number, listeners);
  if (port) {
    port.postMessage({ open: number, address: pathname + search });
    return () => streams.delete(number) && port?.postMessage({ close: number });
  }
  const controller = new AbortController();
  readAlone(number, pathname + search, controller.signal);
  return () => {
    streams.delete(number);
    controller.abort();
  };
}

async function readAlone(number, address, signal) {
  try {
    const response = await nativeFetch(address, { signal, headers: { Accept: "text/event-stream" } });
    hear(number, { status: response.status });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) hear(number, { text: part.value });
    hear(number, { end: true });
  } catch {
    hear(number, { broken: true });
  }
}

/** Let Gradio's streams, of its events and of an upload's progress, use the shared connection, too. */
export function shareGradioStreams() {
  connectToWorker();
  window.fetch = async (resource, options) => {
    const address = new URL(resource.url ?? resource, document.baseURI);
    const signal = options?.signal ?? resource.signal;
    if (address.pathname === QUEUE_PATH) return fetchStream((listeners) => queue.hear(address, listeners), signal);
    if (address.pathname === UPLOAD_PROGRESS_PATH) {
      return fetchStream((listeners) => openStream(address, listeners), signal);
    }
    if (address.pathname === JOIN_PATH) return askForEvent(resource, options);
    return nativeFetch(resource, options);
  };
}

/** Gradio's client asks for an event; the queue is told once it has read the answer. */
async function askForEvent(resource, options) {
  queue.asked();
  try {
    const response = await nativeFetch(resource, options);
    const text = await response.text();
    const answer = new Response(text, response);
    const read = answer.json.bind(answer);
    answer.json = async () => {
      try {
        return await read();
      } finally {
        // The client does the rest without waiting for anything else.
        setTimeout(tellAnswer, 0, response.ok, text);
      }
    };
    return answer;
  } catch (error) {
    queue.refused();
    throw error;
  }
}

function tellAnswer(isTaken, text) {
  if (isTaken) queue.taken(JSON.parse(text).event_id);
  else queue.refused();
}

function fetchStream(open, signal) {
  return new Promise((resolve, reject) => {
    const encoder = new TextEncoder();
    let body, close;
    const stream = new ReadableStream({ start: (controller) => (body = controller), cancel: () => close() });
    close = open({
      onStart: (status) => resolve(new Response(stream, { status, headers: { "Content-Type": "text/event-stream" } })),
      onText: (text) => body.enqueue(encoder.encode(text)),
      onEnd: (broken) => {
        const error = new TypeError("The connection broke.");
        // Has no effect on a response that has begun.
        reject(error);
        if (broken) body.error(error);
        else body.close();
      },
    });
    signal?.addEventListener("abort", () => {
      close();
      reject(signal.reason);
      try {
        body.close();
      } catch {
        // It has ended already.
      }
    });
  });
}
