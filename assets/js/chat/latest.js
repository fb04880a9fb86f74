// Where the conversation is scrolled to: at its end as long as the reader is there, and nowhere else once somebody has
// scrolled up. Then a button leads back.

const BUTTON = "#jump-to-latest";
// So near to the end is at the end.
const NEAR_PX = 60;

let atEnd = true;
let area = null;

/** Follow the end of the messages. */
export function keepLatestInView() {
  const look = () => {
    const found = document.querySelector("#messages .bubble-wrap");
    if (found !== area) follow(found);
    if (atEnd) goToEnd();
    tell();
  };
  let frame = null;
  const soon = () => (frame ??= requestAnimationFrame(() => ((frame = null), look())));
  // Messages grow by their text, and by what custom elements draw into them.
  new MutationObserver(soon).observe(document.body, { subtree: true, childList: true, characterData: true });
  window.addEventListener("quest-answer-row", soon);
  window.addEventListener("resize", soon);
  // What is asked is looked at.
  for (const type of ["quest-ask", "quest-continue", "quest-edited", "quest-retry", "quest-opened"]) {
    window.addEventListener(type, () => (atEnd = true));
  }
  document.addEventListener("click", ({ target }) => {
    if (!target.closest?.(BUTTON)) return;
    atEnd = true;
    goToEnd();
    tell();
    document.querySelector("#question textarea")?.focus({ preventScroll: true });
  }, true);
  soon();
}

function follow(found) {
  area = found;
  if (!area) return;
  let before = area.scrollTop;
  area.addEventListener(
    "scroll",
    () => {
      const isUp = area.scrollTop < before;
      before = area.scrollTop;
      // Growing text leaves the end behind without anybody having scrolled.
      if (isNearEnd()) atEnd = true;
      else if (isUp) atEnd = false;
      tell();
    },
    { passive: true },
  );
}

function isNearEnd() {
  return area.scrollHeight - area.scrollTop - area.clientHeight < NEAR_PX;
}

function goToEnd() {
  if (area && !document.querySelector("#messages .start")) area.scrollTop = area.scrollHeight;
}

function tell() {
  const button = document.querySelector(BUTTON);
  if (button) button.hidden = atEnd || !area || isNearEnd();
}
