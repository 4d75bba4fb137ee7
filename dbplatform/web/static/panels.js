/**
 * What is shown of each document. A panel is {key, title, part, show}: `part` takes what it needs out of the document,
 * `show` makes elements of it (null: there is nothing to show). It is drawn again only when its part has changed; one
 * that `flashes` shows that it has.
 */

import { chart, ring, strip } from "./charts.js";
import {
  ago, bytes, count, duration, el, icon, link, moment, muted, name, percent, pill, plural, secondsSince, table,
} from "./elements.js";

/** The watch looks once a minute; after so long nothing is known any more. */
const OLD_S = 600;
const SOON_S = 7 * 86400;
const LONG_STATEMENT = 160;
const MOST_NAMED = 5;
const NOT_RUN = "Not run yet";
const VERDICTS = { passed: "Passed", failed: "Failed", errored: "Errored" };
const CHARTS = [
  ["health_score", "Health score", count, { fixed: [0, 100] }],
  ["connections_active", "Active sessions", count],
  ["connections_used_ratio", "Connections in use", percent, { ceiling: 1 }],
  ["cache_hit_ratio", "Read from the cache", percent, { ceiling: 1 }],
  ["commits_per_s", "Commits per second", count],
  ["longest_transaction_s", "Longest transaction", duration],
  ["blocked_sessions", "Sessions that wait for a lock", count],
  ["slow_statement_s", "Slowest statement, mean", duration],
  ["dead_tuple_ratio", "Dead rows", percent, { ceiling: 1 }],
  ["database_bytes", "Size of the database", bytes],
];

const isOld = (at) => at !== null && secondsSince(at) > OLD_S;
const none = (words) => el("p", { class: "muted" }, words);
const note = (...words) => el("span", { class: "note block" }, ...words);
const list = (items, kind = "list") => el("ul", { class: kind }, items);
const fact = (term, ...what) => el("div", {}, el("dt", {}, term), el("dd", {}, ...what));
/** Behind what was said: the run of Dagster that did it, where it is one and Dagster's address is known. */
const inDagster = (address) => (address ? [" · ", link(address, "Dagster run")] : null);
/** What the newest checks have found, and how long ago that is. */
const verdictPill = (verdict, at) => (verdict
  ? [pill(verdict, VERDICTS[verdict] ?? verdict), at ? [" ", ago(at)] : null]
  : pill("none", "Never checked"));

/** How a database is, by what was measured last: old figures say nothing, neither good nor bad; nor does unchecked data. */
function state({ score, critical, warning, verdict, at, begun }) {
  if (critical > 0 || (score !== null && score < 60 && !isOld(at))) return ["failed", "Look at this now"];
  if (warning > 0 || verdict === "failed" || verdict === "errored") return ["warned", "Wants care"];
  if (!begun) return ["none", NOT_RUN];
  if (at === null) return ["none", "Not measured yet"];
  if (isOld(at)) return ["none", "Not measured for a while"];
  if (score === null) return ["none", "Not judged"];
  if (score < 80) return ["warned", "Wants care"];
  return verdict === null ? ["none", "Not checked yet"] : ["passed", "All is well"];
}

/* All databases. */

export const FLEET = [{
  key: "fleet",
  title: null,
  part: ({ databases }, work) => databases.map((one) => [one, summaryState(one), Boolean(work[one.name]?.length)]),
  show: (databases) => (databases.length === 0
    ? el("section", { class: "card" }, none("No database is declared or on record yet. Run one: dbplatform run DATABASE"))
    : [el("p", { class: "sum" }, sum(databases)), list(databases.map(card), "fleet")]),
}];

const summaryState = (one) => state({
  score: one.score, critical: one.critical_alerts, warning: one.warning_alerts, verdict: one.verdict, at: one.measured_at,
  begun: one.begun,
});

const SUMS = [
  ["failed", "to look at now"], ["warned", "in want of care"], ["passed", "well"], ["none", "not judged"],
  [NOT_RUN, "not run yet"],
];

function sum(databases) {
  const kind = ([, [tone, said]]) => (said === NOT_RUN ? said : tone);
  const counted = SUMS.map(([which, words]) => [databases.filter((one) => kind(one) === which).length, words]);
  const told = counted.filter(([many]) => many).map(([many, words]) => `${many} ${words}`);
  return `${plural(databases.length, "database")}: ${told.join(", ")}.`;
}

function card([one, [tone, said], worked]) {
  const address = `/dashboard/${encodeURIComponent(one.name)}`;
  const firing = [
    one.critical_alerts ? `${one.critical_alerts} critical` : null,
    one.warning_alerts ? plural(one.warning_alerts, "warning") : null,
  ].filter(Boolean);
  return el("li", { class: `card ${tone}` },
    el("div", { class: "head" }, ring(one.score),
      el("div", {}, el("h2", {}, el("a", { href: address }, name(one.name))), pill(tone, said))),
    el("dl", {},
      fact("Measured", one.measured_at ? ago(one.measured_at) : muted("never"), one.grade ? `, grade ${one.grade}` : null),
      fact("Alerts", firing.length ? firing.join(", ") : muted("none")),
      fact("Data quality", verdictPill(one.verdict, one.started_at), one.report ? [" ", link(one.report, "report")] : null),
      fact("Running", one.running || worked ? plural(Math.max(one.running, 1), "operation") : muted("nothing"))),
    one.declared ? null : note("Not declared here: only what is on record."),
    one.begun ? null : begin(one.name));
}

/** How a database that is declared and nothing more comes to be. */
const begin = (database) => note("Begin: ", el("code", {}, `dbplatform run ${database}`));

/* One database. */

const checkedAt = ({ runs, run_id: run }) => runs.find((one) => one.run_id === run)?.started_at;
const firing = (alerts, severity) => alerts.filter((one) => one.severity === severity && one.state !== "pending").length;

const LEAD = {
  key: "lead",
  title: null,
  part: (doc) => {
    const at = doc.connections?.at ?? null;
    const score = doc.health?.score ?? null;
    const verdict = doc.quality.verdict;
    const [critical, warning] = [firing(doc.alerts, "critical"), firing(doc.alerts, "warning")];
    return {
      at, score, verdict,
      checked: checkedAt(doc.quality),
      state: state({ score, critical, warning, verdict, at, begun: doc.begun }),
      database: doc.database,
      begun: doc.begun,
      grade: doc.health?.grade ?? null,
      active: doc.connections?.active ?? null,
      used: doc.connections?.used_ratio ?? null,
      proven: doc.backups.backups.find((one) => one.proven_at !== null) ?? null,
      allBackups: doc.backups.next === null,
      unknown: doc.unknown,
      declared: doc.declared,
    };
  },
  show: (it) => el("section", { class: `card lead ${it.state[0]}`, "aria-label": "State" },
    el("div", { class: "head" }, ring(it.score),
      el("p", { class: "sentence" }, icon(it.state[0] === "warned" ? "failed" : it.state[0]), ` ${it.state[1]}.`,
        el("span", { class: "sub" }, it.score === null ? "No health score" : `Health ${it.score} of 100, grade ${it.grade}`))),
    el("dl", { class: "facts" },
      fact("Measured", it.at ? ago(it.at) : muted("never")),
      fact("Sessions", it.active === null ? muted("not known") : `${count(it.active)} active`,
        it.used === null ? null : muted(` (${percent(it.used)} of connections in use)`)),
      fact("Data quality", verdictPill(it.verdict, it.checked)),
      fact("Newest proven backup",
        it.proven ? ago(it.proven.taken_at ?? it.proven.proven_at) : muted(it.allBackups ? "none" : "none of the last"))),
    it.begun ? it.unknown.map((one) => note(`Not known: ${one.part}. ${one.reason}`)) : begin(it.database),
    it.declared ? null : note("Not declared here: only what is on record, and the page does not move by itself.")),
};

const RUNNING = {
  key: "running",
  title: "Running now",
  part: (doc, work) => [doc.running, work[doc.database] ?? []],
  show: ([runs, work]) => (runs.length + work.length === 0 ? null : [
    list(runs.map((run) => el("li", {}, pill("running", run.kind), " since ", ago(run.started_at),
      run.by ? [" by ", name(run.by)] : null, inDagster(run.url)))),
    list(work.map(progress)),
  ]),
};

function progress({ pid, what, on, phase, done, total }) {
  const share = total ? Math.min(done / total, 1) : null;
  return el("li", { class: "work" },
    el("span", {}, what, on ? [" on ", name(on)] : null, phase ? `: ${phase}` : null, muted(` (session ${pid})`)),
    el("progress", { max: 1, value: share, "aria-label": `${what} ${on ?? ""}` }),
    el("span", { class: "num" }, share === null ? "–" : `${Math.floor(share * 100)} %`));
}

const ALERTS = {
  key: "alerts",
  title: "Alerts",
  flashes: true,
  part: (doc) => [doc.alerts, doc.silences],
  show: ([alerts, silences], act) => [
    act === null && alerts.length + silences.length ? note(READS) : null,
    alerts.length ? list(alerts.map((one) => alert(one, act))) : el("p", {}, pill("passed", "No alert is open")),
    silences.length ? [el("h3", {}, "Silences"), list(silences.map((one) => silence(one, act)))] : null,
  ],
};

const READS = "You may read here, and not act: a token of the scope act acknowledges and silences.";
const QUIET = { pending: ", not yet told", acknowledged: ", acknowledged", silenced: ", silenced" };

function alert(one, act) {
  const critical = one.severity === "critical";
  const tone = one.state in QUIET ? "none" : critical ? "failed" : "warned";
  // Its address names the service as receivers of messages reach it; here is the same page of this very service.
  const page = one.runbook && URL.canParse(one.runbook) ? `/runbooks${new URL(one.runbook).hash}` : null;
  return el("li", {},
    el("div", { class: "words" },
      pill(tone, `${critical ? "Critical" : "Warning"}${QUIET[one.state] ?? ""}`), " ", el("b", {}, name(one.cause)),
      note(name(one.key), " since ", ago(one.since), one.limit ? `, limit ${one.limit}` : null,
        one.acknowledged_by ? [", acknowledged by ", name(one.acknowledged_by)] : null,
        one.silenced_until ? `, silenced until ${moment(one.silenced_until)}` : null,
        page ? [" · ", link(page, "What to do")] : null),
      one.advice ? note(one.advice) : null,
      one.preceded_by ? note(`Before it began: ${one.preceded_by}`) : null),
    act === null ? null : el("div", { class: "buttons" },
      one.acknowledged_by === null && one.state !== "pending" ? button("Acknowledge", one, () => act.acknowledge(one)) : null,
      one.silenced_until === null ? button("Silence", one, () => act.silence(one), "quiet") : null),
    el("p", { class: "problem", role: "alert", hidden: true }));
}

const silence = (one, act) => el("li", {},
  el("div", { class: "words" }, el("b", {}, one.metric ? name(one.metric) : "Everything"),
    one.database ? null : " of every database", `, until ${moment(one.ends_at)}`,
    note(name(one.reason), " (", name(one.created_by), ")")),
  act === null ? null : el("div", { class: "buttons" }, button("End silence", one, () => act.end(one), "quiet")),
  el("p", { class: "problem", role: "alert", hidden: true }));

function button(words, one, press, kind = "") {
  const label = `${words}: ${one.metric ?? one.reason}`;
  const made = el("button", { type: "button", class: kind, "data-keep": `${words} ${one.id}`, "aria-label": label }, words);
  made.addEventListener("click", press);
  return made;
}

const DEDUCTIONS = {
  key: "deductions",
  title: "What lowers the score",
  flashes: true,
  part: (doc) => doc.health?.deductions ?? [],
  show: (deductions) => (deductions.length === 0 ? null : list(deductions.map((one) => el("li", {},
    pill(one.severity === "critical" ? "failed" : "warned", `−${one.points}`), " ", el("b", {}, one.cause),
    note(one.advice, " ", link(one.document, "Manual")))))),
};

const LINES = {
  key: "charts",
  title: "The last hours",
  part: (doc) => doc.series,
  show: (series) => {
    const drawn = CHARTS.filter(([key]) => series[key]?.length);
    if (drawn.length === 0) return none("Nothing was measured in the last hours.");
    return el("div", { class: "charts" }, drawn.map(([key, title, words, more]) =>
      chart({ key, title, words, points: series[key], ...more })));
  },
};

const LOCKS = {
  key: "locks",
  title: "Who waits for whom",
  part: (doc) => doc.connections?.locks_tree ?? null,
  show: (locks) => (locks === null ? null : locks.length === 0 ? none("Nobody waits for a lock.") : tree(locks)),
};

const tree = (locks) => list(locks.map((one) => el("li", {},
  el("b", { class: "num" }, one.pid === 0 ? "A prepared transaction" : `Session ${one.pid}`),
  one.seconds === null ? muted(" holds others back") : ` waits ${duration(one.seconds)}`,
  one.mode ? [" for ", el("code", {}, one.mode)] : null, one.relation ? [" on ", name(one.relation)] : null,
  one.waiting.length ? tree(one.waiting) : null)), "tree");

const SLOW = {
  key: "slow",
  title: "Slow statements",
  part: (doc) => doc.slow_queries,
  show: ({ statements, reason, since }) => {
    if (statements.length === 0) return none(reason ? `Not known: ${reason}.` : "None stood out in the last hour.");
    const columns = [["Statement", "wide"], ["Mean", "right"], ["Total", "right"], ["Calls", "right"], ["Rows", "right"]];
    const rows = statements.map((one) => [
      [statement(one), one.findings.map((words) => note(words))],
      duration(one.mean_seconds), duration(one.total_seconds), count(one.calls), count(one.rows),
    ]);
    return [table("Slow statements", columns, rows), note(`Since ${moment(since)}.`)];
  },
};

function statement({ query, queryid }) {
  if (query.length <= LONG_STATEMENT) return el("code", {}, query);
  const short = el("code", {}, `${query.slice(0, LONG_STATEMENT)}…`);
  return el("details", { "data-keep": `statement ${queryid}` },
    el("summary", { "data-keep": `summary ${queryid}` }, short), el("pre", {}, el("code", {}, query)));
}

const PARTITIONS = {
  key: "partitions",
  title: "Partitions reach until",
  part: (doc) => doc.partitions,
  show: (tables) => {
    if (tables.length === 0) return null;
    const columns = [
      ["Table", ""], ["Until", ""], ["From now on", ""], ["Partitions", "right"], ["Rows in default", "right"], ["Looked at", ""],
    ];
    return table("Partitions", columns, tables.map((one) => [
      name(one.table), one.until ? moment(one.until) : "–", horizon(one), count(one.partitions),
      one.default_rows ? pill("warned", count(one.default_rows)) : "0", ago(one.looked_at),
    ]));
  },
};

function horizon({ until, numbers }) {
  if (until === null) return numbers === null ? "–" : `${count(numbers)} numbers left`;
  const seconds = -secondsSince(until);
  if (seconds <= 0) return pill("failed", "past");
  return seconds < SOON_S ? pill("warned", duration(seconds)) : duration(seconds);
}

const BACKUPS = {
  key: "backups",
  title: "Backups",
  flashes: true,
  part: (doc) => doc.backups,
  show: ({ backups, drills }) => {
    const columns = [["Taken", ""], ["Kind", ""], ["State", ""], ["Proof", ""], ["Size", "right"]];
    const rows = backups.map((one) => [
      [ago(one.taken_at ?? one.started_at), inDagster(one.run_url)],
      one.scope && one.scope !== "everything" ? [one.kind, ", ", name(one.scope)] : one.kind,
      backupState(one),
      one.proven_at ? [pill("passed", "Proven"), " ", ago(one.proven_at)] : muted("not restored yet"),
      one.bytes === null ? "–" : bytes(one.bytes),
    ]);
    return [
      rows.length ? table("Backups", columns, rows) : el("p", {}, pill("none", "There is no backup")),
      drills.length ? [el("h3", {}, "Restores that were to prove them"), list(drills.slice(0, 3).map(drill))] : null,
    ];
  },
};

function backupState({ status, damage, error }) {
  if (damage) return [pill("failed", "Damaged"), note(damage)];
  if (status === "failed") return [pill("failed", "Failed"), error ? note(error) : null];
  return status === "running" ? pill("running", "Running") : status;
}

const DRILLS = { proven: "passed", "not proven": "failed", errored: "errored", running: "running" };

const drill = (one) => el("li", {}, pill(DRILLS[one.status] ?? "none", one.status), " ", ago(one.started_at),
  one.rto_seconds === null ? null : `: back in ${duration(one.rto_seconds)}`,
  one.rpo_seconds === null ? null : `, at most ${duration(one.rpo_seconds)} of work lost`, inDagster(one.run_url),
  one.errors.map((words) => note(words)));

const QUALITY = {
  key: "quality",
  title: "Data quality",
  flashes: true,
  part: (doc) => doc.quality,
  show: (quality) => {
    const { database, verdict, report, run_url: run, unreviewed, runs, tables } = quality;
    if (runs.length === 0) return none("Its data was never checked.");
    const waiting = `/reports/${encodeURIComponent(database)}/?reviewed=no`;
    const columns = [["Table", ""], ["Outcome", "wide"], ["Rows", "right"]];
    return [
      el("p", {}, verdictPill(verdict, checkedAt(quality)), report ? [" ", link(report, "Newest report")] : null, inDagster(run),
        unreviewed ? [" · ", link(waiting, `${plural(unreviewed, "report")} not reviewed`)] : null),
      strip(runs.toReversed()),
      tables.length === 0 ? null : table("Tables", columns, tables.map((one) =>
        [name(one.table), outcome(one.checks), one.row_count === null ? "–" : count(one.row_count)])),
    ];
  },
};

function outcome(checks) {
  const by = (status) => checks.filter((one) => one.status === status);
  const found = ["failed", "errored", "accepted"].filter((status) => by(status).length);
  const bad = [...by("failed"), ...by("errored")];
  const more = bad.length - MOST_NAMED;
  return [
    found.map((status) => [pill(status, `${by(status).length} ${status}`), " "]),
    bad.length
      ? note(bad.slice(0, MOST_NAMED).map((one, place) => [place ? ", " : null, name(one.name)]), more > 0 ? ` and ${more} more` : null)
      : pill("passed", `${plural(by("passed").length, "check")} passed`),
  ];
}

const ADVICE = {
  key: "advice",
  title: "Recommendations",
  part: (doc) => doc.recommendations,
  show: (advice) => (advice.length === 0 ? null : list(advice.map((one) => el("li", {},
    pill(one.severity === "warning" ? "warned" : "none", one.kind.replaceAll("_", " ")), " ",
    el("b", {}, name(one.subject)), ": ", one.reason, " ", link(one.document, "Manual"),
    one.sql ? el("pre", {}, el("code", {}, one.sql)) : null)))),
};

export const DATABASE = [
  LEAD, RUNNING, ALERTS, DEDUCTIONS, LINES, LOCKS, SLOW, PARTITIONS, BACKUPS, QUALITY, ADVICE,
];
