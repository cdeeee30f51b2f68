// The rule × link matrix: which rule sends how much by which link at this moment.

import { MARKS, bytes, el, fill, rate, say } from "./words.js";

const LARGEST = 24, SMALLEST = 4;
/** How much of a new rate is taken over at once: one second's burst is no change of the picture. */
const SMOOTH = 0.55;

export class Matrix {
  constructor(table, detail) {
    this.table = table;
    this.detail = detail;
    this.cells = new Map();
    this.shape = "";
    this.last = null;
    table.addEventListener("keydown", (pressed) => this.walk(pressed));
    table.addEventListener("focusin", (moved) => this.describe(moved.target));
    table.addEventListener("pointerover", (moved) => this.describe(moved.target));
  }

  /** Makes the rows and columns anew, if they are others. */
  shapeOf(rules, links, lineOf, matrix) {
    const rows = rules.map((rule) => ({ home: rule.home, rule: rule.name, says: rule.says, links: rule.links, otherwise: rule.otherwise }));
    // Overrides and packets without a rule have a row as soon as there are any.
    for (const cell of matrix) {
      if (cell.up_bytes + cell.down_bytes > 0 && !rows.some((row) => row.home === cell.home && row.rule === cell.rule)) {
        const override = cell.rule === "steer";
        const row = { home: cell.home, rule: cell.rule, says: override ? "by hand, before all rules" : "in no rule of the policy", links: [], otherwise: [], extra: true };
        if (override) rows.unshift(row);
        else rows.push(row);
      }
    }
    const columns = links.map((link) => link.interface);
    for (const cell of matrix) if (!columns.includes(cell.link)) columns.push(cell.link);
    const shape = JSON.stringify([rows, columns]);
    if (shape === this.shape) return;
    this.shape = shape;
    // What a cell counted goes on in the new one.
    this.before = this.cells;
    this.cells = new Map();
    const homes = new Set(rows.map((row) => row.home)).size;
    const heads = columns.map((name) => el("th", { scope: "col", class: `line-${lineOf(name)}`, "data-column": name },
      el("span", { class: "mark" }), name === "none" ? "by no link" : name, el("small", {})));
    const body = rows.map((row, y) => el("tr", { "data-rule": row.rule, "data-extra": row.extra ? `${row.home} ${row.rule}` : null },
      el("th", { scope: "row", title: row.says }, row.rule, el("small", {}, homes > 1 ? `${row.home}: ${row.says}` : row.says)),
      ...columns.map((link, x) => this.cell(row, link, x, y, lineOf(link))),
      el("td", { class: "sum", "data-sum": `${row.home} ${row.rule}` })));
    const sums = columns.map((name) => el("td", { class: "sum", "data-total": name }));
    fill(this.table,
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Rule"), ...heads, el("th", { scope: "col" }, "all links"))),
      el("tbody", {}, ...body),
      el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "all rules"), ...sums, el("td", { class: "sum", "data-total": "" }))));
  }

  cell(row, link, x, y, line) {
    const place = row.links.indexOf(link);
    const rank = place >= 0 ? String(place + 1) : row.otherwise.includes(link) ? "else" : "";
    const disc = el("span", { class: "disc" }), text = el("span", { class: "now" });
    const node = el("td", {
      class: `cell line-${line}`, tabindex: x === 0 && y === 0 ? 0 : -1,
      "data-home": row.home, "data-rule": row.rule, "data-link": link, "data-up": 0, "data-down": 0, "data-x": x, "data-y": y,
    }, rank ? el("span", { class: place >= 0 ? "ring" : "ring else" }, rank) : null, disc, text);
    const key = `${row.home} ${row.rule} ${link}`;
    const { now, idle, up, down } = this.before.get(key) ?? { now: 0, idle: 0, up: 0, down: 0 };
    // One that was not there had counted nothing: what it counts first is of this moment.
    if (this.before.size) node.dataset.known = "yes";
    this.cells.set(key, { node, disc, text, rank, now, idle, up, down });
    return node;
  }

  /** Takes in the counters of a moment. */
  show(live, states) {
    const seconds = this.last === null ? 0 : (live.time_ms - this.last) / 1000;
    this.last = live.time_ms;
    const counted = new Map(live.matrix.map((cell) => [`${cell.home} ${cell.rule} ${cell.link}`, cell]));
    const rows = new Map(), columns = new Map();
    let all = 0;
    for (const [key, cell] of this.cells) {
      const { up_bytes: up = 0, down_bytes: down = 0 } = counted.get(key) ?? {};
      const known = cell.node.dataset.known === "yes";
      const grown = Math.max(0, up + down - cell.up - cell.down);
      if (seconds > 0.05 && known) cell.now += (grown / seconds - cell.now) * SMOOTH;
      // What carries nothing is seen to, after a moment in which it may only have paused.
      cell.idle = grown > 0 ? 0 : cell.idle + 1;
      if (cell.idle > 2 || cell.now < 1) cell.now = 0;
      Object.assign(cell, { up, down });
      Object.assign(cell.node.dataset, { up, down, known: "yes" });
      const { home, rule, link } = cell.node.dataset;
      rows.set(`${home} ${rule}`, (rows.get(`${home} ${rule}`) ?? 0) + cell.now);
      columns.set(link, (columns.get(link) ?? 0) + cell.now);
      all += cell.now;
    }
    const most = Math.max(1, ...[...this.cells.values()].map((cell) => cell.now));
    for (const cell of this.cells.values()) {
      const radius = cell.now > 0 ? SMALLEST + (LARGEST - SMALLEST) * Math.sqrt(cell.now / most) : 0;
      cell.disc.style.transform = `translate(-50%, -50%) scale(${(radius / LARGEST).toFixed(3)})`;
      cell.node.classList.toggle("carries", cell.now > 0);
      say(cell.text, cell.now > 0 ? rate(cell.now) : "");
      const state = states.get(cell.node.dataset.link);
      cell.node.dataset.state = state ?? "";
    }
    // A row that no rule has takes room only while something flows there.
    for (const line of this.table.querySelectorAll("tr[data-extra]")) {
      line.classList.toggle("slim", !(rows.get(line.dataset.extra) > 0));
    }
    for (const head of this.table.querySelectorAll("th[data-column]")) {
      const state = states.get(head.dataset.column);
      head.dataset.state = state ?? "";
      say(head.querySelector(".mark"), state ? MARKS[state] : "");
      say(head.querySelector("small"), state ?? "");
    }
    for (const sum of this.table.querySelectorAll("[data-sum]")) say(sum, rate(rows.get(sum.dataset.sum) ?? 0));
    for (const sum of this.table.querySelectorAll("[data-total]")) {
      say(sum, rate(sum.dataset.total ? columns.get(sum.dataset.total) ?? 0 : all));
    }
    if (this.described?.isConnected) this.describe(this.described);
  }

  /** Shows flows that leave a link for another: their beads slide along the wire, column to column. */
  fly(moves) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const moved of moves.slice(0, 6)) {
      for (const cell of this.cells.values()) {
        const { home, rule, link } = cell.node.dataset;
        if (link !== moved.from || !(cell.now > 0)) continue;
        const to = this.cells.get(`${home} ${rule} ${moved.to}`);
        if (!to) continue;
        const [from, there] = [cell.node.getBoundingClientRect(), to.node.getBoundingClientRect()];
        const bead = el("span", { class: `disc bead ${to.node.classList[1]}`, "aria-hidden": "true" });
        cell.node.append(bead);
        const away = (there.left + there.right - from.left - from.right) / 2;
        const size = Number(/scale\(([\d.]+)\)/u.exec(cell.disc.style.transform)?.[1] ?? 0.3);
        const at = (share) => ({ transform: `translate(calc(-50% + ${away * share}px), -50%) scale(${size})`, opacity: share < 1 ? 1 : 0.3 });
        const slide = bead.animate([at(0), at(1)], { duration: 900, easing: "cubic-bezier(.5, 0, .2, 1)" });
        slide.onfinish = () => bead.remove();
      }
    }
  }

  describe(target) {
    const node = target.closest?.("td.cell");
    if (!node) return;
    this.described = node;
    const cell = this.cells.get(`${node.dataset.home} ${node.dataset.rule} ${node.dataset.link}`);
    if (!cell) return;
    const order = cell.rank === "else" ? "its way out when nothing else is usable" : cell.rank ? `number ${cell.rank} of the rule` : "not named by the rule";
    const { rule, link, state } = node.dataset;
    const word = state ? `, which is ${state}` : "";
    say(this.detail, `${rule} by ${link}${word}: ${rate(cell.now)} at this moment, ${bytes(cell.up)} up and ${bytes(cell.down)} down since the start; ${order}`);
  }

  walk(pressed) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[pressed.key];
    const node = pressed.target.closest?.("td.cell");
    if (!step || !node) return;
    pressed.preventDefault();
    const [x, y] = [Number(node.dataset.x) + step[0], Number(node.dataset.y) + step[1]];
    const next = this.table.querySelector(`td.cell[data-x="${x}"][data-y="${y}"]`);
    if (!next) return;
    node.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}
