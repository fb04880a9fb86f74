// Whether the server can be reached, and how far its model is: one state for all of the page.
//
// Asked of /healthz while the tab is visible. The root element's data-server is "lost" while nobody answers, which the
// style sheets follow; scripts hear "quest-server" on the window, and "quest-instance" with which start of the server it
// is. A slow answer is no loss: the machine may be busy.

const POLL_MS = 3000;
const LOST_POLL_MS = 1000;
const PATIENCE_MS = 10_000;

/** The last known state; `stage` and `message` as in ModelStatus, "" until they are known, `engine` the address of another
 * engine that is to answer, "" for our own; `asksForKey`: it answers, but no longer takes the key that this browser has
 * signed in with. */
export const server = { reachable: true, asksForKey: false, stage: "", message: "", engine: "" };

let timer = null;

/** Begin to watch. */
export function watchServer() {
  document.addEventListener("visibilitychange", checkServer);
  checkServer();
}

/** Ask now, because something failed, and go on from there. */
export async function checkServer() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const response = await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.status === 401) {
      tell({ reachable: false, asksForKey: true });
    } else {
      const { status, message, engine, instance } = await response.json();
      if (instance) window.dispatchEvent(new CustomEvent("quest-instance", { detail: instance }));
      tell({ reachable: true, stage: status, message, engine });
    }
  } catch (error) {
    if (error.name !== "TimeoutError" && !document.hidden) tell({ reachable: false });
  }
  clearTimeout(timer);
  timer = setTimeout(checkServer, server.reachable ? POLL_MS : LOST_POLL_MS);
}

function tell(told) {
  const state = { ...server, asksForKey: false, ...told };
  if (Object.keys(state).every((name) => server[name] === state[name])) return;
  Object.assign(server, state);
  document.documentElement.dataset.server = state.reachable ? "reached" : "lost";
  window.dispatchEvent(new Event("quest-server"));
}
