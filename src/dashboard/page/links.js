// The links side by side: state, rates, round trip, jitter, loss, signal, path, quota.

import { MARKS, bytes, el, rate, say, span } from "./words.js";

const SPARKS = 60;

/** Cards by link; they are made once and then only told what changed. */
export class Links {
  constructor(section) {
    this.section = section;
    this.cards = new Map();
  }

  /** Takes in the links of a status. */
  show(links, lineOf) {
    const names = links.map((link) => link.interface);
    for (const [name, card] of this.cards) {
      if (!names.includes(name)) {
        card.root.remove();
        this.cards.delete(name);
      }
    }
    for (const link of links) {
      let card = this.cards.get(link.interface);
      if (!card) {
        card = this.make(link.interface, lineOf(link.interface));
        this.cards.set(link.interface, card);
        this.section.append(card.root);
      }
      this.tell(card, link);
    }
  }

  make(name, line) {
    const fact = (title) => el("dd", { "data-fact": title });
    const facts = Object.fromEntries(
      ["round trip", "jitter", "loss", "signal", "path", "quota", "care-of address", "why"].map((title) => [title, fact(title)]),
    );
    const state = el("p", { class: "state" });
    const since = el("span", { class: "quiet" });
    const down = el("strong"), up = el("strong");
    const spark = el("svg:svg", { class: `spark line-${line}`, viewBox: `0 0 ${SPARKS - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
      el("svg:path", { class: "area" }), el("svg:path", { class: "edge" }));
    const meter = el("progress", { max: 1, value: 0, hidden: true, "aria-label": `quota of ${name}` });
    const list = Object.entries(facts).flatMap(([title, value]) => [el("dt", { "data-of": title }, title), value]);
    const root = el("article", { class: `card line-${line}`, "data-link": name, tabindex: 0, "aria-label": `link ${name}` },
      el("div", { class: "head" }, el("h3", {}, name), state),
      el("p", { class: "rates" }, el("span", {}, "↓ ", down), el("span", {}, "↑ ", up)),
      spark, el("dl", {}, ...list), meter, since);
    return { root, facts, state, since, down, up, spark, meter, rates: [] };
  }

  tell(card, link) {
    card.root.dataset.state = link.state;
    say(card.state, `${MARKS[link.state] ?? "?"} ${link.state}`);
    const known = (value, text, unknown) => (value === null || value === undefined ? unknown : text(value));
    const within = known(link.rtt_p95_ms, (p95) => `, p95 ${ms(p95)}`, "");
    say(card.facts["round trip"], known(link.rtt_ms, (rtt) => ms(rtt) + within, "not measured yet"));
    say(card.facts.jitter, known(link.jitter_ms, ms, "not measured"));
    say(card.facts.loss, known(link.loss_ratio, (ratio) => `${(ratio * 100).toFixed(1)} %`, "not measured"));
    const radio = [known(link.signal_dbm, (dbm) => `${dbm} dBm`, ""), link.radio?.technology, link.radio?.registration].filter(Boolean);
    say(card.facts.signal, radio.join(", ") || (link.radio ? "not known" : "nobody tells"));
    const narrow = known(link.path_mtu, (path) => `${path.octets} octets, the interface ${link.mtu}`, "");
    say(card.facts.path, narrow || known(link.mtu, (mtu) => `${mtu} octets`, "not known"));
    say(card.facts["care-of address"], link.home_link ? "at home" : known(link.care_of, String, "none"));
    const recovers = known(link.recovers_in_seconds, (left) => `, used again in ${span(left)}`, "");
    say(card.facts.why, link.reason ? link.reason + recovers : "nothing speaks against it");
    const quota = link.quota;
    const metered = link.metered ? "metered, no limit" : "not metered";
    say(card.facts.quota, quota ? `${bytes(quota.used_octets)} of ${bytes(quota.limit_octets)}` : metered);
    card.meter.hidden = !quota;
    if (quota) {
      card.meter.value = quota.used_octets / quota.limit_octets;
      card.meter.dataset.level = quota.level;
    }
    const priority = `priority ${link.priority}`;
    say(card.since, known(link.since_seconds, (since) => `${link.state} for ${span(since)}, ${priority}`, priority));
  }

  /** Takes over the rates of the last minute, by link: a page that opens has a past. */
  past(of) {
    for (const [name, card] of this.cards) card.rates = of(name).slice(-SPARKS);
  }

  /** Takes in the rates of a moment, by link. */
  rates(of) {
    for (const [name, card] of this.cards) {
      const now = of(name);
      if (!now) continue;
      say(card.down, rate(now.down));
      say(card.up, rate(now.up));
      card.rates.push(now.up + now.down);
      if (card.rates.length > SPARKS) card.rates.shift();
      draw(card.spark, card.rates);
    }
  }
}

/** Milliseconds as people read them, with a digit more where one matters. */
function ms(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function draw(spark, rates) {
  const most = Math.max(1, ...rates);
  const points = rates.map((value, place) => `${SPARKS - rates.length + place},${(19 - (value / most) * 17).toFixed(1)}`);
  const start = SPARKS - rates.length;
  spark.querySelector(".edge").setAttribute("d", `M${points.join("L")}`);
  spark.querySelector(".area").setAttribute("d", `M${start},20L${points.join("L")}L${SPARKS - 1},20Z`);
}
