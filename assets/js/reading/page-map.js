// The map of KV pages that a decode step read: one row a layer, one column a page, on a canvas.
//
// Two thousand pages in thirty layers are too many for DOM elements, and may be more than the canvas has pixels; then a
// column stands for several pages and shows the most read of them. Knows nothing of where the data come from.

const MARGIN = { left: 40, right: 6, top: 9, bottom: 36 };
const PLOT_HEIGHT = 180;
const LEAST_ROW_HEIGHT = 3;
// Thin lines between cells help only where cells are wide enough to lose a pixel.
const GAP_FROM_WIDTH = 4;
const GAP_FROM_HEIGHT = 5;
const TICK_DISTANCE = 72;
const COLORS = ["unread", "low", "high", "always", "dense", "hatch", "cached", "reused", "axis", "gap", "cursor"];

export class PageMap {
  /**
   * @param canvas the element to draw on; takes its width from its parent.
   * @param onHover called with {layer, firstPage, lastPage, count, x, y}, or null when nothing is pointed at.
   * @param onChoose called with the page that was clicked, or chosen with Enter.
   */
  constructor(canvas, onHover, onChoose) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.cells = document.createElement("canvas");
    this.onHover = onHover;
    this.onChoose = onChoose;
    this.view = { kind: "empty" };
    this.chosenPage = null;
    this.cursor = null;
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.unpoint());
    canvas.addEventListener("click", (event) => this.choose(event));
    canvas.addEventListener("keydown", (event) => this.moveCursor(event));
    canvas.addEventListener("blur", () => this.unpoint());
    this.available = 0;
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

  /** Known from here, so that no frame waits for the layout; nothing is drawn while nobody can see it. */
  fit() {
    this.available = this.canvas.parentElement.clientWidth;
    this.draw();
  }

  recolor() {
    const style = getComputedStyle(this.canvas);
    this.colors = Object.fromEntries(COLORS.map((name) => [name, style.getPropertyValue(`--map-${name}`).trim()]));
    this.font = `11px ${style.fontFamily}`;
    this.draw();
  }

  /**
   * Show one of
   *   {kind: "empty"},
   *   {kind: "prefill", reusedTokens, doneTokens, totalTokens},
   *   {kind: "step", reads: Uint8Array of layers x pages or null if all was read, layers, pages, kvHeads, denseLayers,
   *    alwaysRead: array of pages, pageSize}.
   */
  show(view) {
    this.view = view;
    this.draw();
  }

  markPage(page) {
    this.chosenPage = page;
    this.draw();
  }

  // Geometry, in CSS pixels. The number of layers is known from the first step on.

  measure() {
    const layers = this.view.layers ?? 30;
    // The same height whatever the number of layers, so that nothing below it moves when the first step comes.
    const rowHeight = Math.max(LEAST_ROW_HEIGHT, PLOT_HEIGHT / layers);
    const width = Math.max(120, this.available);
    const plot = {
      left: MARGIN.left,
      top: MARGIN.top,
      width: width - MARGIN.left - MARGIN.right,
      height: layers * rowHeight,
    };
    return { width, height: plot.height + MARGIN.top + MARGIN.bottom, rowHeight, plot };
  }

  draw() {
    if (!this.available) return;
    const ratio = window.devicePixelRatio || 1;
    const size = (this.size = this.measure());
    const [pixelWidth, pixelHeight] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
    // Setting the size clears the canvas and is slow; most frames keep it.
    if (this.canvas.width !== pixelWidth || this.canvas.height !== pixelHeight) {
      this.canvas.width = pixelWidth;
      this.canvas.height = pixelHeight;
      this.canvas.style.width = `${size.width}px`;
      this.canvas.style.height = `${size.height}px`;
    }
    const context = this.context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.width, size.height);
    const { left, top, width, height } = size.plot;
    context.fillStyle = this.colors.unread;
    context.fillRect(left, top, width, height);
    if (this.view.kind === "prefill") this.drawPrefill();
    if (this.view.kind === "step") {
      this.drawReads(ratio);
      this.drawDenseLayers();
      this.drawAlwaysRead();
      this.drawGaps(ratio);
      this.drawLayerAxis();
      this.drawMarks();
    }
    this.drawTokenAxis();
  }

  drawPrefill() {
    const { left, top, width, height } = this.size.plot;
    const { reusedTokens, doneTokens, totalTokens } = this.view;
    this.context.fillStyle = this.colors.cached;
    this.context.fillRect(left, top, (width * doneTokens) / totalTokens, height);
    this.context.fillStyle = this.colors.reused;
    this.context.fillRect(left, top, (width * reusedTokens) / totalTokens, height);
  }

  /** One image pixel a cell, stretched over the plot; with more pages than pixels, one a pixel column. */
  drawReads(ratio) {
    const { reads, layers, pages, kvHeads } = this.view;
    if (!reads) return;
    const columns = Math.min(pages, Math.round(this.size.plot.width * ratio));
    const image = new ImageData(columns, layers);
    const pixels = new Uint32Array(image.data.buffer);
    const palette = this.palette(kvHeads);
    for (let layer = 0; layer < layers; layer++) {
      const row = layer * pages;
      for (let column = 0; column < columns; column++) {
        const first = Math.floor((column * pages) / columns);
        const end = Math.max(first + 1, Math.floor(((column + 1) * pages) / columns));
        let most = 0;
        for (let page = first; page < end; page++) most = Math.max(most, reads[row + page]);
        pixels[layer * columns + column] = palette[Math.min(most, kvHeads)];
      }
    }
    if (this.cells.width !== columns || this.cells.height !== layers) {
      this.cells.width = columns;
      this.cells.height = layers;
    }
    this.cells.getContext("2d").putImageData(image, 0, 0);
    const { left, top, width, height } = this.size.plot;
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(this.cells, left, top, width, height);
  }

  /** Pixel values for 0 to kvHeads reads. */
  palette(kvHeads) {
    const [low, high] = [parseColor(this.colors.low), parseColor(this.colors.high)];
    const palette = new Uint32Array(kvHeads + 1);
    for (let count = 1; count <= kvHeads; count++) {
      const part = kvHeads === 1 ? 1 : (count - 1) / (kvHeads - 1);
      const [red, green, blue] = low.map((value, index) => Math.round(value + part * (high[index] - value)));
      // Image data lie in memory as red, green, blue, opacity: little-endian words, as on every machine with a browser.
      palette[count] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    }
    return palette;
  }

  /** Dense layers, or with dense attention all of them: hatched, because no choice was made there. */
  drawDenseLayers() {
    const { reads, layers, denseLayers } = this.view;
    const { left, top, width } = this.size.plot;
    const height = (reads ? denseLayers : layers) * this.size.rowHeight;
    if (!height) return;
    const context = this.context;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    context.fillStyle = this.colors.dense;
    context.fillRect(left, top, width, height);
    context.strokeStyle = this.colors.hatch;
    context.lineWidth = 1;
    context.beginPath();
    for (let x = left - height; x < left + width; x += 6) {
      context.moveTo(x, top + height);
      context.lineTo(x + height, top);
    }
    context.stroke();
    context.restore();
  }

  drawAlwaysRead() {
    const { reads, pages, alwaysRead, denseLayers, layers } = this.view;
    if (!reads) return;
    const { left, top, width } = this.size.plot;
    const context = this.context;
    context.fillStyle = this.colors.always;
    for (const page of alwaysRead) {
      const cellWidth = Math.max(1.5, width / pages);
      const x = Math.min(left + (page * width) / pages, left + width - cellWidth);
      const y = top + denseLayers * this.size.rowHeight;
      context.fillRect(x, y, cellWidth, (layers - denseLayers) * this.size.rowHeight);
      // A tick above the map: at 2,000 pages the column itself is a hair.
      const middle = x + cellWidth / 2;
      context.beginPath();
      context.moveTo(middle - 3.5, top - 7);
      context.lineTo(middle + 3.5, top - 7);
      context.lineTo(middle, top - 2);
      context.fill();
    }
  }

  drawGaps(ratio) {
    const { pages, layers } = this.view;
    const { left, top, width, height } = this.size.plot;
    const line = 1 / ratio;
    this.context.fillStyle = this.colors.gap;
    if (width / pages >= GAP_FROM_WIDTH) {
      for (let page = 1; page < pages; page++) this.context.fillRect(left + (page * width) / pages, top, line, height);
    }
    if (this.size.rowHeight >= GAP_FROM_HEIGHT) {
      for (let layer = 1; layer < layers; layer++) {
        this.context.fillRect(left, top + layer * this.size.rowHeight, width, line);
      }
    }
  }

  drawLayerAxis() {
    const { left, top, height } = this.size.plot;
    const context = this.context;
    context.font = this.font;
    context.fillStyle = this.colors.axis;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const step = niceStep((this.view.layers * 22) / height);
    for (let layer = 0; layer < this.view.layers; layer += step) {
      context.fillText(String(layer), left - 5, top + (layer + 0.5) * this.size.rowHeight);
    }
    context.save();
    context.translate(8, top + height / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText("Layer", 0, 0);
    context.restore();
  }

  drawTokenAxis() {
    const { left, top, width, height } = this.size.plot;
    const tokens = this.view.kind === "step" ? this.view.pages * this.view.pageSize : this.view.totalTokens;
    if (!tokens) return;
    const context = this.context;
    context.font = this.font;
    context.fillStyle = this.colors.axis;
    context.textBaseline = "top";
    const step = niceStep((tokens * TICK_DISTANCE) / width);
    for (let token = 0; token <= tokens; token += step) {
      const x = left + (token * width) / tokens;
      context.fillRect(x, top + height, 1, 4);
      context.textAlign = token === 0 ? "left" : x > left + width - 18 ? "right" : "center";
      context.fillText(token.toLocaleString("en"), x, top + height + 6);
    }
    context.textAlign = "center";
    context.fillText("Token position", left + width / 2, top + height + 21);
  }

  /** The chosen page's column, and the cell that is pointed at. */
  drawMarks() {
    const { pages } = this.view;
    const { left, top, width, height } = this.size.plot;
    const context = this.context;
    context.strokeStyle = this.colors.cursor;
    context.lineWidth = 1.5;
    const cellWidth = width / pages;
    if (this.chosenPage !== null && this.chosenPage < pages) {
      context.strokeRect(left + this.chosenPage * cellWidth - 1, top - 1, Math.max(3, cellWidth + 2), height + 2);
    }
    if (this.cursor && this.cursor.firstPage < pages) {
      const { layer, firstPage, lastPage } = this.cursor;
      const x = left + firstPage * cellWidth;
      const cellsWidth = Math.max(3, (lastPage - firstPage + 1) * cellWidth);
      context.strokeRect(x - 1, top + layer * this.size.rowHeight - 1, cellsWidth + 2, this.size.rowHeight + 2);
    }
  }

  // Pointer and keyboard.

  cellAt(event) {
    if (this.view.kind !== "step") return null;
    const { left, top, width } = this.size.plot;
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const layer = Math.floor((y - top) / this.size.rowHeight);
    const firstPage = Math.floor(((x - left) * this.view.pages) / width);
    const lastPage = Math.max(firstPage, Math.floor(((x + 1 - left) * this.view.pages) / width) - 1);
    const inside = layer >= 0 && layer < this.view.layers && firstPage >= 0 && firstPage < this.view.pages;
    return inside ? this.cell(layer, firstPage, Math.min(lastPage, this.view.pages - 1)) : null;
  }

  cell(layer, firstPage, lastPage) {
    const { reads, pages, kvHeads } = this.view;
    let [count, mostReadPage] = [0, firstPage];
    for (let page = firstPage; page <= lastPage; page++) {
      const pageCount = reads ? reads[layer * pages + page] : kvHeads;
      if (pageCount > count) [count, mostReadPage] = [pageCount, page];
    }
    const x = this.size.plot.left + ((firstPage + 0.5) * this.size.plot.width) / pages;
    const y = this.size.plot.top + (layer + 0.5) * this.size.rowHeight;
    return { layer, firstPage, lastPage, count, mostReadPage, x, y };
  }

  point(event) {
    this.cursor = this.cellAt(event);
    this.draw();
    this.onHover(this.cursor);
  }

  unpoint() {
    this.cursor = null;
    this.draw();
    this.onHover(null);
  }

  choose(event) {
    // The cell that the tooltip shows: a click's position is rounded to whole pixels, a pointer's is not.
    const cell = this.cursor ?? this.cellAt(event);
    if (cell) this.onChoose(cell.mostReadPage);
  }

  moveCursor(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (this.view.kind !== "step" || !(event.key in moves || event.key === "Enter")) return;
    event.preventDefault();
    const from = this.cursor ?? { layer: this.view.denseLayers, firstPage: this.chosenPage ?? 0 };
    if (event.key === "Enter") {
      this.onChoose(from.firstPage);
      return;
    }
    const [layers, pages] = moves[event.key];
    const layer = Math.min(this.view.layers - 1, Math.max(0, from.layer + layers));
    const page = Math.min(this.view.pages - 1, Math.max(0, from.firstPage + pages));
    this.cursor = this.cell(layer, page, page);
    this.draw();
    this.onHover(this.cursor);
  }
}

/** The smallest of 1, 2, 5, 10, 20, 50 ... that is not below `least`. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least) ?? 10 * power;
}

/** "#rrggbb" as [red, green, blue]. */
function parseColor(color) {
  return [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
}
