// Top talkers, a search among the flows, and why a flow goes where it goes.

import { bytes, el, endpoint, fill, protocol, rate, say, span, way } from "./words.js";

/** Asks for a document; the error of the daemon as an exception. */
export async function ask(path, fields = {}) {
  const query = new URLSearchParams(fields).toString();
  const reply = await fetch(query ? `${path}?${query}` : path, { cache: "no-store" });
  return read(reply);
}

async function read(reply) {
  const text = await reply.text();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Error(text.trim() || `the daemon answered ${reply.status}`);
  }
  if (document.ok === false) {
    throw new Error(document.error.help ? `${document.error.message}; ${document.error.help}` : document.error.message);
  }
  return document.result ?? document;
}

/** The flow as `mtun explain` is asked for it. */
export function question(key) {
  const words = [protocol(key.protocol).replace("protocol ", ""), key.source, "->", key.destination];
  if (key.source_port !== null) words.push("sport", key.source_port);
  if (key.destination_port !== null) words.push("dport", key.destination_port);
  if (key.dscp) words.push("dscp", key.dscp);
  if (key.ingress !== "other") words.push("in", key.ingress);
  return words.join(" ");
}

/** Heads above numbers. */
const NUMBERS = ["Now", "Sent", "Received"];

export class Flows {
  constructor(root, mayChange, lineOf) {
    this.mayChange = mayChange;
    this.lineOf = (path) => (path?.link ? `by line-${lineOf(path.link)}` : null);
    this.part = Object.fromEntries(["filter", "count", "error", "table"].map((name) => [name, root.querySelector(`#flows-${name}`)]));
    this.before = new Map();
    this.links = [];
    this.dialog = document.querySelector("#explain");
    this.body = document.querySelector("#explain-body");
    this.form = document.querySelector("#steer");
    root.querySelector("#flows-form").addEventListener("submit", (sent) => { sent.preventDefault(); this.refresh(); });
    this.part.filter.addEventListener("input", () => { clearTimeout(this.waits); this.waits = setTimeout(() => this.refresh(), 300); });
    root.querySelector("#explain-form").addEventListener("submit", (sent) => {
      sent.preventDefault();
      this.explain(root.querySelector("#explain-flow").value.trim());
    });
    this.form.addEventListener("submit", (sent) => { sent.preventDefault(); this.steer(); });
  }

  /** Asks for the flows anew. */
  async refresh() {
    if (this.asking) return;
    this.asking = true;
    try {
      const answer = await ask("/api/flows", { filter: this.part.filter.value.trim(), limit: 50 });
      say(this.part.error, "");
      this.show(answer);
    } catch (error) {
      say(this.part.error, error.message);
    } finally {
      this.asking = false;
    }
  }

  show(answer) {
    const now = performance.now(), seen = new Map();
    const rows = answer.flows.map((flow) => {
      const name = question(flow.key), octets = flow.bytes_out + flow.bytes_in;
      const known = this.before.get(name);
      const speed = known ? Math.max(0, octets - known.octets) / ((now - known.at) / 1000) : null;
      seen.set(name, { octets, at: now });
      return { flow, name, speed };
    });
    this.before = seen;
    rows.sort((one, other) => (other.speed ?? 0) - (one.speed ?? 0) || other.flow.bytes_out + other.flow.bytes_in - one.flow.bytes_out - one.flow.bytes_in);
    say(this.part.count, answer.matched === 0 ? "no flows" : `${rows.length} of ${answer.matched}`);
    const focused = document.activeElement?.dataset?.flow;
    const cells = ({ flow, name, speed }) => el("tr", {},
      el("td", {}, el("button", { type: "button", class: "flow", "data-flow": name, title: "Which way, and why", onclick: () => this.explain(name) },
        `${protocol(flow.key.protocol)} ${endpoint(flow.key.source, flow.key.source_port)} → ${endpoint(flow.key.destination, flow.key.destination_port)}`)),
      el("td", { "data-head": "rule" }, flow.rule ?? "no rule"),
      el("td", { "data-head": "out by", class: this.lineOf(flow.outbound) }, way(flow.outbound, "not yet")),
      el("td", { "data-head": "in by", class: this.lineOf(flow.inbound) }, way(flow.inbound, "not yet")),
      el("td", { "data-head": "now", class: "number" }, speed === null ? "counting" : rate(speed)),
      el("td", { "data-head": "sent", class: "number" }, bytes(flow.bytes_out)),
      el("td", { "data-head": "received", class: "number" }, bytes(flow.bytes_in)),
      el("td", { "data-head": "last move" }, flow.moves.length ? `${span(flow.moves[0].ago_seconds)} ago: ${flow.moves[0].reason}` : "never moved"));
    const heads = ["Flow", "Rule", "Out by", "In by", "Now", "Sent", "Received", "Last move"];
    fill(this.part.table,
      el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col", class: NUMBERS.includes(head) ? "number" : null }, head)))),
      el("tbody", {}, ...(rows.length ? rows.map(cells) : [el("tr", {}, el("td", { colspan: heads.length, class: "quiet" }, "No flow is remembered that fits."))])));
    if (focused) [...this.part.table.querySelectorAll("[data-flow]")].find((node) => node.dataset.flow === focused)?.focus();
  }

  /** Shows why a flow goes where it goes. */
  async explain(text) {
    if (!text) return;
    const [flow, given = ""] = text.split(/\s+given\s+/u);
    try {
      this.reason(await ask("/api/explain", { flow, given }), flow);
    } catch (error) {
      fill(this.body, el("p", { class: "error" }, error.message));
      this.form.hidden = true;
    }
    if (!this.dialog.open) this.dialog.showModal();
  }

  reason(it, flow) {
    const list = (title, rows) => (rows.length ? [el("h3", {}, title), el("ul", {}, ...rows)] : []);
    const rule = it.rule ? `${it.rule.name}${it.rule.file ? ` (${it.rule.file.split("/").at(-1)}:${it.rule.line})` : it.rule.name.startsWith("steer-") ? " (by mtun steer)" : ""}` : "no rule";
    fill(this.body,
      el("p", { class: "question" }, flow),
      el("p", { class: "verdict" }, verdict(it.verdict)),
      el("dl", {}, el("dt", {}, "rule"), el("dd", {}, rule), el("dt", {}, "home"), el("dd", {}, it.home ?? "none of ours"),
        ...it.unmet.flatMap((why) => [el("dt", {}, "when"), el("dd", {}, `not met: ${why}`)])),
      ...list("What the rule names", it.candidates.map((one) => el("li", { class: one.verdict === "chosen" ? "good" : "plain" }, `${one.link ?? `BID ${one.bid}`}: ${one.why}`))),
      ...list("Earlier rules", it.passed.map((one) => el("li", {}, `${one.rule.name}: ${one.why}`))),
      ...list("Also", it.notes.map((note) => el("li", {}, note))),
      ...list("Its last moves", it.moves.map((one) => el("li", {}, `${span(one.ago_seconds)} ago from ${way(one.from, "nowhere")} to ${way(one.to, "nowhere")}: ${one.reason}`))));
    this.flow = it.flow;
    this.form.hidden = !this.mayChange || !it.home;
    fill(document.querySelector("#steer-link"), ...this.links.map((name) => el("option", {}, name)));
  }

  /** Sends the flow that was explained by a link, with the token. */
  async steer() {
    const key = this.flow, result = document.querySelector("#steer-result");
    const words = [`proto ${protocol(key.protocol).replace("protocol ", "")}`, `src ${key.source}`, `dst ${key.destination}`];
    if (key.destination_port !== null) words.push(`dport ${key.destination_port}`);
    const wanted = { filter: words.join(" and "), via: document.querySelector("#steer-link").value, seconds: Number(document.querySelector("#steer-time").value), reason: "dashboard" };
    try {
      const reply = await fetch("/api/steer", {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${document.querySelector("#steer-token").value}` },
        body: JSON.stringify(wanted),
      });
      const answer = await read(reply);
      say(result, `override ${answer.override.id} stands; mtun steer undo ${answer.override.id} ends it`);
    } catch (error) {
      say(result, error.message);
    }
  }
}

function verdict(it) {
  const otherwise = it.otherwise ? ", as the rule's way out" : "";
  switch (it.outcome) {
    case "forward": return `through the tunnel by ${it.link ?? (it.bid === null ? "the only binding" : `BID ${it.bid}`)}${it.care_of ? `, from ${it.care_of}` : ""}${otherwise}`;
    case "copies": return `a copy by each of ${it.links.join(", ")}${otherwise}`;
    case "breakout": return `outside the tunnel, by ${it.link}${it.translate ? ", with its address" : ""}${otherwise}`;
    case "block": return "refused by the rule";
    case "no-usable-binding": return "refused: no usable binding, and it never leaves outside the tunnel";
    default: return "not of our home networks";
  }
}
