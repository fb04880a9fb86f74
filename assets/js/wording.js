// Numbers as sentences, as `ui/wording.py` puts them.

const KIBIBYTE = 1024;
const NAMED_PAGES = 3;
const NUMBER_CHARACTERS = 6;
const DAY_MS = 86_400_000;

/** "1 page", "1,204 pages". */
export function counted(count, singular, plural = `${singular}s`) {
  return `${number(count)} ${count === 1 ? singular : plural}`;
}

/** "1,204". */
export function number(value) {
  return value.toLocaleString("en");
}

/** A rough time span: "3 s", "2 min 5 s". */
export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** A size with a binary unit: "2.9 MiB". */
export function byteCount(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let size = bytes;
  let unit = 0;
  for (; size >= KIBIBYTE && unit < units.length - 1; unit += 1) size /= KIBIBYTE;
  return `${unit === 0 || size >= 100 ? size.toFixed(0) : size.toFixed(1)} ${units[unit]}`;
}

/** Pages by their labels: "page 2", "pages 2, 5, 9 and 31 more". */
export function namedPages(labels) {
  const named = labels
    .slice(0, NAMED_PAGES)
    .map((label) => (label.length <= NUMBER_CHARACTERS && !label.includes(" ") ? label : `"${label}"`));
  const more = labels.length - named.length;
  if (more) named.push(`${number(more)} more`);
  const last = named.pop();
  const list = named.length ? `${named.join(", ")} and ${last}` : last;
  return `${labels.length === 1 ? "page" : "pages"} ${list}`;
}

/** When something was: "14:05" today, "3 Nov" this year, "3 Nov 2025" before. */
export function when(seconds) {
  const date = new Date(1000 * seconds);
  const now = new Date();
  if (now - date < DAY_MS && now.getDate() === date.getDate()) {
    return date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  }
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year });
}

/** A document page by its label: "p. 5", or the name of a chapter. */
export function pageName(label) {
  return label.length <= NUMBER_CHARACTERS && !label.includes(" ") ? `p. ${label}` : label;
}
