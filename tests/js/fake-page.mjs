// As much of a browser's page as modules need that are tested for what they work out, not for what they draw.
//
// Imported before the module under test. Each test file is a process of its own, so nothing is put back.

const page = new EventTarget();

/** What is asked of the server, and what it answers: `answers` maps an address to JSON. */
export const server = { asked: [], answers: {} };

class FakeElement extends EventTarget {
  style = {};
  attributes = {};

  setAttribute(name, value) {
    this.attributes[name] = String(value);
  }

  getAttribute(name) {
    return this.attributes[name] ?? null;
  }
}

/** A canvas of a size, with the rectangles that were filled: [x, y, width, height, colour]. */
export function fakeCanvas(width, height) {
  const canvas = Object.assign(new FakeElement(), { clientHeight: height, parentElement: { clientWidth: width } });
  canvas.filled = [];
  const context = {
    setTransform() {},
    clearRect: () => (canvas.filled = []),
    fillRect: (...box) => canvas.filled.push([...box, context.fillStyle]),
    strokeRect() {},
  };
  canvas.getContext = () => context;
  canvas.getBoundingClientRect = () => ({ left: 0, top: 0, width, height });
  return canvas;
}

async function fetchJson(address) {
  server.asked.push(String(address));
  const answer = server.answers[String(address)];
  return { ok: answer !== undefined, status: answer === undefined ? 404 : 200, json: async () => answer };
}

class Observer {
  observe() {}
  disconnect() {}
}

/** Let what was promised or put off until now happen. */
export function settled(milliseconds = 0) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** The details of an event's occurrences on the window, from now on. */
export function heard(name) {
  const details = [];
  page.addEventListener(name, (event) => details.push(event.detail ?? null));
  return details;
}

Object.assign(page, { fetch: fetchJson, devicePixelRatio: 1 });
globalThis.window = page;
globalThis.fetch = fetchJson;
globalThis.HTMLElement = FakeElement;
globalThis.ResizeObserver = globalThis.MutationObserver = Observer;
globalThis.requestAnimationFrame = (callback) => setTimeout(callback, 0);
globalThis.getComputedStyle = () => ({ getPropertyValue: (name) => (name.includes("heat") ? "#000000" : "#ffffff") });
globalThis.location = new URL("http://127.0.0.1:7860/");
globalThis.history = {
  steps: [],
  pushState(_, title, address) {
    this.steps.push(["push", address]);
    location.href = new URL(address, location).href;
  },
  replaceState(_, title, address) {
    this.steps.push(["replace", address]);
    location.href = new URL(address, location).href;
  },
};
globalThis.document = Object.assign(new EventTarget(), {
  hidden: false,
  baseURI: location.href,
  documentElement: new FakeElement(),
  body: new FakeElement(),
});
