// The handle between the conversation and the right zone: drag it, or use the arrow keys; the width is remembered.

const STORAGE_KEY = "quest-chat-side-width";
const LEAST = 360;
const MOST = 900;
const USUAL = 460;
const STEP = 20;
// What the other zones need at least.
const OTHERS = 260 + 420;

export class SideHandle extends HTMLElement {
  connectedCallback() {
    if (this.width) return;
    this.setAttribute("aria-label", "Width of the side");
    this.setAttribute("aria-valuemin", LEAST);
    this.addEventListener("pointerdown", (event) => this.drag(event));
    this.addEventListener("keydown", (event) => this.press(event));
    this.addEventListener("dblclick", () => this.set(USUAL));
    window.addEventListener("resize", () => this.show());
    this.set(Number(localStorage.getItem(STORAGE_KEY)) || USUAL, false);
  }

  set(width, keep = true) {
    this.width = Math.round(Math.min(MOST, Math.max(LEAST, width)));
    if (keep) localStorage.setItem(STORAGE_KEY, this.width);
    this.show();
  }

  /** As wide as wanted, or as the window allows. */
  show() {
    const most = Math.max(LEAST, Math.min(MOST, innerWidth - OTHERS));
    const width = Math.min(this.width, most);
    document.documentElement.style.setProperty("--quest-side-width", `${width}px`);
    this.setAttribute("aria-valuemax", most);
    this.setAttribute("aria-valuenow", width);
  }

  drag(event) {
    if (event.button) return;
    event.preventDefault();
    this.focus({ preventScroll: true });
    this.setPointerCapture(event.pointerId);
    const move = ({ clientX }) => this.set(innerWidth - clientX);
    this.addEventListener("pointermove", move);
    const end = () => this.removeEventListener("pointermove", move);
    this.addEventListener("lostpointercapture", end, { once: true });
  }

  press(event) {
    const widths = { ArrowLeft: this.width + STEP, ArrowRight: this.width - STEP, Home: MOST, End: LEAST };
    if (!(event.key in widths)) return;
    event.preventDefault();
    this.set(widths[event.key]);
  }
}
