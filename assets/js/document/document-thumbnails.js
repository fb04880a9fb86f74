// Beside the pages: small images of them, and a strip of the whole document that shows which pages an answer read.
//
// How much was read is a page's read score: how many times as much as its place gets anyway. Raw shares favour late and
// long pages whatever is asked, so where there is no score the strip stays neutral.

import { make } from "../desk/list-rows.js";
import { VirtualList } from "../desk/virtual-list.js";
import { pageName } from "../wording.js";

const WIDTH = 62;
const LABEL_HEIGHT = 20;
// As much as usual is no heat at all, four times as much all of it.
const HOTTEST = 4;
const LEAST_TOLD = 0.35;
const NAMED = 5;

/** Of each page index, 0 to 1; a map without pages that were read as usual, or of which that is not known. */
export function heatOf(pagesRead, documentId, pages) {
  const heat = new Map();
  for (const { document_id: id, page_index: index, read_score: score } of pagesRead) {
    if (id !== documentId || score == null || !(index in pages)) continue;
    const value = Math.log2(Math.max(1, score)) / Math.log2(HOTTEST);
    if (value > 0.02) heat.set(index, Math.min(1, value));
  }
  return heat;
}

export class Thumbnails {
  /** @param onChoose called with the index of the page that is gone to. */
  constructor(nav, strip, view, onChoose) {
    Object.assign(this, { nav, strip, view, onChoose, heat: new Map(), cited: new Set(), current: 0 });
    this.list = new VirtualList(nav, { gap: 8, makeItem: (index) => this.makeItem(index), onView: () => {} });
    nav.addEventListener("keydown", (event) => this.press(event));
    strip.addEventListener("click", (event) => this.chooseOnStrip(event));
    this.resizing = new ResizeObserver(() => this.drawStrip());
    this.resizing.observe(strip);
  }

  close() {
    this.list.close();
    this.resizing.disconnect();
  }

  /** Show the view's document. */
  show() {
    const { pages } = this.view.shown;
    this.list.clear();
    this.current = 0;
    this.list.setHeights(pages.map((page) => Math.round((WIDTH * page.height) / (page.width || 1)) + LABEL_HEIGHT));
    this.list.scrollTo(0, this.list.gap);
    this.setHeat([]);
  }

  makeItem(index) {
    const page = this.view.shown.pages[index];
    const height = Math.round((WIDTH * page.height) / (page.width || 1));
    const image = make("img", { alt: "", hidden: true, draggable: false });
    const sheet = make("span", { className: "thumbnail-sheet" }, image);
    sheet.style.height = `${height}px`;
    const element = make("button", { type: "button", className: "thumbnail" }, sheet, make("span", { textContent: page.label }));
    element.setAttribute("aria-label", pageName(page.label));
    element.dataset.index = index;
    element.addEventListener("click", () => this.onChoose(index));
    let address = null;
    const cancel = this.view.thumbnailImages.load(index, WIDTH * 2, (blob) => {
      if (!blob) return;
      address = URL.createObjectURL(blob);
      image.src = address;
      image.hidden = false;
    });
    const close = () => {
      cancel();
      if (address) URL.revokeObjectURL(address);
    };
    const item = { element, close };
    this.paint(index, item);
    return item;
  }

  paint(index, { element }) {
    const isCurrent = index === this.current;
    element.tabIndex = isCurrent ? 0 : -1;
    if (isCurrent) element.setAttribute("aria-current", "page");
    else element.removeAttribute("aria-current");
    element.style.setProperty("--heat", this.heat.get(index) ?? 0);
    element.classList.toggle("is-cited", this.cited.has(index));
  }

  setCurrent(index) {
    if (index === this.current) return;
    this.current = index;
    for (const [other, item] of this.list.items) this.paint(other, item);
    this.list.reveal(index);
    this.drawStrip();
  }

  /** What an answer read and cites of this document. */
  setHeat(pagesRead, citedIndices = []) {
    const { document_id: documentId, pages } = this.view.shown;
    this.heat = heatOf(pagesRead, documentId, pages);
    this.cited = new Set(citedIndices);
    for (const [index, item] of this.list.items) this.paint(index, item);
    this.drawStrip();
    const hottest = [...this.heat].filter(([, value]) => value >= LEAST_TOLD).sort((one, other) => other[1] - one[1]);
    const names = hottest.slice(0, NAMED).map(([index]) => pageName(pages[index].label));
    this.strip.setAttribute("aria-label", names.length ? `Read most for this answer: ${names.join(", ")}` : "Pages of the document");
    this.strip.title = names.length ? this.strip.getAttribute("aria-label") : "";
  }

  drawStrip() {
    const { strip } = this;
    const { clientWidth: width, clientHeight: height } = strip;
    const pages = this.view.shown?.pages ?? [];
    if (!width || !height || !pages.length) return;
    const ratio = window.devicePixelRatio || 1;
    strip.width = Math.round(width * ratio);
    strip.height = Math.round(height * ratio);
    const context = strip.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(strip);
    const color = (name) => style.getPropertyValue(name).trim();
    context.fillStyle = color("--quest-well");
    context.fillRect(0, 0, width, height);
    const pageHeight = height / pages.length;
    context.fillStyle = color("--quest-orange");
    for (const [index, value] of this.heat) {
      context.globalAlpha = 0.12 + 0.88 * value;
      context.fillRect(0, index * pageHeight, width, Math.max(2, pageHeight - (pageHeight > 6 ? 1 : 0)));
    }
    context.globalAlpha = 1;
    context.fillStyle = color("--quest-accent");
    for (const index of this.cited) context.fillRect(width - 4, index * pageHeight, 4, Math.max(3, pageHeight - 1));
    context.fillStyle = color("--body-text-color");
    context.fillRect(0, Math.min(height - 2, (this.current + 0.5) * pageHeight - 1), width, 2);
  }

  chooseOnStrip({ offsetY }) {
    const count = this.view.shown?.pages.length ?? 0;
    if (count) this.onChoose(Math.min(count - 1, Math.floor((offsetY / this.strip.clientHeight) * count)));
  }

  press(event) {
    const moves = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const last = this.view.shown.pages.length - 1;
    const index = Math.min(last, Math.max(0, this.current + moves[event.key]));
    this.onChoose(index);
    this.setCurrent(index);
    this.list.items.get(index)?.element.focus();
  }
}
