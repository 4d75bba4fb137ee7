/**
 * What is shown of each document. A panel is {key, title, part, show}: `part` takes what it needs out of the document,
 * `show` makes elements of it (null: there is nothing to show). It is drawn again only when its part has changed; one
 * that `flashes` shows that it has.
 */

import { chart, ring, strip } from "./charts.js";
import { ago, bytes, count, duration, el, icon, link, moment, muted, name, percent, pill, plural, secondsSince, table } from "./elements.js";

/** The watch looks once a minute; after so long nothing is known any more. */
const OLD_S = 600;
const DAY_S = 86400;
const LONG_STATEMENT = 160;
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

export const isOld = (at) => at !== null && secondsSince(at) > OLD_S;
const none = (words) => el("p", { class: "muted" }, words);
const verdictPill = (verdict) => (verdict ? pill(verdict, VERDICTS[verdict] ?? verdict) : pill("none", "Never checked"));
const dagster = (run) => (run.url ? [" · ", link(run.url, "Dagster run")] : null);

/** How a database is, by what was measured last: old figures say nothing, neither good nor bad. */
export function state({ score, critical, warning, verdict, at }) {
  if (critical > 0 || (score !== null && score < 60 && !isOld(at))) return ["failed", "Look at this now"];
  if (warning > 0 || verdict === "failed" || verdict === "errored") return ["warned", "Wants care"];
  if (at === null) return ["none", "Not measured yet"];
  if (isOld(at)) return ["none", "Not measured for a while"];
  if (score === null) return ["none", "Not judged"];
  return score < 80 ? ["warned", "Wants care"] : ["passed", "All is well"];
}

/* All databases. */

export const FLEET = [{
  key: "fleet",
  title: null,
  part: ({ databases }, work) => databases.map((one) => [one, stateOf(one), Boolean(work[one.name]?.length)]),
  show: (databases) => (databases.length === 0
    ? el("section", { class: "card" }, none("No database is declared or on record yet. Run one: "), el("code", {}, "dbplatform run DATABASE"))
    : [el("p", { class: "sum" }, sum(databases)), el("ul", { class: "fleet" }, databases.map(card))]),
}];

const stateOf = (one) => state({ score: one.score, critical: one.critical_alerts, warning: one.warning_alerts, verdict: one.verdict, at: one.measured_at });

const SUMS = [["failed", "to look at now"], ["warned", "in want of care"], ["passed", "well"], ["none", "not judged"]];

function sum(databases) {
  const counted = SUMS.map(([tone, words]) => [databases.filter(([, [found]]) => found === tone).length, words]);
  return `${plural(databases.length, "database")}: ${counted.filter(([many]) => many).map(([many, words]) => `${many} ${words}`).join(", ")}.`;
}

function card([one, [tone, said], worked]) {
  const alerts = one.critical_alerts + one.warning_alerts;
  return el("li", { class: `card ${tone}` },
    el("div", { class: "head" }, ring(one.score),
      el("div", {}, el("h2", {}, el("a", { href: `/dashboard/${encodeURIComponent(one.name)}`, "data-keep": `database ${one.name}` }, name(one.name))), pill(tone, said))),
    el("dl", {},
      fact("Measured", one.measured_at ? [ago(one.measured_at), one.grade ? `, grade ${one.grade}` : null] : muted("never")),
      fact("Alerts", alerts === 0 ? muted("none") : [one.critical_alerts ? `${one.critical_alerts} critical` : null, one.critical_alerts && one.warning_alerts ? ", " : null, one.warning_alerts ? plural(one.warning_alerts, "warning") : null]),
      fact("Data quality", [verdictPill(one.verdict), one.report ? [" ", link(one.report, "report")] : null]),
      fact("Running", one.running || worked ? plural(Math.max(one.running, 1), "operation") : muted("nothing"))),
    one.declared ? null : el("p", { class: "note" }, "Not declared here: only what is on record."));
}

const fact = (term, ...what) => el("div", {}, el("dt", {}, term), el("dd", {}, ...what));

/* One database. */

const firing = (alerts, severity) => alerts.filter((one) => one.severity === severity && one.state !== "pending").length;

export const DATABASE = [
  {
    key: "lead", title: null,
    part: (doc) => {
      const at = doc.connections?.at ?? null;
      const proven = doc.backups.backups.find((one) => one.proven_at !== null) ?? null;
      const alerts = [firing(doc.alerts, "critical"), firing(doc.alerts, "warning")];
      const score = doc.health?.score ?? null;
      return {
        at, proven, score, grade: doc.health?.grade ?? null, verdict: doc.quality.verdict, unknown: doc.unknown, declared: doc.declared,
        active: doc.connections?.active ?? null, used: doc.connections?.used_ratio ?? null,
        state: state({ score, critical: alerts[0], warning: alerts[1], verdict: doc.quality.verdict, at }),
      };
    },
    show: (it) => el("section", { class: `card lead ${it.state[0]}`, "aria-label": "State" },
      el("div", { class: "head" }, ring(it.score),
        el("p", { class: "sentence" }, icon(it.state[0] === "warned" ? "failed" : it.state[0]), ` ${it.state[1]}.`,
          el("span", { class: "sub" }, it.score === null ? "No health score" : `Health ${it.score} of 100, grade ${it.grade}`))),
      el("dl", { class: "facts" },
        fact("Measured", it.at ? ago(it.at) : muted("never")),
        fact("Sessions", it.active === null ? muted("not known") : `${count(it.active)} active`, it.used === null ? null : muted(` (${percent(it.used)} of connections in use)`)),
        fact("Data quality", verdictPill(it.verdict)),
        fact("Newest proven backup", it.proven ? ago(it.proven.taken_at ?? it.proven.proven_at) : muted("none"))),
      it.unknown.length ? el("ul", { class: "note plain" }, it.unknown.map((one) => el("li", {}, `Not known: ${one.part}. ${one.reason}`))) : null,
      it.declared ? null : el("p", { class: "note" }, "Not declared here: only what is on record, and the page does not move by itself.")),
  },
  {
    key: "running", title: "Running now",
    part: (doc, work) => [doc.running, work[doc.database] ?? []],
    show: ([runs, work]) => (runs.length + work.length === 0 ? null : [
      el("ul", { class: "list" }, runs.map((run) => el("li", {}, pill("running", run.kind), " since ", ago(run.started_at), run.by ? [" by ", name(run.by)] : null, dagster(run)))),
      el("ul", { class: "list" }, work.map(progress)),
    ]),
  },
  {
    key: "alerts", title: "Alerts", flashes: true,
    part: (doc) => [doc.alerts, doc.silences],
    show: ([alerts, silences], act) => [
      alerts.length === 0 ? el("p", {}, pill("passed", "No alert is open")) : el("ul", { class: "list alerts" }, alerts.map((one) => alert(one, act))),
      silences.length === 0 ? null : [el("h3", {}, "Silences"), el("ul", { class: "list" }, silences.map((one) => silence(one, act)))],
    ],
  },
  {
    key: "deductions", title: "What lowers the score", flashes: true,
    part: (doc) => doc.health?.deductions ?? [],
    show: (deductions) => (deductions.length === 0 ? null : el("ul", { class: "list" }, deductions.map((one) =>
      el("li", {}, pill(one.severity === "critical" ? "failed" : "warned", `−${one.points}`), " ", el("b", {}, one.cause),
        el("p", { class: "note" }, one.advice, " ", link(one.document, "Manual")))))),
  },
  {
    key: "charts", title: "The last hours",
    part: (doc) => doc.series,
    show: (series) => {
      const drawn = CHARTS.filter(([key]) => series[key]?.length);
      return drawn.length === 0 ? none("Nothing was measured in the last hours.")
        : el("div", { class: "charts" }, drawn.map(([key, title, words, more]) => chart({ key, title, words, points: series[key], ...more })));
    },
  },
  {
    key: "locks", title: "Who waits for whom",
    part: (doc) => doc.connections?.locks_tree ?? null,
    show: (locks) => (locks === null ? null : locks.length === 0 ? none("Nobody waits for a lock.") : tree(locks)),
  },
  {
    key: "slow", title: "Slow statements",
    part: (doc) => doc.slow_queries,
    show: ({ statements, reason, since }) => {
      if (statements.length === 0) return none(reason ? `Not known: ${reason}.` : "None stood out in the last hour.");
      const columns = [["Statement", "wide"], ["Mean", "right"], ["Total", "right"], ["Calls", "right"], ["Rows", "right"]];
      return [table("Slow statements", columns, statements.map((one) => [
        [statement(one), one.findings.map((words) => el("span", { class: "note block" }, words))],
        duration(one.mean_seconds), duration(one.total_seconds), count(one.calls), count(one.rows),
      ])), el("p", { class: "note" }, `Since ${moment(since)}.`)];
    },
  },
  {
    key: "partitions", title: "Partitions reach until",
    part: (doc) => doc.partitions,
    show: (tables) => (tables.length === 0 ? null : table("Partitions",
      [["Table", ""], ["Until", ""], ["From now on", ""], ["Partitions", "right"], ["Rows in default", "right"], ["Looked at", ""]],
      tables.map((one) => [name(one.table), one.until ? moment(one.until) : "–", horizon(one), count(one.partitions), one.default_rows ? pill("warned", count(one.default_rows)) : "0", ago(one.looked_at)]))),
  },
  {
    key: "backups", title: "Backups", flashes: true,
    part: (doc) => doc.backups,
    show: ({ backups, drills }) => [
      backups.length === 0 ? el("p", {}, pill("warned", "There is no backup")) : table("Backups",
        [["Taken", ""], ["Kind", ""], ["State", ""], ["Proof", ""], ["Size", "right"]],
        backups.map((one) => [ago(one.taken_at ?? one.started_at), one.scope && one.scope !== "everything" ? [one.kind, ", ", name(one.scope)] : one.kind, backupState(one),
          one.proven_at ? [pill("passed", "Proven"), " ", ago(one.proven_at)] : muted("not restored yet"), one.bytes === null ? "–" : bytes(one.bytes)])),
      drills.length === 0 ? null : [el("h3", {}, "Restores that proved them"), el("ul", { class: "list" }, drills.slice(0, 3).map(drill))],
    ],
  },
  {
    key: "quality", title: "Data quality", flashes: true,
    part: (doc) => doc.quality,
    show: (quality) => (quality.runs.length === 0 ? none("Its data was never checked.") : [
      el("p", {}, verdictPill(quality.verdict), quality.report ? [" ", link(quality.report, "Newest report")] : null,
        quality.unreviewed ? [" · ", link(`/reports/${encodeURIComponent(quality.database)}/?reviewed=no`, `${plural(quality.unreviewed, "report")} not reviewed`)] : null),
      strip(quality.runs.toReversed()),
      quality.tables.length === 0 ? null : table("Tables", [["Table", ""], ["Outcome", "wide"], ["Rows", "right"]],
        quality.tables.map((one) => [name(one.table), outcome(one.checks), one.row_count === null ? "–" : count(one.row_count)])),
    ]),
  },
  {
    key: "advice", title: "Recommendations",
    part: (doc) => doc.recommendations,
    show: (advice) => (advice.length === 0 ? null : el("ul", { class: "list" }, advice.map((one) =>
      el("li", {}, pill(one.severity === "warning" ? "warned" : "none", one.kind.replaceAll("_", " ")), " ", el("b", {}, name(one.subject)), ": ", one.reason, " ", link(one.document, "Manual"),
        one.sql ? el("pre", {}, el("code", {}, one.sql)) : null)))),
  },
];

function progress({ pid, what, on, phase, done, total }) {
  const share = total ? Math.min(done / total, 1) : null;
  const words = [what, on ? [" on ", name(on)] : null, phase ? `: ${phase}` : null];
  return el("li", { class: "work" }, el("span", {}, words, muted(` (session ${pid})`)),
    el("progress", { max: 1, value: share, "aria-label": `${what} ${on ?? ""}` }), el("span", { class: "num" }, share === null ? "–" : `${Math.floor(share * 100)} %`));
}

function alert(one, act) {
  const critical = one.severity === "critical";
  const tone = ["silenced", "acknowledged", "pending"].includes(one.state) ? "none" : critical ? "failed" : "warned";
  const said = [critical ? "Critical" : "Warning", { pending: ", not yet told", acknowledged: ", acknowledged", silenced: ", silenced" }[one.state]];
  const page = one.runbook && URL.canParse(one.runbook) ? `/runbooks${new URL(one.runbook).hash}` : null;
  return el("li", { class: tone },
    el("div", { class: "words" }, pill(tone, said.filter(Boolean).join("")), " ", el("b", {}, name(one.cause)),
      el("p", { class: "note" }, name(one.key), " since ", ago(one.since), one.limit ? `, limit ${one.limit}` : null,
        one.acknowledged_by ? [", acknowledged by ", name(one.acknowledged_by)] : null,
        one.silenced_until ? `, silenced until ${moment(one.silenced_until)}` : null,
        page ? [" · ", link(page, "What to do")] : null),
      one.advice ? el("p", { class: "note" }, one.advice) : null,
      one.preceded_by ? el("p", { class: "note" }, `Before it began: ${one.preceded_by}`) : null),
    el("div", { class: "buttons" },
      one.acknowledged_by === null && one.state !== "pending" ? button("Acknowledge", one, () => act.acknowledge(one)) : null,
      one.silenced_until === null ? button("Silence", one, () => act.silence(one), "quiet") : null),
    el("p", { class: "problem", role: "alert", hidden: true }));
}

function button(words, one, press, kind = "") {
  const made = el("button", { type: "button", class: kind, "data-keep": `${words} ${one.id}`, "aria-label": `${words}: ${one.metric ?? one.reason}` }, words);
  made.addEventListener("click", press);
  return made;
}

const silence = (one, act) => el("li", {},
  el("div", { class: "words" }, el("b", {}, one.metric ? name(one.metric) : "Everything"), one.database ? null : " of every database", `, until ${moment(one.ends_at)}`,
    el("p", { class: "note" }, name(one.reason), " (", name(one.created_by), ")")),
  el("div", { class: "buttons" }, button("End silence", one, () => act.end(one), "quiet")),
  el("p", { class: "problem", role: "alert", hidden: true }));

const tree = (locks) => el("ul", { class: "tree" }, locks.map((one) => el("li", {},
  el("b", { class: "num" }, one.pid === 0 ? "A prepared transaction" : `Session ${one.pid}`),
  one.seconds === null ? muted(" holds others back") : [" waits ", duration(one.seconds), one.mode ? [" for ", el("code", {}, one.mode)] : null, one.relation ? [" on ", name(one.relation)] : null],
  one.waiting.length ? tree(one.waiting) : null)));

function statement({ query, queryid }) {
  if (query.length <= LONG_STATEMENT) return el("code", {}, query);
  return el("details", { "data-keep": `statement ${queryid}` }, el("summary", { "data-keep": `summary ${queryid}` }, el("code", {}, `${query.slice(0, LONG_STATEMENT)}…`)), el("pre", {}, el("code", {}, query)));
}

function horizon({ until, numbers }) {
  if (until === null) return numbers === null ? "–" : `${count(numbers)} numbers left`;
  const seconds = -secondsSince(until);
  if (seconds <= 0) return pill("failed", "past");
  return seconds < 7 * DAY_S ? pill("warned", duration(seconds)) : duration(seconds);
}

function backupState({ status, damage, error }) {
  if (damage) return [pill("failed", "Damaged"), el("span", { class: "note block" }, damage)];
  if (status === "failed") return [pill("failed", "Failed"), error ? el("span", { class: "note block" }, error) : null];
  return status === "running" ? pill("running", "Running") : status;
}

function drill(one) {
  const tones = { proven: "passed", "not proven": "failed", errored: "errored", running: "running" };
  return el("li", {}, pill(tones[one.status] ?? "none", one.status), " ", ago(one.started_at),
    one.rto_seconds === null ? null : `: back in ${duration(one.rto_seconds)}`,
    one.rpo_seconds === null ? null : `, at most ${duration(one.rpo_seconds)} of work lost`,
    one.errors.map((words) => el("span", { class: "note block" }, words)));
}

function outcome(checks) {
  const many = (status) => checks.filter((one) => one.status === status);
  const bad = [...many("failed"), ...many("errored")];
  return [
    ["failed", "errored", "accepted"].filter((status) => many(status).length).map((status) => [pill(status, `${many(status).length} ${status}`), " "]),
    bad.length === 0 ? pill("passed", `${plural(many("passed").length, "check")} passed`) : el("span", { class: "note block" }, bad.slice(0, 5).flatMap((one, place) => [place ? ", " : null, name(one.name)]), bad.length > 5 ? ` and ${bad.length - 5} more` : null),
  ];
}
