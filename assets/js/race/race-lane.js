// One lane of the race: an answer that appears word by word at its own device's time, and the document pages that each
// word looked at; of Exact, which looks at all of them, the tokens that were drafted.
//
// All words are laid out at once and hidden until their time, so that nothing moves while they come.

import { number, pageName } from "../wording.js";

const NAMES = { dense: "Dense attention", quest: "Quest", exact: "Exact" };
const CELL_GAP = 2;
// A cell that is wide enough carries its page's label.
const LABEL_FROM_WIDTH = 24;
// The least that is told from nothing; shares are small where the text is long, so the root of them is drawn.
const LEAST_LIGHT = 0.14;
// From that light on, a label is written in the colour of the ground.
const DARK_FROM = 0.7;
// How light a token is that was drafted, and one that dense attention gave.
const LIGHT_OF_DRAFT = 1;
const LIGHT_OF_OWN = 0.01;

export const LANE_MARKUP = ["dense", "quest"]
  .map(
    (side) => `
  <section class="lane" data-side="${side}">
    <header><h3 data-part="name"></h3><span data-part="reads"></span>
      <span class="lane-time" data-part="time"></span></header>
    <div class="lane-words" data-part="words" tabindex="0" role="region"></div>
    <div class="lane-pages"><canvas data-part="pages" role="img"></canvas>
      <span class="lane-looked" data-part="looked"></span></div>
    <div class="lane-track" aria-hidden="true"><i data-part="run"></i><b data-part="flag"></b></div>
  </section>`,
  )
  .join("");

/** What a side's steps attend to; older files have only Quest, and do not say so. */
export function attentionOf(race, side) {
  return side === "dense" ? "dense" : (race.attention ?? "quest");
}

export function nameOf(race, side) {
  return NAMES[attentionOf(race, side)];
}

/** How much was drafted by a number of Exact's tokens, and for each of them whether it was. */
export function draftsOf(tokens) {
  let [drafted, accepted, left] = [0, 0, 0];
  const wasDrafted = tokens.map((token) => {
    drafted += token.drafted;
    accepted += token.accepted;
    // A round's first tokens are its accepted drafts; the one behind them is dense attention's.
    if (token.drafted) left = token.accepted;
    left -= 1;
    return left >= 0;
  });
  return { drafted, accepted, wasDrafted };
}

export class Lane {
  constructor(section) {
    this.section = section;
    this.side = section.dataset.side;
    this.parts = Object.fromEntries([...section.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]));
    this.context = this.parts.pages.getContext("2d");
    new ResizeObserver(() => this.light()).observe(this.parts.pages.parentElement);
    // Gradio's theme is a class of the body.
    new MutationObserver(() => this.light()).observe(document.body, { attributeFilter: ["class"] });
  }

  /** Begin with a race, of which nothing is shown yet. */
  begin(race) {
    this.race = race;
    this.words = [];
    this.times = [];
    this.said = -1;
    this.looked = null;
    this.mostTokens = this.shownTokens = 0;
    const name = nameOf(race, this.side);
    this.parts.name.textContent = name;
    this.section.setAttribute("aria-label", name);
    this.parts.words.setAttribute("aria-label", `Answer of ${name}`);
    this.drawnPages = null;
    this.parts.words.replaceChildren();
    this.take();
  }

  /** Lay out what has come since. */
  take() {
    const tokens = this.race.tokens[this.side];
    for (let index = this.times.length; index < tokens.length; index += 1) {
      const token = tokens[index];
      this.times.push(token.at_s);
      let word = this.words.at(-1);
      if (!word || (/^\s/.test(token.text) && word.text.trim())) {
        word = { text: "", firstToken: index, element: document.createElement("span") };
        this.words.push(word);
        this.parts.words.append(word.element);
      }
      word.text += token.text;
      word.atS = token.at_s;
      word.lookedAt = this.side === "dense" ? "all" : token.looked_at;
      word.element.textContent = word.text;
    }
    const { setting, text } = this.race;
    this.parts.reads.textContent = setting && text ? readsOf(attentionOf(this.race, this.side), setting, text) : "";
    if (text && this.drawnPages !== text.pages) {
      this.drawnPages = text.pages;
      this.light();
    }
  }

  /** The texts are final: put right what was held back, and mark where the answers part. */
  end() {
    const tokens = this.race.tokens[this.side];
    const word = this.words.at(-1);
    if (word) word.element.textContent = word.text = tokens.slice(word.firstToken).map((token) => token.text).join("");
    const parted = this.race.result?.first_difference;
    if (parted === null || parted === undefined) return;
    const at = this.words.findLastIndex((one) => one.firstToken <= parted);
    this.words.forEach((one, index) => {
      one.element.classList.toggle("parts", index === at && parted < tokens.length);
      one.element.classList.toggle("apart", index > at);
    });
  }

  /** How many tokens were there at a time. */
  tokensAt(seconds) {
    return countUpTo(this.times, seconds);
  }

  /** Seconds at which it had finished, or has got so far. */
  get endS() {
    return Math.max(this.race.result?.[this.side].finished_s ?? 0, this.times.at(-1) ?? 0);
  }

  /** Show the lane as it was `seconds` after the start; `mostTokens` is where the finish line stands. */
  show(seconds, mostTokens) {
    const tokens = this.tokensAt(seconds);
    const hasFinished = this.race.result !== null && seconds >= this.endS;
    const at = hasFinished ? this.words.length - 1 : this.words.findLastIndex((word) => word.atS <= seconds);
    if (at !== this.said) this.say(at);
    const own = this.race.result?.[this.side];
    const spent = Math.min(seconds, this.endS);
    const rate = hasFinished ? own.tokens_per_s : spent && tokens > 1 ? (tokens - 1) / spent : null;
    this.parts.time.textContent = [
      `${spent.toFixed(1)} s`,
      `${number(tokens)} ${tokens === 1 ? "token" : "tokens"}`,
      rate ? `${rate.toFixed(1)} tokens/s` : "",
    ]
      .filter(Boolean)
      .join(" · ");
    if (attentionOf(this.race, this.side) === "exact") {
      this.mostTokens = mostTokens;
      this.shownTokens = tokens;
      this.light();
    }
    this.parts.run.style.transform = `scaleX(${mostTokens ? Math.min(1, tokens / mostTokens) : 0})`;
    const wasStopped = own?.finish_reason === "cancelled";
    this.parts.flag.textContent = hasFinished && !wasStopped ? `finished, ${this.endS.toFixed(1)} s` : "";
    this.section.toggleAttribute("data-finished", hasFinished);
  }

  say(at) {
    const { words } = this;
    for (let index = this.said + 1; index <= at; index += 1) words[index].element.classList.add("said");
    for (let index = at + 1; index <= this.said; index += 1) words[index].element.classList.remove("said");
    words[this.said]?.element.classList.remove("at");
    words[at]?.element.classList.add("at");
    this.said = at;
    this.looked = words[at]?.lookedAt ?? null;
    const element = words[at]?.element;
    const box = this.parts.words;
    if (element) box.scrollTop = element.offsetTop + element.offsetHeight - box.clientHeight + 8;
    else box.scrollTop = 0;
    this.light();
  }

  /** The cells of the strip, how bright each is, and in words what they show. */
  strip() {
    const isExact = attentionOf(this.race, this.side) === "exact";
    if (isExact) return draftStrip(this.race, this.shownTokens, this.mostTokens);
    const pages = this.race.text?.pages ?? [];
    const shares = this.shares();
    const tokens = pages.reduce((sum, page) => sum + page.tokens, 0);
    const looked = tokens ? pages.reduce((sum, page, index) => sum + shares[index] * page.tokens, 0) / tokens : 0;
    const most = pages[shares.indexOf(Math.max(...shares))];
    const words = looked ? `This word: ${percent(looked)} of the text` : "";
    const where = looked && looked < 1 && most ? `, most of ${pageName(most.page_label)}` : "";
    const title = `Document pages that ${nameOf(this.race, this.side)} looked at`;
    return { cells: pages, shares, words: words + where, title };
  }

  /** Part of each document page's text, 0 to 1, that the present word looked at. */
  shares() {
    const pages = this.race?.text?.pages ?? [];
    if (this.looked === "all") return pages.map(() => 1);
    return pages.map((_, index) => (this.looked?.[index] ?? 0) / 100);
  }

  light() {
    if (!this.race) return;
    const { cells, shares, words, title } = this.strip();
    const canvas = this.parts.pages;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.parentElement.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.clearRect(0, 0, width, height);
    drawPages(this.context, { x: 0, y: 0, width, height }, cells, shares, colorsOf(this.section, this.side));
    this.parts.looked.textContent = words || "\u00a0";
    canvas.setAttribute("aria-label", `${title}. ${words}`);
  }
}

/** What a side's steps read, in words. */
function readsOf(attention, { token_budget: budget }, { prompt_tokens: all }) {
  if (attention === "quest") return `looks at ${number(budget)} tokens for each word`;
  if (attention === "dense") return `looks at all ${number(all)} tokens for each word`;
  return `drafts from ${number(budget)} tokens, checked against all ${number(all)}`;
}

/** A cell for each token of Exact's answer, in full colour where it was drafted. */
export function draftStrip(race, shownTokens, mostTokens) {
  const { drafted, accepted, wasDrafted } = draftsOf(race.tokens.quest.slice(0, shownTokens));
  const cells = Array.from({ length: Math.max(mostTokens, shownTokens) }, () => ({ page_label: "" }));
  const shares = cells.map((_, index) =>
    index >= shownTokens ? 0 : wasDrafted[index] ? LIGHT_OF_DRAFT : LIGHT_OF_OWN,
  );
  const words = draftWords(drafted, accepted, shownTokens) + (accepted ? ", in full colour" : "");
  return { cells, shares, words, title: "Tokens of the answer that were drafted" };
}

/** "208 of 212 drafts accepted". */
export function draftWords(drafted, accepted, tokens = 1) {
  if (!drafted) return tokens ? "Nothing drafted" : "";
  return `${number(accepted)} of ${number(drafted)} drafts accepted`;
}

/** Draw the document pages as cells, the brighter the more of one was looked at. */
export function drawPages(context, box, pages, shares, colors) {
  if (!pages.length) return;
  context.save();
  const cell = box.width / pages.length;
  const gap = cell > 3 * CELL_GAP ? CELL_GAP : 0;
  pages.forEach((page, index) => {
    // Without gaps, cells that end within a pixel would show as seams.
    const [left, right] = [index, index + 1].map((edge) => (gap ? edge * cell : Math.round(edge * cell)));
    const [x, width] = [box.x + left, Math.max(1, right - left - gap)];
    context.fillStyle = colors.unlit;
    context.fillRect(x, box.y, width, box.height);
    const light = shares[index] > 0 ? LEAST_LIGHT + (1 - LEAST_LIGHT) * Math.sqrt(shares[index]) : 0;
    if (light) {
      context.globalAlpha = light;
      context.fillStyle = colors.lit;
      context.fillRect(x, box.y, width, box.height);
      context.globalAlpha = 1;
    }
    if (cell >= LABEL_FROM_WIDTH && page.page_label.length <= 3) {
      context.font = `11px ${colors.font}`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillStyle = light > DARK_FROM ? colors.onLit : colors.onUnlit;
      context.fillText(page.page_label, x + width / 2, box.y + box.height / 2 + 1);
    }
  });
  context.restore();
}

/** Colours of a lane, from the page's tokens. */
export function colorsOf(element, side) {
  const style = getComputedStyle(element);
  const token = (name) => style.getPropertyValue(`--quest-${name}`).trim();
  return {
    lit: token(side),
    unlit: token("well"),
    onLit: token("card"),
    onUnlit: token("text"),
    font: style.fontFamily,
  };
}

export function percent(share) {
  return `${share > 0 && share < 0.0095 ? (100 * share).toFixed(1) : (100 * share).toFixed(0)} %`;
}

/** How many of ascending numbers are not above `limit`. */
function countUpTo(numbers, limit) {
  let [low, high] = [0, numbers.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
