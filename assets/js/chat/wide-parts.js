// Tables, code and formulas that are wider than an answer scroll in their own box, and so the keyboard must reach them.

const WIDE = "#messages .bot-row .md :is(table, pre, .katex-display)";

/** Look at them now and whenever the messages or the window change. */
export function reachWideParts() {
  let frame = null;
  const look = () => {
    frame = null;
    // All sizes are read before anything is written.
    const wide = [...document.querySelectorAll(WIDE)].map((part) => [part, part.scrollWidth > part.clientWidth + 1]);
    for (const [part, isWide] of wide) {
      if (isWide && part.tabIndex < 0) part.tabIndex = 0;
      else if (!isWide && part.hasAttribute("tabindex")) part.removeAttribute("tabindex");
    }
  };
  const soon = () => (frame ??= requestAnimationFrame(look));
  new MutationObserver(soon).observe(document.body, { subtree: true, childList: true });
  window.addEventListener("resize", soon);
}
