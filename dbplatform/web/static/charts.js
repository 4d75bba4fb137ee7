/** The line of a metric as SVG. Labels stand beside the picture as text, so that they keep their size on a phone. */

import { clock, el, plural, svg } from "./elements.js";

const WIDTH = 300;
const HEIGHT = 80;
/** A step that is so many times longer than the usual one is a gap: nothing is drawn where nothing is known. */
const GAP = 3;

/** `points`: [{at, value, least, greatest}], the oldest first; `fixed`: [lowest, highest]; no scale goes beyond `ceiling`. */
export function chart({ key, title, points, words, fixed, ceiling = Infinity }) {
  const known = points.filter((point) => point.value !== null && Number.isFinite(point.value))
    .map(({ at, value, least, greatest }) => ({ at, value, t: Date.parse(at), least: least ?? value, greatest: greatest ?? value }));
  if (known.length < 2) {
    const said = known.length ? words(known[0].value) : "not measured";
    return el("figure", {}, el("h3", {}, title, el("span", {}, said)), el("p", { class: "note" }, "A line needs two looks."));
  }
  const [low, most] = fixed ?? scale(known);
  const high = most > ceiling && ceiling > low ? ceiling : most;
  const [from, until] = [known[0].t, known.at(-1).t];
  const x = (point) => round(((point.t - from) / (until - from || 1)) * WIDTH);
  const y = (value) => round(HEIGHT - 2 - ((value - low) / (high - low)) * (HEIGHT - 4));
  const parts = withoutGaps(known);
  const path = (part, field) => part.map((point) => `${x(point)} ${y(point[field])}`).join("L");
  // A line without length is a dot.
  const line = parts.map((part) => `M${path(part, "value")}${part.length === 1 ? "h.01" : ""}`).join("");
  const band = parts.filter((part) => part.some((point) => point.greatest > point.least))
    .map((part) => `M${path(part, "greatest")}L${path(part.toReversed(), "least")}Z`).join("");

  const now = el("span", {}, words(known.at(-1).value));
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const least = Math.min(...known.map((point) => point.least));
  const greatest = Math.max(...known.map((point) => point.greatest));
  const drawn = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", tabindex: 0, "data-keep": `chart ${key}`,
    role: "slider", "aria-label": `${title}, from ${words(least)} to ${words(greatest)}`,
    "aria-valuemin": 0, "aria-valuemax": known.length - 1,
  }, band ? svg("path", { class: "band", d: band }) : null, svg("path", { class: "line", d: line }), cursor);

  let at = known.length - 1;
  function look(place) {
    at = Math.max(0, Math.min(known.length - 1, place));
    const point = known[at];
    drawn.setAttribute("aria-valuenow", at);
    drawn.setAttribute("aria-valuetext", `${clock(point.at)}: ${words(point.value)}`);
    cursor.setAttribute("x1", x(point));
    cursor.setAttribute("x2", x(point));
    now.textContent = `${clock(point.at)}  ${words(point.value)}`;
    cursor.setAttribute("visibility", "visible");
  }
  function leave() {
    look(known.length - 1);
    cursor.setAttribute("visibility", "hidden");
    now.textContent = words(known.at(-1).value);
  }
  leave();
  drawn.addEventListener("pointermove", (event) => {
    const box = drawn.getBoundingClientRect();
    const t = from + ((event.clientX - box.left) / box.width) * (until - from);
    look(known.reduce((best, point, place) => (Math.abs(point.t - t) < Math.abs(known[best].t - t) ? place : best), 0));
  });
  drawn.addEventListener("pointerleave", leave);
  drawn.addEventListener("blur", leave);
  drawn.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: known.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    look(steps[event.key]);
  });
  return el("figure", {},
    el("h3", {}, title, now),
    el("div", { class: "plot" },
      el("div", { class: "y", "aria-hidden": "true" }, el("span", {}, words(high)), el("span", {}, words(low))),
      drawn,
      el("div", { class: "x", "aria-hidden": "true" },
        el("span", {}, clock(known[0].at)), el("span", {}, clock(known.at(-1).at)))));
}

/** From nothing on, unless all that is shown lies far above it: a change of 0.1 % must be seen, and no noise be made a cliff. */
function scale(known) {
  const least = Math.min(...known.map((point) => point.least));
  const greatest = Math.max(...known.map((point) => point.greatest));
  if (least >= 0 && least < greatest / 2) return [0, greatest];
  if (least === greatest) return least === 0 ? [0, 1] : [Math.min(0, least * 2), Math.max(0, least * 2)];
  const room = (greatest - least) * 0.5;
  return [least >= 0 ? Math.max(0, least - room) : least - room, greatest + room];
}

function withoutGaps(known) {
  const steps = known.slice(1).map((point, place) => point.t - known[place].t).sort((a, b) => a - b);
  const most = steps[Math.floor(steps.length / 2)] * GAP;
  const parts = [[known[0]]];
  for (const [place, point] of known.slice(1).entries()) {
    if (point.t - known[place].t > most) parts.push([]);
    parts.at(-1).push(point);
  }
  return parts;
}

const round = (value) => Math.round(value * 100) / 100;

/** How far something is from 0 to 100, as a ring with its number inside. */
export function ring(value) {
  const around = 2 * Math.PI * 26;
  return svg("svg", { class: "ring", viewBox: "0 0 64 64", "aria-hidden": "true" },
    svg("circle", { class: "track", cx: 32, cy: 32, r: 26 }),
    value ? svg("circle", {
      class: "part", cx: 32, cy: 32, r: 26, transform: "rotate(-90 32 32)",
      "stroke-dasharray": `${round((value / 100) * around)} ${round(around)}`,
    }) : null,
    svg("text", { x: 32, y: 39, "text-anchor": "middle" }, value === null ? "–" : String(value)));
}

/** The last runs, the oldest first: a low block passed, a high one did not; hollow ones errored. */
export function strip(runs) {
  const many = (verdict) => runs.filter((run) => run.verdict === verdict).length;
  const words = `Of the last ${plural(runs.length, "run")} ${many("passed")} passed, ${many("failed")} failed, ${many("errored")} errored`;
  return el("figure", { class: "strip" },
    svg("svg", { width: runs.length * 11, height: 24, role: "img", "aria-label": words }, runs.map((run, place) => {
      const high = run.verdict === "passed" ? 8 : 22;
      return svg("rect", { class: run.verdict ?? "running", x: place * 11 + 1, y: 23 - high, width: 8, height: high, rx: 1.5 });
    })),
    el("figcaption", { class: "note" }, `${words}.`));
}
