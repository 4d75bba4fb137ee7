/**
 * The dashboard: fills its panels from the API, and does so again when /ws says that something of it is new. Nothing is
 * asked for on a clock. The service makes a document at most every two seconds, so what is announced is asked for at
 * once, for what can be had, and once more when no older document can be answered.
 */

import { TRIES, watch } from "./live.js";
import { el, link, setClock, tick } from "./elements.js";
import { DATABASE, FLEET } from "./panels.js";

const KEPT_MS = 2100;
const WORDS_MS = 15_000;

const main = document.querySelector("main");
const database = main.dataset.database;
const address = database === undefined ? "/api/v1/databases" : `/api/v1/databases/${encodeURIComponent(database)}/dashboard`;
const panels = database === undefined ? FLEET : DATABASE;
const at = (id) => document.getElementById(id);

let shown = null;
let tag = null;
let watching = null;
let watched = "";
/** What runs, by database, as /ws tells it. */
const work = Object.create(null);
/** Only a document asked for after this moment has all that was announced. */
let settled = 0;
let timer = null;
let loading = false;
/** So many acts were done: a document asked for before the last of them is of no use. */
let acts = 0;

/* Loading. */

function changed() {
  settled = performance.now() + KEPT_MS;
  if (timer === null) load();
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(load, Math.max(settled - performance.now(), 0));
}

async function load() {
  clearTimeout(timer);
  timer = null;
  if (loading) return;
  loading = true;
  const [began, before] = [performance.now(), acts];
  let answer = null;
  try {
    answer = await asked();
    trouble(null);
  } catch (error) {
    trouble(error);
  }
  loading = false;
  if (began < settled) later();
  if (answer === null || before !== acts) return;
  const old = shown;
  [shown, tag] = answer;
  show();
  if (old) tellNews(old, shown);
  follow();
}

/** The document and its tag; null: it is still the one that is shown. */
async function asked() {
  const headers = { Accept: "application/json", ...(tag ? { "If-None-Match": tag } : {}) };
  const answer = await fetch(address, { cache: "no-store", headers });
  setClock(answer.headers.get("Date"));
  return answer.status === 304 ? null : [await documentOf(answer), answer.headers.get("ETag")];
}

async function documentOf(answer) {
  const found = await answer.json().catch(() => null);
  if (answer.ok && found) return found;
  const error = new Error(found?.error?.message ?? `The service answered ${answer.status}.`);
  error.status = answer.status;
  throw error;
}

function trouble(error) {
  const place = at("trouble");
  place.hidden = error === null;
  if (error === null) return place.replaceChildren();
  if (error.status === 401) {
    const login = `/login?next=${encodeURIComponent(location.pathname)}`;
    place.replaceChildren("You are not logged in any more. ", link(login, "Log in"));
    return undefined;
  }
  const again = el("button", { type: "button", class: "quiet" }, "Load again");
  again.addEventListener("click", load);
  // What fetch itself throws is the browser's word for "nobody answers".
  const words = error.status ? error.message : "The service does not answer.";
  place.replaceChildren(`${words} ${shown ? "What is shown is older. " : ""}`, again);
  return undefined;
}

/* Showing. */

function show() {
  if (shown === null) return;
  for (const panel of panels) {
    const part = panel.part(shown, work);
    const key = JSON.stringify(part);
    const place = at(`panel-${panel.key}`) ?? made(panel);
    if (place.dataset.shows === undefined || panel.known !== key) redraw(panel, place, panel.show(part, act));
    panel.known = key;
  }
  tick();
}

function made(panel) {
  const place = el("div", { id: `panel-${panel.key}`, hidden: true });
  at("panels").append(place);
  return place;
}

/** Draw a panel anew, and leave the focus and what was opened where they were. */
function redraw(panel, place, content) {
  const kept = (node) => node?.dataset?.keep ?? node?.getAttribute("href") ?? undefined;
  const focused = place.contains(document.activeElement) ? kept(document.activeElement) : undefined;
  const opened = new Set([...place.querySelectorAll("details[open]")].map(kept));
  const section = panel.title === null ? content : content && titled(panel, place, content);
  place.dataset.shows = "";
  place.hidden = section === null;
  place.replaceChildren(...[section ?? []].flat(Infinity).filter(Boolean));
  for (const details of place.querySelectorAll("details")) details.open = opened.has(kept(details));
  if (focused !== undefined) {
    const all = [...place.querySelectorAll("[data-keep], a")];
    (all.find((node) => kept(node) === focused) ?? all[0])?.focus({ preventScroll: true });
  }
}

function titled({ key, title, flashes }, place, content) {
  const fresh = flashes && place.dataset.shows !== undefined ? " fresh" : "";
  return el("section", { class: `card${fresh}`, "aria-labelledby": `title-${key}` },
    el("h2", { id: `title-${key}`, tabindex: -1, "data-keep": `title ${key}` }, title), content);
}

function say(words) {
  at("said").textContent = words;
}

/** What somebody who does not see the page has to hear; that figures move is not among it. */
function tellNews(old, now) {
  const news = [];
  if (database === undefined) {
    const alerts = (one) => one.critical_alerts + one.warning_alerts;
    const before = new Map(old.databases.map((one) => [one.name, alerts(one)]));
    const more = now.databases.filter((one) => alerts(one) > (before.get(one.name) ?? 0));
    news.push(...more.map((one) => `New alert of ${one.name}.`));
  } else {
    const known = new Set(old.alerts.map((one) => one.id));
    const still = new Set(now.alerts.map((one) => one.id));
    news.push(...now.alerts.filter((one) => !known.has(one.id)).map((one) => `New alert: ${one.cause}.`));
    news.push(...old.alerts.filter((one) => !still.has(one.id)).map((one) => `Over: ${one.cause}.`));
    if (old.health?.score !== now.health?.score && now.health) news.push(`Health is ${now.health.score} of 100.`);
    const kinds = now.running.map((one) => one.kind).join(", ");
    if (now.running.length !== old.running.length) news.push(kinds ? `Running: ${kinds}.` : "Nothing runs any more.");
  }
  if (news.length) say(news.join(" "));
}

/* Acts. */

async function post(path, body) {
  return documentOf(await fetch(`/api/v1/${path}`, {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", Accept: "application/json" },
  }));
}

/** Do it, show at once what it changed, and ask for nothing that may be older. */
async function done(request, change, words) {
  const answer = await request;
  acts += 1;
  settled = performance.now() + KEPT_MS;
  change(answer);
  show();
  say(words);
  later();
}

/** Press a button of an entry; what goes wrong is told beneath it. */
async function press(key, request, change, words) {
  const pressed = [...document.querySelectorAll("button")].find((one) => one.dataset.keep === key);
  const problem = pressed?.closest("li")?.querySelector(".problem");
  // Not disabled: that would take the focus away.
  if (pressed?.getAttribute("aria-busy") === "true") return;
  pressed?.setAttribute("aria-busy", "true");
  try {
    await done(request(), change, words);
  } catch (error) {
    if (problem) {
      problem.textContent = error.status ? error.message : "The service does not answer.";
      problem.hidden = false;
    }
  }
  pressed?.removeAttribute("aria-busy");
}

const putAlert = ({ alert }) => {
  shown.alerts = shown.alerts.map((one) => (one.id === alert.id ? alert : one));
};
const dropSilence = ({ silence }) => {
  shown.silences = shown.silences.filter((one) => one.id !== silence.id);
};
const putSilence = ({ silence }) => {
  shown.silences = [...shown.silences, silence];
  for (const one of shown.alerts.filter(({ metric }) => metric === silence.metric)) {
    one.silenced_until = silence.ends_at;
    if (one.state !== "pending") one.state = "silenced";
  }
};

/** What the buttons do; null: whoever looks may only read, and is shown none. */
const act = main.dataset.mayAct === undefined ? null : {
  acknowledge: ({ id }) => press(`Acknowledge ${id}`, () => post(`alerts/${id}/acknowledgement`, {}), putAlert, "Acknowledged."),
  end: ({ id }) => press(`End silence ${id}`, () => post(`silences/${id}/end`, {}), dropSilence, "The silence has ended."),
  silence: askSilence,
};

function askSilence(alert) {
  const dialog = at("silence");
  const form = dialog.querySelector("form");
  const problem = dialog.querySelector(".problem");
  form.reset();
  problem.hidden = true;
  at("silence-title").textContent = `Silence ${alert.metric}`;
  form.querySelector("[value=cancel]").onclick = () => dialog.close();
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    form.setAttribute("aria-busy", "true");
    // Not form.elements.length, which is how many there are.
    const [length, reason] = [form.querySelector("select").value, form.querySelector("input").value];
    try {
      await done(post("silences", { database, metric: alert.metric, length, reason }), putSilence, "Silenced.");
      dialog.close();
      // The button that asked was drawn anew meanwhile.
      if (document.activeElement === document.body) at("title-alerts")?.focus({ preventScroll: true });
    } catch (error) {
      problem.textContent = error.status ? error.message : "The service does not answer.";
      problem.hidden = false;
    }
    form.removeAttribute("aria-busy");
  };
  dialog.showModal();
  form.querySelector("input").focus();
}

/* Watching. */

/** Watch what is declared; the rest has nobody who tells of it. */
function follow() {
  const names = (database === undefined ? shown.databases : [{ name: database, declared: shown.declared }])
    .filter((one) => one.declared).map((one) => one.name).slice(0, 500);
  if (watching && watched === JSON.stringify(names)) return;
  watched = JSON.stringify(names);
  watching?.close();
  watching = null;
  if (names.length === 0) return connection("none", "Does not move by itself", "none");
  connection("none", "Connecting", "running");
  watching = watch(names, {
    state: changed,
    progress: (message) => { work[message.database] = message.work; show(); },
    hello: ({ databases, ledger }) => {
      for (const [name, one] of Object.entries(databases)) troubles.set(name, troubleOf(one));
      heard = ledger.trouble === null;
      live();
    },
    ledger: ({ trouble: why }) => {
      heard = why === null;
      live();
    },
    feed: (message) => {
      troubles.set(message.database, troubleOf(message));
      live();
    },
    connection: connected,
  });
  return undefined;
}

let away = false;
/** Why nothing is heard of the live tables of a database; null: it is heard of. */
const troubles = new Map();
/** That a database is still to be made is nothing to worry about. */
const troubleOf = ({ trouble, absent }) => (absent ? null : trouble);
/** Whether the service hears what the ledger announces: all that is shown moves by that. */
let heard = true;

function live() {
  if (!heard) return connection("warned", "Not live: the ledger cannot be listened to", "errored");
  const silent = [...troubles].filter(([, why]) => why !== null).map(([name]) => name);
  if (silent.length === 0) return connection("passed", "Live", "passed");
  const which = silent.length === 1 ? silent[0] : `${silent.length} databases`;
  return connection("warned", `Live, but ${which} cannot be listened to`, "errored");
}

function connected({ is, attempt }) {
  at("again").hidden = is !== "lost";
  if (is === "open") {
    live();
    if (away) say("Connected again.");
    away = false;
    // What happened while nobody listened is not told again.
    changed();
    return;
  }
  if (is === "waiting" && attempt === 1) {
    // The service itself ends connections, to ask again who watches: most often it is back at once.
    connection("none", "Connecting again", "running");
    return;
  }
  if (is === "waiting") {
    connection("warned", `Connection lost, try ${attempt} of ${TRIES}`, "errored");
    if (!away) say("The connection is lost. Trying again.");
  } else {
    connection("failed", "Not connected", "failed");
    say(`The connection is lost after ${TRIES} tries. What is shown is no longer kept up to date.`);
  }
  // Whether it still runs is not known.
  for (const name of Object.keys(work)) delete work[name];
  show();
  away = true;
}

function connection(tone, words, shape) {
  const place = at("connection");
  const icon = place.querySelector("svg use");
  place.className = `pill ${tone}`;
  if (icon) icon.setAttribute("href", `#i-${shape}`);
  place.lastChild.textContent = words;
}

at("again").addEventListener("click", () => {
  at("again").hidden = true;
  connection("none", "Connecting", "running");
  watching?.again();
  main.querySelector("h1").focus();
  load();
});

// Only the words of what is shown grow older; nothing is asked for.
setInterval(() => {
  if (shown) show();
}, WORDS_MS);

load();
