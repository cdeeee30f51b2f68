// The page: it asks once for what is kept, then it is told what happens.

import { Chart } from "./chart.js";
import { Flows, ask } from "./flows.js";
import { Links } from "./links.js";
import { Matrix } from "./matrix.js";
import { el, fill, say, span } from "./words.js";

const find = (selector) => document.querySelector(selector);

const state = { status: null, rules: [], policy: null, live: null, heard: 0 };
const lines = [];
/** The number of a link's colour, the same everywhere and for as long as the page is open. */
function lineOf(name) {
  if (!lines.includes(name)) lines.push(name);
  return lines.indexOf(name) % 8;
}

const links = new Links(find("#links"));
const matrix = new Matrix(find("#matrix-table"), find("#matrix-detail"));
const chart = new Chart(find("#chart"), find("#chart-detail"), find("#events"));
let flows = null;

function showStatus(status) {
  state.status = status;
  const agent = status.role === "home-agent" || status.role === "correspondent";
  document.body.dataset.role = agent ? "agent" : "mobile";
  document.body.dataset.state = "live";
  say(find("#what"), `${status.role} · policy ${status.policy}`);
  say(find("#since"), ` · ${status.daemon_version}, running for ${span(status.uptime_seconds)}`);
  const well = status.health.state === "ok";
  const pill = find("#health .pill");
  pill.className = `pill ${well ? "good" : "bad"}`;
  say(pill, well ? "● everything works as configured" : `✕ degraded: ${status.health.reasons.length}`);
  const reasons = status.health.reasons.map((reason) => why(reason));
  tell("#reasons", reasons);
  const homes = status.homes.map((home) => homeLine(home)), overrides = status.overrides.map((it) => overrideLine(it));
  tell("#homes", homes);
  tell("#overrides", overrides);
  if (!agent) {
    links.show(status.links, lineOf);
    if (flows) flows.links = status.links.filter((link) => link.bid !== null).map((link) => link.interface);
  }
}

/** Lines of a list, made anew only if they are others. */
function tell(list, texts) {
  const node = find(list);
  if (node.textContent !== texts.join("")) fill(node, ...texts.map((text) => el("li", {}, text)));
}

/** A home network and its one tunnel. */
function homeLine(home) {
  const carried = { daemon: "the daemon", bpf: "BPF in the kernel", kmod: "kmod-mtun in the kernel" }[home.tunnel.backend];
  const whose = home.home_address ? `${home.home_address} at agent ${home.agent}` : `${home.served} served by ${home.agent}`;
  return `home ${home.name}: ${whose} · ${home.tunnel.name}, MTU ${home.tunnel.mtu}, flows carried by ${carried} · generation ${home.generation}`;
}

/** What somebody put before the rules. */
function overrideLine(it) {
  return `override ${it.id}: ${it.filter} by ${it.via}, ${span(it.remaining_seconds)} more${it.reason ? ` (${it.reason})` : ""}; mtun steer undo ${it.id} ends it`;
}

/** A reason of the health line in words. */
function why(reason) {
  const binding = (bid) => (bid === null ? "the binding without BID" : `BID ${bid}`);
  const because = (text) => (text ? `: ${text}` : "");
  switch (reason.code) {
    case "no-usable-binding": return `home ${reason.home} has no usable binding`;
    case "binding-refused": return `the agent of home ${reason.home} refused ${binding(reason.bid)}: ${reason.status}`;
    case "binding-pending": return `${binding(reason.bid)} of home ${reason.home} waits for its acknowledgement`;
    case "link-unusable": return `link ${reason.link} cannot be used${because(reason.reason)}`;
    case "link-degraded": return `link ${reason.link} is used though it is not good${because(reason.reason)}`;
    case "flow-bindings-refused": return `the agent of home ${reason.home} refused ${reason.count} flow bindings: ${reason.status}`;
    case "flow-bindings-too-many": return `the agent of home ${reason.home} cannot be told all rules: ${reason.rules.join(", ")}`;
    case "store-failing": return `bindings cannot be kept, and new ones are refused: ${reason.message}`;
    case "policy-refused": return `the last policy was refused, the one before is in force: ${reason.message}`;
    default: return Object.values(reason).join(" ");
  }
}

function showLive(live) {
  state.live = live;
  live.lines.forEach(lineOf);
  const place = (name) => live.lines.indexOf(name);
  links.rates((name) => (place(name) < 0 ? null : { up: live.sample.up[place(name)], down: live.sample.down[place(name)] }));
  chart.add(live);
  const known = state.status?.links ?? [];
  if (document.body.dataset.role === "mobile") {
    const named = known.filter((link) => link.bid !== null);
    matrix.shapeOf(state.rules, named, lineOf, live.matrix);
    if (live.moves.length) matrix.fly(live.moves);
    matrix.show(live, new Map(named.map((link) => [link.interface, link.state])));
  }
}

async function showMobiles() {
  try {
    const answer = await ask("/api/mobiles", { search: find("#mobiles-search").value.trim(), limit: 200 });
    say(find("#mobiles-count"), `${answer.matched} of ${answer.known} mobiles, ${answer.registered} registered, ${answer.bindings} bindings`);
    const row = (mobile) => el("tr", { "data-mobile": mobile.home_address },
      el("th", { scope: "row" }, mobile.name ?? mobile.home_address, mobile.name ? el("small", {}, mobile.home_address) : null),
      el("td", { "data-head": "kind" }, mobile.router ? "router" : mobile.bindings.length ? "node" : "not known yet"),
      el("td", { "data-head": "prefixes" }, mobile.prefixes.join(" ") || "none"),
      el("td", { "data-head": "bindings", class: mobile.bindings.length ? "good" : "bad" }, ...(mobile.bindings.length
        ? mobile.bindings.map((one) => el("div", {}, `${one.bid === null ? "no BID" : `BID ${one.bid}`} ${one.care_of}`, el("small", {}, ` priority ${one.priority}, for ${span(one.expires_seconds ?? 0)}`)))
        : ["not registered"])),
      el("td", { "data-head": "last seen" }, mobile.last_seen_seconds === null ? "not since the start" : `${span(mobile.last_seen_seconds)} ago`));
    const heads = ["Mobile", "Kind", "Prefixes", "Bindings", "Last seen"];
    fill(find("#mobiles-table"),
      el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, ...(answer.mobiles.length ? answer.mobiles.map(row) : [el("tr", {}, el("td", { colspan: heads.length, class: "quiet" }, "No mobile fits."))])));
  } catch (error) {
    say(find("#mobiles-count"), error.message);
  }
}

async function readPolicy() {
  state.rules = (await ask("/api/policy")).rules;
}

async function readHistory() {
  state.history = await ask("/api/history");
  chart.open(state.history);
}

function listen() {
  const source = new EventSource("/api/events");
  source.addEventListener("status", (told) => {
    const reply = JSON.parse(told.data);
    if (reply.ok) showStatus(reply.result);
    alive();
  });
  source.addEventListener("live", (told) => showLive(JSON.parse(told.data)));
  source.addEventListener("event", (told) => {
    const it = JSON.parse(told.data);
    // A refresh is what happens when nothing happens.
    if (it.event === "bound" && !it.first) return;
    chart.note(it);
    if (it.event.startsWith("policy-")) readPolicy();
    if (it.event === "mobile-changed") later();
  });
  source.addEventListener("missed", () => readHistory());
  source.addEventListener("open", alive);
  source.addEventListener("error", () => {
    document.body.dataset.state = "lost";
    say(find("#live"), "✕ the daemon does not answer; trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
}

function alive() {
  state.heard = Date.now();
  document.body.dataset.state = "live";
  say(find("#live"), "● live");
}

let waits = null;
/** Shows the mobiles anew, soon: of a thousand changes the last counts. */
function later() {
  if (waits === null) waits = setTimeout(() => { waits = null; showMobiles(); }, 500);
}

function theme(next) {
  const light = matchMedia("(prefers-color-scheme: light)").matches;
  const shown = document.documentElement.dataset.theme ?? (light ? "light" : "dark");
  const wanted = next ?? (shown === "light" ? "dark" : "light");
  document.documentElement.dataset.theme = wanted;
  try { localStorage.setItem("theme", wanted); } catch { /* A browser that keeps nothing. */ }
  chart.draw();
}

/** How far back the chart reaches, in minutes, by key. */
const SPANS = { 1: 5, 2: 60, 3: 1440 };

function keys(pressed) {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || find("dialog[open]")) return;
  if (pressed.target.closest("input, select, textarea")) {
    if (pressed.key === "Escape") pressed.target.blur();
    return;
  }
  if (pressed.key === "/") {
    pressed.preventDefault();
    find(document.body.dataset.role === "agent" ? "#mobiles-search" : "#flows-filter").focus();
  } else if (pressed.key === "t") theme();
  else if (pressed.key in SPANS) spanOf(SPANS[pressed.key]);
}

function spanOf(minutes) {
  chart.back(minutes);
  for (const button of document.querySelectorAll("[data-span]")) button.setAttribute("aria-pressed", String(Number(button.dataset.span) === minutes));
}

async function start() {
  try {
    const kept = localStorage.getItem("theme");
    if (kept) theme(kept);
  } catch { /* A browser that keeps nothing. */ }
  find("#theme").addEventListener("click", () => theme());
  document.addEventListener("keydown", keys);
  for (const button of document.querySelectorAll("[data-span]")) button.addEventListener("click", () => spanOf(Number(button.dataset.span)));
  spanOf(5);
  find("#mobiles-form").addEventListener("submit", (sent) => { sent.preventDefault(); showMobiles(); });
  find("#mobiles-search").addEventListener("input", later);
  const [about] = await Promise.all([ask("/api/about"), readPolicy(), readHistory()]);
  showStatus(await ask("/api/status"));
  flows = new Flows(document, about.may_change, lineOf);
  showStatus(state.status);
  const { fine, lines: known } = state.history;
  links.past((name) => fine.map((it) => (it.up[known.indexOf(name)] ?? 0) + (it.down[known.indexOf(name)] ?? 0)));
  listen();
  flows.refresh();
  if (document.body.dataset.role === "agent") showMobiles();
  setInterval(() => {
    if (document.hidden) return;
    flows.refresh();
    if (document.body.dataset.role === "agent") showMobiles();
  }, 3000);
}

start().catch((error) => {
  document.body.dataset.state = "lost";
  say(find("#live"), `✕ ${error.message}`);
  setTimeout(() => location.reload(), 5000);
});
