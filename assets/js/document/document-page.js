// One page of the document view: its image with marks on it, or its text with the same marks.
//
// Made when it comes near the view, closed when it has left it.

import { fetchMarks, fetchPageText } from "./document-source.js";
import { setTextPage, toUtf16 } from "./document-text.js";
import { make } from "../desk/list-rows.js";
import { pageName } from "../wording.js";

const NOTES = {
  picture: "This page is a picture: there is no text to read or to search.",
  unreadable: "The text of this page cannot be read.",
  garbled: "The text of this page is not what the page shows: its letters are shifted. It needs text recognition.",
  recognised: "The text of this page was recognised from its picture and may have mistakes.",
};
const PULSE_MS = 1600;

export class PageItem {
  /**
   * @param index of the page.
   * @param view the document view: `shown` (the document), `images`, `showsText`, `imageSize(index)`, `marksOf(index)`,
   *   `setHeight(index, pixels)`.
   */
  constructor(index, view) {
    this.index = index;
    this.view = view;
    this.page = view.shown.pages[index];
    const name = pageName(this.page.label);
    this.element = make("article", { className: "page" });
    this.element.setAttribute("aria-label", name);
    this.element.dataset.index = index;
    this.label = make("span", { className: "page-label", textContent: name });
    this.label.setAttribute("aria-hidden", "true");
    this.sheet = make("div", { className: "sheet" });
    this.note = make("p", { className: "page-note", textContent: NOTES[this.page.note] ?? this.page.note });
    this.element.append(...(this.page.note ? [this.note] : []), this.sheet, this.label);
    if (view.showsText) this.showText();
    else this.showImage();
  }

  close() {
    this.isClosed = true;
    this.cancel?.();
    this.watching?.disconnect();
    clearTimeout(this.pulseTimer);
    if (this.address) URL.revokeObjectURL(this.address);
  }

  // As an image.

  showImage() {
    this.image = make("img", { alt: pageName(this.page.label), draggable: false, hidden: true });
    this.boxes = make("div", { className: "boxes" });
    this.sheet.classList.add("is-image");
    this.sheet.append(this.image, this.boxes);
    this.fit();
    this.showMarks();
  }

  /** Take the view's size; what is there is stretched until a sharper image comes. */
  fit() {
    if (this.view.showsText) return;
    const { width, height } = this.view.imageSize(this.index);
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${height}px`;
    const wanted = Math.round(width * (window.devicePixelRatio || 1));
    if (this.wanted && wanted <= this.wanted && wanted > this.wanted / 2) return;
    this.wanted = wanted;
    this.cancel?.();
    this.cancel = this.view.images.load(this.index, wanted, (blob) => this.take(blob));
  }

  take(blob) {
    if (!blob) {
      // Its text says more than an empty sheet.
      if (this.image.hidden) this.showTextInstead();
      return;
    }
    const before = this.address;
    this.address = URL.createObjectURL(blob);
    this.image.onload = () => before && URL.revokeObjectURL(before);
    this.image.src = this.address;
    this.image.hidden = false;
    this.sheet.classList.add("is-loaded");
  }

  async showTextInstead() {
    const text = await fetchPageText(this.view.shown.document_id, this.index);
    if (this.isClosed || !text) return;
    this.sheet.append(
      make("div", { className: "sheet-text", tabIndex: 0 }, make("p", { textContent: "This page could not be drawn. Its text:" }), ...setTextPage(text, [])),
    );
  }

  /** Draw the marks of this page; `pulse` makes that of a kind stand out for a moment. Returns the first place. */
  async showMarks(pulse = "") {
    if (this.view.showsText) return this.showMarkedText(pulse);
    const marks = this.view.marksOf(this.index);
    const found = await Promise.all(
      marks.map(({ start, end }) => fetchMarks(this.view.shown.document_id, this.index, start, end)),
    );
    if (this.isClosed) return null;
    const boxes = found.flatMap((places, number) => places.map((place) => [marks[number].kind, place]));
    this.boxes.replaceChildren(
      ...boxes.map(([kind, [left, top, right, bottom]]) => {
        const box = make("i", { className: "box" });
        box.dataset.kind = kind;
        Object.assign(box.style, {
          left: `${100 * left}%`,
          top: `${100 * top}%`,
          width: `${100 * (right - left)}%`,
          height: `${100 * (bottom - top)}%`,
        });
        return box;
      }),
    );
    this.pulse(pulse);
    return this.firstPlace(pulse);
  }

  // As text.

  async showText() {
    this.sheet.classList.add("is-text");
    this.watching = new ResizeObserver(() => this.view.setHeight(this.index, this.element.offsetHeight));
    this.watching.observe(this.element);
    this.text = await fetchPageText(this.view.shown.document_id, this.index);
    if (this.isClosed) return;
    this.showMarkedText();
  }

  showMarkedText(pulse = "") {
    if (this.text === undefined) return null;
    const marks = this.view.marksOf(this.index).map(({ start, end, kind }) => ({
      start: toUtf16(this.text ?? "", start),
      end: toUtf16(this.text ?? "", end),
      kind,
    }));
    const isEmpty = !this.text?.trim();
    this.sheet.replaceChildren(
      ...(isEmpty
        ? [make("p", { className: "sheet-empty", textContent: this.text === null ? "The text of this page is not there." : "There is no text on this page." })]
        : setTextPage(this.text, marks)),
    );
    this.sheet.classList.add("is-loaded");
    this.view.setHeight(this.index, this.element.offsetHeight);
    this.pulse(pulse);
    return this.firstPlace(pulse);
  }

  // Marks of both kinds.

  marksOfKind(kind) {
    return kind ? [...this.sheet.querySelectorAll(`[data-kind~="${kind}"]`)] : [];
  }

  pulse(kind) {
    const marks = this.marksOfKind(kind);
    if (!marks.length) return;
    for (const mark of marks) mark.classList.add("is-pulsing");
    clearTimeout(this.pulseTimer);
    this.pulseTimer = setTimeout(() => marks.forEach((mark) => mark.classList.remove("is-pulsing")), PULSE_MS);
  }

  /** How far below the page's top the first mark of a kind stands, in pixels; null if it has none. */
  firstPlace(kind) {
    const tops = this.marksOfKind(kind).map((mark) => mark.getBoundingClientRect().top);
    return tops.length ? Math.min(...tops) - this.element.getBoundingClientRect().top : null;
  }
}
