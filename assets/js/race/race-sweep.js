// A sweep over budgets: speed against agreement with dense attention, as a chart and as a table.

import { hasEnded } from "./race-client.js";
import { percent } from "./race-lane.js";
import { noteOf } from "./race-film.js";
import { number } from "../wording.js";

const MARGIN = { left: 64, right: 22, top: 18, bottom: 44 };
const HEIGHT = 300;

export const SWEEP_MARKUP = `
  <div class="sweep" data-part="sweep" hidden>
    <p class="film-question" data-part="sweepQuestion"></p>
    <p class="film-note" data-part="sweepState" role="status"></p>
    <progress data-part="sweepProgress" max="1" value="0" aria-label="Sweep over budgets"></progress>
    <figure><canvas data-part="chart" role="img"
      aria-label="Speed against agreement, by budget; the table below has the figures"></canvas></figure>
    <table data-part="table"><caption>Speed beside dense attention in the same seconds, and how often Quest's likeliest
      word was dense attention's, along dense attention's own answer</caption><thead><tr><th scope="col">Looks at</th>
      <th scope="col">Of the text</th><th scope="col">Speed</th><th scope="col">Same choice</th></tr></thead>
      <tbody data-part="rows"></tbody></table>
  </div>`;

export class Sweep {
  constructor(parts) {
    this.parts = parts;
    this.race = null;
    new ResizeObserver(() => this.draw()).observe(parts.chart.parentElement);
    new MutationObserver(() => this.draw()).observe(document.body, { attributeFilter: ["class"] });
  }

  open(race) {
    this.race = race;
    this.parts.sweepQuestion.textContent = race.question;
    this.update();
  }

  update() {
    const { race, parts } = this;
    const ended = hasEnded(race);
    parts.sweepState.textContent = race.message || noteOf(race);
    parts.sweepProgress.hidden = ended;
    const reading = race.state === "reading" && race.progress;
    parts.sweepProgress.value = reading
      ? race.progress.done_tokens / race.progress.total_tokens
      : race.points.length / Math.max(1, race.budgets.length);
    parts.rows.replaceChildren(
      row("All (exact)", "100 %", "1×", "all"),
      ...race.points.map((point) =>
        row(
          labelOf(point, (name) => ` (${name.toLowerCase()})`),
          percent(point.looked_share),
          speedOf(point),
          point.steps ? `${point.agreed} of ${point.steps}` : "–",
        ),
      ),
    );
    this.draw();
  }

  draw() {
    const canvas = this.parts.chart;
    const width = canvas.parentElement.clientWidth;
    if (!this.race || !width) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(HEIGHT * ratio);
    canvas.style.height = `${HEIGHT}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    drawSweep(context, { x: 0, y: 0, width, height: HEIGHT }, this.race, chartColors(canvas));
  }
}

export function chartColors(element) {
  const style = getComputedStyle(element);
  const token = (name) => style.getPropertyValue(`--quest-${name}`).trim();
  return {
    text: token("text"),
    quiet: token("quiet"),
    line: token("line"),
    card: token("card"),
    dense: token("dense"),
    quest: token("quest"),
    font: style.fontFamily,
  };
}

/** Draw speed over agreement; whiskers are what chance may do, presets are named. */
export function drawSweep(context, box, race, colors) {
  const points = race.points.filter((point) => point.speed_ratio && point.steps);
  const shares = points.map((point) => point.agreed / point.steps);
  const least = Math.max(0, Math.floor(20 * Math.min(0.9, ...shares) - 0.2) / 20);
  const highest = points.map((point) => point.speed_ratio * Math.min(point.noise ?? 1, 1.5));
  const fastest = Math.ceil(2 * Math.max(1.5, ...highest)) / 2;
  const plot = {
    x: box.x + MARGIN.left,
    y: box.y + MARGIN.top,
    width: box.width - MARGIN.left - MARGIN.right,
    height: box.height - MARGIN.top - MARGIN.bottom,
  };
  const across = (share) => plot.x + (plot.width * (share - least)) / (1.01 - least);
  const up = (speed) => plot.y + plot.height * (1 - speed / fastest);
  context.save();
  context.font = `12px ${colors.font}`;
  context.lineWidth = 1;
  context.textBaseline = "middle";
  for (let speed = 0; speed <= fastest; speed += fastest > 4 ? 1 : 0.5) {
    context.strokeStyle = colors.line;
    context.beginPath();
    context.moveTo(plot.x, up(speed));
    context.lineTo(plot.x + plot.width, up(speed));
    context.stroke();
    context.fillStyle = colors.quiet;
    context.textAlign = "right";
    context.fillText(`${speed}×`, plot.x - 8, up(speed));
  }
  context.textAlign = "center";
  const step = 1 - least > 0.3 ? 0.1 : plot.width < 320 ? 0.05 : 0.02;
  for (let share = 1; share >= least - 1e-9; share -= step) {
    context.fillText(`${Math.round(100 * share)} %`, across(share), plot.y + plot.height + 14);
  }
  context.fillText("same choice as dense attention", plot.x + plot.width / 2, plot.y + plot.height + 32);
  context.save();
  context.translate(box.x + 8, plot.y + plot.height / 2);
  context.rotate(-Math.PI / 2);
  context.fillText("speed beside dense attention", 0, 0);
  context.restore();
  context.strokeStyle = colors.quest;
  context.globalAlpha = 0.5;
  context.beginPath();
  points.forEach((point, index) => context.lineTo(across(shares[index]), up(point.speed_ratio)));
  context.stroke();
  context.globalAlpha = 1;
  const taken = [];
  mark(context, across(1), up(1), colors.dense, "Exact", colors, taken);
  points.forEach((point, index) => {
    const [x, y] = [across(shares[index]), up(point.speed_ratio)];
    context.strokeStyle = colors.quest;
    if (point.noise) {
      context.beginPath();
      context.moveTo(x, up(Math.min(fastest, point.speed_ratio * point.noise)));
      context.lineTo(x, up(point.speed_ratio / point.noise));
      context.stroke();
    }
    mark(context, x, y, colors.quest, labelOf(point, (name) => ` ${name}`), colors, taken);
  });
  context.restore();
}

function mark(context, x, y, color, label, colors, taken) {
  context.fillStyle = color;
  context.beginPath();
  context.arc(x, y, 5, 0, 2 * Math.PI);
  context.fill();
  context.strokeStyle = colors.card;
  context.stroke();
  // Labels stand to the left of their points, one below the other where these are close.
  let at = y;
  while (taken.some((one) => Math.abs(one.x - x) < 110 && Math.abs(one.y - at) < 14)) at += 14;
  taken.push({ x, y: at });
  context.fillStyle = colors.text;
  context.textAlign = "right";
  context.fillText(label, x - 10, at);
  context.textAlign = "center";
}

/** A budget, and the preset that it is. */
function labelOf(point, named) {
  return number(point.token_budget) + (point.preset ? named(point.preset) : "");
}

function speedOf(point) {
  if (point.fits_budget) return "same work";
  if (!point.speed_ratio) return "–";
  const isChance = point.noise && point.speed_ratio <= point.noise && point.speed_ratio >= 1 / point.noise;
  return `${point.speed_ratio.toFixed(2)}×${isChance || !point.noise ? " (within chance)" : ""}`;
}

function row(...texts) {
  const element = document.createElement("tr");
  element.append(
    ...texts.map((text, index) => {
      const cell = document.createElement(index ? "td" : "th");
      if (!index) cell.scope = "row";
      cell.textContent = text;
      return cell;
    }),
  );
  return element;
}
