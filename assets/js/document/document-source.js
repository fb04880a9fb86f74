// What the server tells of documents and of an answer's sources; see app/web/document_routes.py and
// app/web/source_routes.py.
//
// Each look-up gives null if there is nothing to tell, and throws only what `signal` was aborted with. Texts and boxes are
// kept: a document's id is a hash of its content, so they never change.

const KEPT = 400;
// The server renders to steps of its own; few widths mean that most images come from its cache.
const WIDTH_STEP = 200;
// The server has too much to render; it says so, and what is asked for again comes.
const BUSY = 503;
const BUSY_TRIES = 5;
const BUSY_WAIT_MS = 500;
const kept = new Map(); // address -> promise

/** {document_id, name, kind, page_count, pages: [{index, label, width, height, note}], can_render, message}, or {error}. */
export function fetchDocument(documentId, signal) {
  return fetchJson(base(documentId), { signal, tellsErrors: true });
}

/** A page's text. */
export async function fetchPageText(documentId, index) {
  return (await fetchKept(`${base(documentId)}/pages/${index}/text`))?.text ?? null;
}

/** Boxes [left, top, right, bottom] of characters of a page's text, in fractions of its image. */
export async function fetchMarks(documentId, index, start, end) {
  return (await fetchKept(`${base(documentId)}/pages/${index}/marks?start=${start}&end=${end}`))?.boxes ?? [];
}

/** {hits: [{page_index, page_label, start_char, end_char, snippet}], more}. */
export function fetchHits(documentId, words, limit, signal) {
  return fetchJson(`${base(documentId)}/search?${new URLSearchParams({ words, limit })}`, { signal });
}

/** What an answer was made from. */
export function fetchSources(conversationId, turnId, signal) {
  const address = `conversations/${encodeURIComponent(conversationId)}/turns/${encodeURIComponent(turnId)}/sources`;
  return fetchJson(address, { signal });
}

/**
 * Loads page images, a few at a time, those nearest to the view first; what is not wanted any more is taken out of the
 * queue, or its request aborted.
 */
export class ImageQueue {
  /** @param distance of a page from the view, by its index. */
  constructor(documentId, distance) {
    this.documentId = documentId;
    this.distance = distance;
    this.waiting = new Set();
    this.running = new Set();
    this.isHeld = false;
  }

  /** Load an image of about that width in pixels; calls `onImage` with a blob, or with null. Returns what cancels it. */
  load(index, width, onImage) {
    const job = { index, width: WIDTH_STEP * Math.ceil(width / WIDTH_STEP), onImage, controller: new AbortController() };
    this.waiting.add(job);
    // What is asked for in one go is sorted first.
    queueMicrotask(() => this.next());
    return () => {
      this.waiting.delete(job);
      job.controller.abort();
    };
  }

  /** While pages fly past, nothing new is asked for. */
  hold(isHeld) {
    this.isHeld = isHeld;
    this.next();
  }

  close() {
    this.waiting.clear();
    for (const job of this.running) job.controller.abort();
  }

  next() {
    while (!this.isHeld && this.waiting.size && this.running.size < 3) {
      const job = [...this.waiting].reduce((best, one) =>
        this.distance(one.index) < this.distance(best.index) ? one : best,
      );
      this.waiting.delete(job);
      this.run(job);
    }
  }

  async run(job) {
    this.running.add(job);
    let image = null;
    try {
      const address = `${base(this.documentId)}/pages/${job.index}/image?width=${job.width}`;
      const response = await fetchPatiently(address, job.controller.signal);
      if (response.ok) image = await response.blob();
    } catch {
      // Aborted, or the server is gone, which the page says elsewhere.
    }
    this.running.delete(job);
    this.next();
    if (!job.controller.signal.aborted) job.onImage(image);
  }
}

function base(documentId) {
  return `documents/${encodeURIComponent(documentId)}`;
}

function fetchKept(address) {
  let found = kept.get(address);
  if (!found) {
    found = fetchJson(address).then((value) => {
      // It may be there the next time.
      if (value === null) kept.delete(address);
      return value;
    });
    kept.set(address, found);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return found;
}

async function fetchJson(address, { signal, tellsErrors = false } = {}) {
  try {
    const response = await fetchPatiently(address, signal);
    return response.ok || tellsErrors ? await response.json() : null;
  } catch (error) {
    if (signal?.aborted) throw error;
    // The server has stopped; the page says so elsewhere.
    return null;
  }
}

async function fetchPatiently(address, signal) {
  for (let tries = 1; ; tries++) {
    const response = await fetch(address, { signal });
    if (response.status !== BUSY || tries === BUSY_TRIES) return response;
    await new Promise((resolve) => setTimeout(resolve, BUSY_WAIT_MS));
  }
}
