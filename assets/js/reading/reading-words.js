// What the model looked at, in words for somebody who reads a book.

import { counted, duration, number } from "../wording.js";

const EMPTY = "Ask a question: here you see how much of the text the model looks at for each word, and where.";
// What is left out of the last page of a step, or of a mean over steps, is no choice.
const ALMOST_ALL = 0.995;
// Why all of the text was looked at, by what was asked for.
const WHY_ALL = { auto: ": at this length that is not slower", quest: ": the text is short enough for that", dense: "" };

/** One sentence of the present answer, or of the last one. @param reading see reading-state.js. */
export function readingSentence({ closed, state, queued, prefill, step, end }) {
  if (closed) return closed;
  if (state === "waiting") return queued?.jobs_ahead > 0 ? `Waits for ${counted(queued.jobs_ahead, "other question")}.` : "Begins.";
  if (state === "reading") return beforeAnswer(prefill);
  if (state === "answering") return step.step > 0 ? looked(step, step, true) : beforeAnswer(prefill);
  if (!end) return EMPTY;
  if (end.attended_tokens != null) return looked(end, end, false);
  if (end.finish_reason === "failed") return "The answer failed before the model had looked anywhere.";
  if (end.finish_reason === "cancelled") return "Stopped before the model had looked anywhere.";
  return "The answer came with the reading of the question itself: the model did not look back.";
}

function beforeAnswer(prefill) {
  if (!prefill) return "Answering.";
  if (prefill.already_read) return "Already read. Answering.";
  const { done_tokens: done, total_tokens: total, remaining_s: left } = prefill;
  if (done >= total) return "Read. Answering.";
  return `Reads the text first: ${number(done)} of ${number(total)} tokens${left == null ? "" : `, about ${duration(left)} left`}.`;
}

function looked(figures, { context_tokens: all, mean_missed_share: missed }, isNow) {
  const [looks, skips] = isNow ? ["looks", "skips"] : ["looked", "skipped"];
  const attended = figures.attended_tokens;
  if (attended == null) return "Answering.";
  const tokens = figures.mode === "passages" ? "tokens of the passages that it was given" : "tokens";
  if (attended >= ALMOST_ALL * all) {
    const why = WHY_ALL[figures.attention] ?? "";
    return `For each word the model ${looks} at all ${number(all)} ${tokens}${why}.${drafts(figures)}`;
  }
  const share = `${number(Math.round(attended))} of ${number(all)} ${tokens} (${percent(attended / all)})`;
  const part = `For each word the model ${looks} at ${share}`;
  return missed == null ? `${part}.` : `${part} and ${skips} an estimated ${percent(missed)} of its attention.`;
}

/** What the sentence leaves out. @param factor how many times the estimate the truth was, "1.19 to 1.51". */
export function smallPrint({ step, end }, factor) {
  const figures = step ?? end;
  const choice = figures && !readsAll(figures) && figures.attended_tokens < ALMOST_ALL * figures.context_tokens;
  if (!choice) return "A token is a word or part of one; the model looks anew for each.";
  const chooses = step ? `each of ${number(step.layers * step.kv_heads)} heads chooses its own${denseText(step)}` : "each head chooses its own";
  const estimate = (end ?? step).mean_missed_share == null ? "" : ` On novels the true share was ${factor} times the estimate.`;
  const why = figures.attention === "auto" ? " At this length looking at all would be slower." : "";
  return `A token is a word or part of one; ${chooses}.${why}${estimate}`;
}

/** Whether it reads everything whatever the length. */
export function readsAll({ attention }) {
  return attention === "dense" || attention === "exact";
}

/** Of speculative decoding, "" where nothing was drafted. */
function drafts({ drafted_tokens: drafted, accepted_tokens: accepted }) {
  return drafted ? ` ${number(accepted)} of ${number(drafted)} drafted tokens accepted.` : "";
}

function denseText({ layers, dense_layers: dense }) {
  return dense && dense < layers ? ` (a mean: the first ${counted(dense, "layer")} looked at all)` : "";
}

/** "15 %", "4.5 %", "less than 0.1 %". */
export function percent(share) {
  if (share > 0 && share < 0.001) return "less than 0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
