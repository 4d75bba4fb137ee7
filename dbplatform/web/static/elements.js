/** Elements and words. Text becomes text nodes and attributes, never HTML. */

const SVG = "http://www.w3.org/2000/svg";
const COUNT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const FINE = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
const BYTES = ["bytes", "kB", "MB", "GB", "TB", "PB"];
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** How far the clock of the service is ahead of that of the browser, in milliseconds. */
let ahead = 0;
export const setClock = (date) => { if (Number.isFinite(Date.parse(date))) ahead = Date.parse(date) - Date.now(); };
export const secondsSince = (at) => (Date.now() + ahead - Date.parse(at)) / 1000;

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export const el = (tag, attributes = {}, ...children) => made(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => made(document.createElementNS(SVG, tag), attributes, children);

/** A name from the data, which may be written from right to left. */
export const name = (text) => el("bdi", {}, String(text));
export const muted = (...words) => el("span", { class: "muted" }, ...words);
export const icon = (shape) => svg("svg", { class: "ico", "aria-hidden": "true" }, svg("use", { href: `#i-${shape}` }));
/** The tone is a colour, the shape and the words say the same without it. */
export const pill = (tone, words, shape = tone === "warned" ? "failed" : tone) =>
  el("span", { class: `pill ${tone}` }, icon(shape), words);

/** A link only to the web or to this service: an address from the data may be anything. */
export function link(address, ...words) {
  let url = null;
  try {
    url = new URL(address, location.origin);
  } catch {
    return el("span", {}, ...words);
  }
  if (!["http:", "https:"].includes(url.protocol)) return el("span", {}, ...words);
  return el("a", { href: url.href, rel: url.origin === location.origin ? null : "noopener noreferrer" }, ...words);
}

/** A table that becomes a list of cards on a phone. `columns`: [title, "right" or ""]; a row: its cells, the first a header. */
export function table(label, columns, rows) {
  const head = columns.map(([title, side]) => el("th", { scope: "col", role: "columnheader", class: side }, title));
  const body = rows.map((cells) =>
    el("tr", { role: "row" }, cells.map((cell, place) => {
      const [title, side] = columns[place];
      return place === 0
        ? el("th", { scope: "row", role: "rowheader" }, cell)
        : el("td", { role: "cell", class: side, "data-label": title }, cell);
    })));
  return el("table", { role: "table", "aria-label": label },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)), el("tbody", { role: "rowgroup" }, body));
}

export const clock = (at) => new Date(at).toISOString().slice(11, 16);
export const moment = (at) => new Date(at).toISOString().slice(0, 16).replace("T", " ");
export const plural = (many, noun) => `${COUNT.format(many)} ${noun}${many === 1 ? "" : "s"}`;
export const count = (value) => (Math.abs(value) < 100 ? FINE : COUNT).format(value);
export const percent = (ratio) => `${FINE.format(ratio * 100)} %`;

export function duration(seconds) {
  const s = Math.abs(seconds);
  if (s > 0 && s < 1) return `${FINE.format(s * 1000)} ms`;
  if (s < MINUTE) return `${FINE.format(s)} s`;
  if (s < HOUR) return `${COUNT.format(s / MINUTE)} min`;
  const [hours, minutes] = [Math.floor(s / HOUR), Math.floor((s % HOUR) / MINUTE)];
  if (s < 2 * DAY) return minutes && hours < 10 ? `${hours} h ${minutes} min` : `${hours} h`;
  return `${COUNT.format(s / DAY)} days`;
}

export function bytes(value) {
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), BYTES.length - 1);
  return `${FINE.format(value / 1024 ** step)} ${BYTES[step]}`;
}

/** A moment, and how long ago it was; `tick` keeps the words true. */
export const ago = (at) => el("time", { datetime: at, title: `${moment(at)} UTC`, "data-ago": "" }, agoWords(at));

function agoWords(at) {
  const seconds = secondsSince(at);
  return seconds < MINUTE ? "just now" : `${duration(Math.floor(seconds / MINUTE) * MINUTE)} ago`;
}

export function tick() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const words = agoWords(time.dateTime);
    if (time.textContent !== words) time.textContent = words;
  }
}
