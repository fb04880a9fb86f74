// A race or a sweep as a picture, drawn anew on a canvas of its own, and as the server's JSON file.

import { attentionOf, colorsOf, draftStrip, drawPages, draftWords, nameOf } from "./race-lane.js";
import { chartColors, drawSweep } from "./race-sweep.js";
import { number } from "../wording.js";

const SIZE = { width: 1200, height: 675 };
const SCALE = 2;
const MARGIN = 40;
const LINE_HEIGHT = 24;
const LINES = 10;

/** Save a race that has ended as a PNG; `element` has the page's colours. */
export function savePicture(race, element) {
  const canvas = document.createElement("canvas");
  canvas.width = SIZE.width * SCALE;
  canvas.height = SIZE.height * SCALE;
  const context = canvas.getContext("2d");
  context.scale(SCALE, SCALE);
  const colors = chartColors(element);
  context.fillStyle = colors.card;
  context.fillRect(0, 0, SIZE.width, SIZE.height);
  context.textBaseline = "alphabetic";
  const width = SIZE.width - 2 * MARGIN;
  text(context, fitted(context, race.question, width, `600 22px ${colors.font}`), MARGIN, 56, colors.text);
  if (race.kind === "race") {
    drawLane(context, race, "dense", MARGIN, element, colors);
    drawLane(context, race, "quest", SIZE.width / 2 + MARGIN / 2, element, colors);
  } else {
    drawSweep(context, { x: MARGIN, y: 80, width, height: 450 }, race, colors);
  }
  context.font = `600 20px ${colors.font}`;
  const sentence = wrapped(context, race.result?.sentence ?? race.message, width, 2);
  const top = SIZE.height - 86;
  sentence.forEach((line, index) => text(context, line.trimStart(), MARGIN, top + index * 27, colors.text));
  context.font = `14px ${colors.font}`;
  text(context, sourceOf(race), MARGIN, SIZE.height - 24, colors.quiet);
  return new Promise((resolve) => {
    canvas.toBlob((blob) => {
      const address = URL.createObjectURL(blob);
      saveFile(address, race, "png");
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
      resolve(blob);
    }, "image/png");
  });
}

/** Let the browser save what is at an address. */
export function saveFile(address, race, suffix = "json") {
  const link = document.createElement("a");
  link.href = address;
  link.download = `${race.format}.${suffix}`;
  link.click();
}

function drawLane(context, race, side, left, element, colors) {
  const width = SIZE.width / 2 - 1.5 * MARGIN;
  const own = race.result[side];
  context.font = `600 18px ${colors.font}`;
  text(context, nameOf(race, side), left, 106, colors[side]);
  const rate = own.tokens_per_s ? `, ${own.tokens_per_s.toFixed(1)} tokens/s` : "";
  context.font = `15px ${colors.font}`;
  const isExact = attentionOf(race, side) === "exact";
  const words = isExact ? draftWords(own.drafted_tokens, own.accepted_tokens) : "";
  const drafts = words && `, ${words[0].toLowerCase()}${words.slice(1)}`;
  const time = `${own.finished_s.toFixed(1)} s for ${number(own.decode_tokens)} tokens${rate}${drafts}`;
  text(context, time, left, 130, colors.quiet);
  const slowest = Math.max(race.result.dense.finished_s, race.result.quest.finished_s);
  context.fillStyle = colors.line;
  context.fillRect(left, 144, width, 8);
  context.fillStyle = colors[side];
  context.fillRect(left, 144, slowest ? (width * own.finished_s) / slowest : 0, 8);
  const tokens = race.tokens[side].length;
  const { cells, shares } = isExact
    ? draftStrip(race, tokens, tokens)
    : { cells: race.text?.pages ?? [], shares: meanShares(race, side) };
  drawPages(context, { x: left, y: 166, width, height: 30 }, cells, shares, colorsOf(element, side));
  context.font = `17px ${colors.font}`;
  const parted = race.result.first_difference_char;
  let from = 0;
  wrapped(context, own.answer, width, LINES).forEach((line, index) => {
    const isApart = parted !== null && from + line.length > parted;
    if (isApart) {
      const before = context.measureText(line.slice(0, Math.max(0, parted - from)).trimStart()).width;
      context.fillStyle = colors[side];
      context.globalAlpha = 0.16;
      const y = 226 + index * LINE_HEIGHT;
      context.fillRect(left + before, y - 18, context.measureText(line.trimStart()).width - before, LINE_HEIGHT);
      context.globalAlpha = 1;
    }
    text(context, line.trimStart(), left, 226 + index * LINE_HEIGHT, colors.text);
    from += line.length;
  });
}

/** Part of each page's text that a token looked at in the mean. */
function meanShares(race, side) {
  const pages = race.text?.pages ?? [];
  if (side === "dense") return pages.map(() => 1);
  const looks = race.tokens.quest.map((token) => token.looked_at).filter(Boolean);
  return pages.map((_, index) => looks.reduce((sum, look) => sum + look[index], 0) / (100 * Math.max(1, looks.length)));
}

function sourceOf(race) {
  const { setting, text: over } = race;
  const who = race.attention === "exact" ? "drafts look" : "Quest looks";
  const budget = setting?.token_budget ? `, ${who} at ${number(setting.token_budget)} tokens` : "";
  const held = `${number(over?.prompt_tokens ?? 0)} tokens in context`;
  return `${setting?.model ?? ""} on ${setting?.device ?? ""}, ${held}${budget}. Quest Chat`;
}

function text(context, line, x, y, color) {
  context.fillStyle = color;
  context.textAlign = "left";
  context.fillText(line, x, y);
}

function fitted(context, line, width, font) {
  context.font = font;
  let shown = line;
  while (context.measureText(shown).width > width) shown = `${shown.slice(0, -2).trimEnd()}…`;
  return shown;
}

/** The first lines of a text as wide as they may be; characters are kept, so that places in the text can be found. */
function wrapped(context, whole, width, most) {
  const lines = [""];
  for (const word of whole.match(/\s*\S+/g) ?? []) {
    const breaks = /\n/.test(word) || context.measureText(lines.at(-1) + word).width > width;
    if (breaks && lines.at(-1)) {
      if (lines.length === most) {
        lines.push(`${lines.pop()} …`);
        break;
      }
      lines.push(word);
    } else lines.push(lines.pop() + word);
  }
  return lines;
}
