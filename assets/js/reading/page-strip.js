// A strip of cells on a canvas, one for each document page in context: the darker, the more it was looked at above its
// usual level.
//
// A thousand cells are too many for DOM elements while an answer streams. They stand in up to four rows; where there are
// more pages than room, a cell stands for several and shows the one most looked at. Knows nothing of where the data come
// from.

const LEAST_CELL = 8;
const MOST_CELL = 26;
const MOST_ROWS = 4;
// The darkest colour is the page looked at most, but not below so many times its usual level.
const LEAST_TOP = 2;
const GAP = 1;
const DOCUMENT_GAP = 3;
const HEATS = 6;

export class PageStrip {
  /**
   * @param canvas what to draw on; takes its width from its parent and keeps the height that its style sheet gives it.
   * @param onPoint called with the number of the page that is pointed at, or null.
   * @param onChoose called with the number of the page that was clicked, or chosen with Enter; without it the strip is a
   *   picture and takes no keys.
   * @param rows at most.
   */
  constructor(canvas, { onPoint = () => {}, onChoose = null, rows = MOST_ROWS } = {}) {
    Object.assign(this, { canvas, onPoint, onChoose, mostRows: rows, pages: [], factors: null, pointed: null });
    this.context = canvas.getContext("2d");
    if (onChoose) this.listen();
    this.available = { width: 0, height: 0 };
    this.resizing = new ResizeObserver(() => this.fit());
    this.resizing.observe(canvas.parentElement);
    // Colours are CSS variables; the page's dark class changes them.
    this.recoloring = new MutationObserver(() => this.recolor());
    this.recoloring.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.recolor();
  }

  close() {
    this.resizing.disconnect();
    this.recoloring.disconnect();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.point(this.pageAt(event)));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", (event) => {
      const page = this.pageAt(event);
      if (page !== null) this.onChoose(page);
    });
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  /** Known from here, so that no frame waits for the layout; nothing is drawn while nobody can see it. */
  fit() {
    this.available = { width: this.canvas.parentElement.clientWidth, height: this.canvas.clientHeight };
    this.draw();
  }

  recolor() {
    const style = getComputedStyle(this.canvas);
    const color = (name) => style.getPropertyValue(`--quest-${name}`).trim();
    this.colors = [...Array(HEATS).keys()].map((level) => parseColor(color(`heat-${level}`)));
    [this.line, this.cursor] = [color("quiet"), color("text")];
    this.draw();
  }

  /** @param pages each {documentId, ...}. @param factors of each how many times its usual level, null if not known. */
  show(pages, factors) {
    this.pages = pages;
    this.factors = factors?.length === pages.length ? factors : null;
    if (this.pointed !== null && this.pointed >= pages.length) this.pointed = null;
    this.draw();
  }

  // Geometry, in CSS pixels.

  measure() {
    const { width, height } = this.available;
    const count = Math.max(1, this.pages.length);
    const inRow = Math.floor(width / LEAST_CELL);
    const rows = Math.min(this.mostRows, Math.ceil(count / inRow));
    // Pages in a cell.
    const share = Math.max(1, count / (rows * inRow));
    const columns = Math.ceil(Math.ceil(count / share) / rows);
    const cellWidth = Math.min(MOST_CELL, width / columns);
    return { width, height, rows, share, columns, cellWidth, rowHeight: height / rows };
  }

  draw() {
    if (!this.available.width || !this.available.height) return;
    const ratio = window.devicePixelRatio || 1;
    const size = (this.size = this.measure());
    const [pixelWidth, pixelHeight] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
    // Setting the size clears the canvas and is slow; most frames keep it.
    if (this.canvas.width !== pixelWidth || this.canvas.height !== pixelHeight) {
      Object.assign(this.canvas, { width: pixelWidth, height: pixelHeight });
      this.canvas.style.width = `${size.width}px`;
    }
    const { context, pages } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.width, size.height);
    const top = Math.log(Math.max(LEAST_TOP, ...this.cellFactors()));
    for (let cell = 0, first = 0; first < pages.length; cell++, first = this.firstPage(cell)) {
      const { x, y } = this.place(cell);
      const opens = first > 0 && pages[first].documentId !== pages[first - 1].documentId;
      const left = opens ? DOCUMENT_GAP : GAP;
      context.fillStyle = this.color(this.hottest(first, this.firstPage(cell + 1)).factor, top);
      context.fillRect(x + left, y + GAP, Math.max(1, size.cellWidth - left), size.rowHeight - 2 * GAP);
      if (opens) {
        context.fillStyle = this.line;
        context.fillRect(x, y + GAP, 1, size.rowHeight - 2 * GAP);
      }
    }
    if (this.pointed !== null) this.drawCursor();
  }

  drawCursor() {
    const { x, y } = this.place(this.cellOf(this.pointed));
    this.context.strokeStyle = this.cursor;
    this.context.lineWidth = 2;
    this.context.strokeRect(x + 1, y + 1, Math.max(3, this.size.cellWidth - 1), this.size.rowHeight - 2);
  }

  *cellFactors() {
    if (this.factors) for (const factor of this.factors) if (factor !== null) yield factor;
  }

  /** The colour of a factor: from half a step above the usual level on, by its logarithm. */
  color(factor, top) {
    const part = factor === null ? 0 : Math.min(1, Math.max(0, Math.log(Math.max(factor, 1)) / top));
    const place = part * (HEATS - 1);
    const [from, to] = [this.colors[Math.floor(place)], this.colors[Math.ceil(place)]];
    const mixed = from.map((value, index) => Math.round(value + (place % 1) * (to[index] - value)));
    return `rgb(${mixed.join(" ")})`;
  }

  firstPage(cell) {
    return Math.min(this.pages.length, Math.ceil(cell * this.size.share));
  }

  cellOf(page) {
    return Math.floor((page + 1e-6) / this.size.share);
  }

  place(cell) {
    const { columns, cellWidth, rowHeight } = this.size;
    return { x: (cell % columns) * cellWidth, y: Math.floor(cell / columns) * rowHeight };
  }

  /** Of the pages from `first` to before `end`, the one most looked at, and how much. */
  hottest(first, end) {
    let [page, factor] = [first, this.factors?.[first] ?? null];
    for (let other = first + 1; other < end; other++) {
      if ((this.factors?.[other] ?? 0) > (factor ?? 0)) [page, factor] = [other, this.factors[other]];
    }
    return { page, factor };
  }

  // Pointer and keyboard.

  pageAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { columns, cellWidth, rowHeight, rows } = this.size;
    const column = Math.floor((event.clientX - box.left) / cellWidth);
    const row = Math.floor((event.clientY - box.top) / rowHeight);
    if (column < 0 || column >= columns || row < 0 || row >= rows) return null;
    const cell = row * columns + column;
    const [first, end] = [this.firstPage(cell), this.firstPage(cell + 1)];
    return first < this.pages.length ? this.hottest(first, end).page : null;
  }

  point(page) {
    if (page === this.pointed) return;
    this.pointed = page;
    this.draw();
    this.onPoint(page);
  }

  press(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.size.columns, ArrowDown: this.size.columns };
    const ends = { Home: 0, End: this.pages.length - 1 };
    if (!this.pages.length || !(event.key in moves || event.key in ends || event.key === "Enter")) return;
    event.preventDefault();
    const from = this.pointed ?? this.hottest(0, this.pages.length).page;
    if (event.key === "Enter") this.onChoose(from);
    else if (this.pointed === null && event.key in moves) this.point(from);
    else this.point(Math.min(this.pages.length - 1, Math.max(0, ends[event.key] ?? from + moves[event.key])));
  }
}

/** "#rrggbb" as [red, green, blue]. */
function parseColor(color) {
  return [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
}
