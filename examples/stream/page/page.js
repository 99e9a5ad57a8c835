// Asks through the page's own server, which knows the API key, and watches the gateway's stream with the URL it got.
// The URL carries a ticket for this one event, so that a browser needs no key.

const byId = (id) => document.getElementById(id);
const [form, text, send, drop, second] = ["ask", "text", "send", "drop", "second"].map(byId);
const [answer, status, problem, facts] = ["answer", "status", "problem", "facts"].map(byId);

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
// So many refusals in a row are no passing trouble.
const REFUSALS = 3;
// That of server.py, which refuses more.
const MAX_BODY_BYTES = 100_000;

let watch = null;

/** One event that is being watched; survives any number of connections. */
class Watch {
  constructor(url, askedAt) {
    this.url = url;
    this.askedAt = askedAt;
    this.lastId = "";
    this.counts = { pieces: 0, reconnects: 0, restarts: 0 };
    this.waitMs = FIRST_WAIT_MS;
    this.refusals = 0;
    this.source = null;
    this.timer = 0;
  }

  open() {
    const url = new URL(this.url);
    if (this.lastId) url.searchParams.set("last_event_id", this.lastId);
    this.source = new EventSource(url);
    this.source.onopen = () => {
      this.waitMs = FIRST_WAIT_MS;
      if (this.refusals >= REFUSALS) problem.hidden = true;
      this.refusals = 0;
      say(this.counts.pieces ? "Writing ..." : "Accepted. Waiting for the model ...");
    };
    for (const kind of ["delta", "restart", "result"]) {
      this.source.addEventListener(kind, (event) => this[kind](event, JSON.parse(event.data)));
    }
    // Two things have this name: the browser's "connection lost", which has no data, and the server's last word.
    this.source.addEventListener("error", (event) => (event.data ? this.error(event, JSON.parse(event.data)) : this.lost()));
  }

  delta(event, frame) {
    this.lastId = event.lastEventId;
    if (frame.text) {
      if (!this.counts.pieces && this.askedAt) byId("first").textContent = `${Math.round(performance.now() - this.askedAt)} ms`;
      this.counts.pieces += 1;
      answer.append(frame.text);
    }
    say(frame.ending === "retried" ? "The model failed. Trying again ..." : "Writing ...");
    this.show();
  }

  restart(event) {
    this.lastId = event.lastEventId;
    this.counts.restarts += 1;
    answer.replaceChildren();
    say("Begun anew. Writing ...");
    this.show();
  }

  result(event, frame) {
    const output = frame.result.output;
    // The result is the answer; the pieces were its preview.
    answer.textContent = typeof output === "string" ? output : JSON.stringify(output, null, 2);
    this.end("Done.");
  }

  error(event, frame) {
    this.end("No answer.");
    fail(`${REASONS[frame.reason] ?? "The event ended without an answer."} (${frame.reason})`);
  }

  /** The browser tries again by itself, except where the server refused; then it is up to us. */
  lost() {
    this.counts.reconnects += 1;
    this.show();
    say("Connection lost. Reconnecting ...");
    if (this.source.readyState !== EventSource.CLOSED) return;
    this.refusals += 1;
    if (this.refusals >= REFUSALS) {
      send.disabled = false;
      fail("The gateway refuses the link of this answer. It may be too old, or not whole. Still trying.");
    }
    this.timer = setTimeout(() => this.open(), this.waitMs);
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
  }

  drop() {
    this.source.close();
    this.refusals = -1;
    this.lost();
  }

  end(words) {
    this.close();
    answer.setAttribute("aria-busy", "false");
    drop.hidden = true;
    send.disabled = false;
    say(words);
    this.show();
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
  }

  show() {
    facts.hidden = false;
    for (const [name, count] of Object.entries(this.counts)) byId(name).textContent = count;
  }
}

const REASONS = {
  deadline_exceeded: "The answer did not come in time.",
  output_invalid: "The model's answer had the wrong form.",
  output_truncated: "The model's answer was cut off at its longest length.",
  content_blocked: "The model refused to answer.",
  context_too_long: "The text is too long for the model.",
  attempts_exhausted: "The model could not be reached, in several tries.",
  no_route: "Nobody is set up to answer this.",
  cancelled: "The question was taken back.",
  unknown_result: "This answer is not kept any more.",
};

function say(words) {
  status.textContent = words;
}

function fail(words) {
  problem.textContent = words;
  problem.hidden = false;
}

function begin(url, askedAt) {
  watch?.close();
  watch = new Watch(url, askedAt);
  problem.hidden = true;
  byId("first").textContent = "-";
  watch.show();
  answer.replaceChildren();
  answer.setAttribute("aria-busy", "true");
  drop.hidden = false;
  second.href = `#${encodeURIComponent(url)}`;
  second.hidden = false;
  // Who reloads the page goes on with the answer that it shows.
  history.replaceState(null, "", second.href);
  watch.open();
}

async function ask(event) {
  event.preventDefault();
  problem.hidden = true;
  // Said, not cut off: of half a text the answer would be about something else.
  const length = new TextEncoder().encode(text.value).length;
  if (length > MAX_BODY_BYTES) {
    fail(`The text is too long: ${length.toLocaleString("en")} bytes of at most ${MAX_BODY_BYTES.toLocaleString("en")}.`);
    return;
  }
  send.disabled = true;
  say("Sending ...");
  const askedAt = performance.now();
  try {
    const response = await fetch("ask", { method: "POST", body: text.value });
    const said = await response.json();
    if (!response.ok) throw new Error(said.message);
    begin(said.stream_url, askedAt);
  } catch (error) {
    send.disabled = false;
    say("Not sent.");
    fail(`The text could not be sent: ${error.message}`);
  }
}

/** Watches the answer that the page's own address names. */
function follow() {
  if (location.hash.length <= 1) return;
  try {
    const url = new URL(decodeURIComponent(location.hash.slice(1)));
    say("Watching ...");
    begin(url.href, 0);
  } catch {
    fail("The address of this page names no answer: its end is missing or changed.");
  }
}

form.addEventListener("submit", ask);
drop.addEventListener("click", () => watch.drop());
addEventListener("hashchange", follow);
follow();
