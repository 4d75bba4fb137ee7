/**
 * Watches databases over /ws: what is committed in live tables, and what changes in the platform's records.
 *
 *     import { watch } from "/static/live.js";
 *     const watching = watch(["flights"], {
 *       changes: (message) => ...,   // {database, token, tables: [{table, rows, gone, many}]}
 *       reset: (message) => ...,     // {database}: more was missed than is kept, load everything again
 *       state: (message) => ...,     // {database, what: ["alerts", "runs", ...]}: ask the API again
 *       progress: (message) => ...,  // {database, work: [{what, on, phase, done, total}]}
 *       ledger: (message) => ...,    // {trouble}: why no state or progress is told at this moment; null: it is again
 *       connection: (state) => ...,  // {is: "open" | "waiting" | "lost", attempt, seconds}
 *     });
 *     watching.close();
 *
 * A lost connection is tried again after 0.5, 1, 2 ... at most 30 seconds, each somewhat shorter by chance, so that not
 * all pages come at once. After 10 failed tries it is "lost" and tries no more, until `again()`. It comes back with the
 * last token of each database, and so nothing is missed in between.
 *
 * A number that JavaScript cannot hold (a bigint beyond 2^53, a numeric of twenty digits) comes as text; keys in `gone`
 * are always text. So keep rows in a Map by String(row.id): a key may be any word, and "1" and 1 are one row.
 */

export const TRIES = 10;
const KINDS = ["advice", "alerts", "backups", "metrics", "quality", "runs"];
const FIRST_S = 0.5;
const MOST_S = 30;
/** So many heartbeats may be missed. */
const PATIENCE = 2.5;

export function watch(databases, handlers, options = {}) {
  const url = options.url ?? `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
  // Not an object: a name may be any word, such as __proto__.
  const since = new Map(Object.entries(options.since ?? {}));
  let socket = null;
  let failed = 0;
  let timer = null;
  let silence = null;
  let heartbeatS = 15;
  let closed = false;
  let begun = false;

  const tell = (what, message) => handlers[what]?.(message);

  function listenForSilence() {
    clearTimeout(silence);
    silence = setTimeout(() => socket?.close(), heartbeatS * PATIENCE * 1000);
  }

  function received(text) {
    const message = JSON.parse(text);
    if (message.type === "hello") {
      heartbeatS = message.heartbeat_s;
      failed = 0;
      for (const [name, database] of Object.entries(message.databases)) {
        if (database.token !== null && !since.has(name)) since.set(name, database.token);
      }
      tell("connection", { is: "open", attempt: 0 });
      // Of the platform's records there is no token: after a loss any of them may be newer.
      if (begun) for (const database of databases) tell("state", { type: "state", database, what: KINDS });
      begun = true;
    }
    tell(message.type, message);
    // Known only once it was handled.
    if (message.token) since.set(message.database, message.token);
    listenForSilence();
  }

  function ended() {
    clearTimeout(silence);
    socket = null;
    if (closed) return;
    failed += 1;
    if (failed > TRIES) {
      tell("connection", { is: "lost", attempt: failed });
      return;
    }
    const seconds = Math.min(FIRST_S * 2 ** (failed - 1), MOST_S) * (0.5 + Math.random() / 2);
    tell("connection", { is: "waiting", attempt: failed, seconds });
    timer = setTimeout(open, seconds * 1000 * (options.scale ?? 1));
  }

  function open() {
    socket = new WebSocket(url);
    socket.onopen = () => {
      socket.send(JSON.stringify({ type: "subscribe", databases, since: Object.fromEntries(since) }));
      listenForSilence();
    };
    socket.onmessage = (event) => received(event.data);
    socket.onclose = ended;
  }

  open();
  return {
    close() {
      closed = true;
      clearTimeout(timer);
      clearTimeout(silence);
      socket?.close();
    },
    /** Try again now, with ten new tries. */
    again() {
      if (closed || socket) return;
      clearTimeout(timer);
      failed = 0;
      open();
    },
  };
}
