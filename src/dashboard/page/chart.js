// The rate chart: what came down above the axis and what went up below it, by link; under it the
// states of the links as ribbons, and the handovers with their reasons on the same time.

import { clock, el, event, fill, rate, say, span, weight } from "./words.js";

const RIBBON = 7, LANE = 20, AXIS = 18, LEFT = 4;
const STATES = { up: "good", degraded: "warn", recovering: "warn", drained: "warn", held: "warn", down: "bad", unknown: "unknown" };
/** Samples that are kept, as the daemon keeps them. */
const FINE = 900, COARSE = 1440, MOVES = 500;

export class Chart {
  constructor(canvas, detail, list) {
    Object.assign(this, { canvas, detail, list, minutes: 5, at: null });
    this.history = { lines: [], fine: [], coarse: [], moves: [], events: [] };
    canvas.addEventListener("pointermove", (moved) => this.point(moved.offsetX / canvas.clientWidth));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("keydown", (pressed) => this.walk(pressed));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.draw());
  }

  /** Takes over what the daemon has kept. */
  open(history) {
    this.history = history;
    this.tell();
    this.draw();
  }

  /** Takes in a moment. */
  add(live) {
    const { fine, coarse, moves } = this.history;
    this.history.lines = live.lines;
    fine.push(live.sample);
    if (fine.length > FINE) fine.shift();
    const minute = Math.floor(live.time_ms / 60000) * 60000;
    if (!coarse.length || coarse[coarse.length - 1].time_ms < minute) coarse.push({ ...live.sample, time_ms: minute });
    if (coarse.length > COARSE) coarse.shift();
    moves.push(...live.moves);
    moves.splice(0, Math.max(0, moves.length - MOVES));
    if (live.moves.length) this.tell();
    this.draw();
  }

  /** Takes in an event. */
  note(it) {
    this.history.events.push(it);
    if (this.history.events.length > MOVES) this.history.events.shift();
    this.tell();
  }

  /** How far back, in minutes. */
  back(minutes) {
    this.minutes = minutes;
    this.draw();
  }

  /** Handovers and events, the latest first. */
  marks() {
    const moved = this.history.moves.map((it) => ({
      time_ms: it.time_ms, weight: "move",
      text: `${it.flows} ${it.flows === 1 ? "flow" : "flows"} ${it.from} → ${it.to}: ${it.reason}`,
    }));
    const events = this.history.events.map((it) => ({ time_ms: it.time_ms, weight: weight(it), text: event(it) }));
    return [...moved, ...events].sort((one, other) => other.time_ms - one.time_ms);
  }

  tell() {
    const lines = this.marks().slice(0, 60).map((it) => el("li", { class: it.weight }, el("time", {}, clock(it.time_ms)), " ", it.text));
    fill(this.list, ...(lines.length ? lines : [el("li", { class: "quiet" }, "Nothing has happened since the daemon started.")]));
  }

  samples() {
    const end = this.history.fine.at(-1)?.time_ms ?? Date.now();
    const start = end - this.minutes * 60000;
    const from = this.minutes > 15 ? this.history.coarse : this.history.fine;
    return { start, end, samples: from.filter((it) => it.time_ms >= start - 60000) };
  }

  draw() {
    const { canvas, history } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    pen.font = `11px ${style.fontFamily}`;
    const { start, end, samples } = this.samples();
    const lines = history.lines.length;
    const linked = samples.some((it) => it.state.some(Boolean));
    const below = (linked ? lines * (RIBBON + 2) : 0) + LANE + AXIS;
    const chart = height - below;
    const x = (time) => LEFT + ((time - start) / (end - start || 1)) * (width - 2 * LEFT);
    const sum = (values) => values.reduce((all, value) => all + value, 0);
    const downMost = Math.max(1, ...samples.map((it) => sum(it.down)));
    const upMost = Math.max(1, ...samples.map((it) => sum(it.up)));
    const share = Math.min(0.8, Math.max(0.2, downMost / (downMost + upMost)));
    const zero = 12 + (chart - 24) * share;
    const grow = Math.min((zero - 14) / downMost, (chart - 10 - zero) / upMost);

    pen.strokeStyle = color("rule");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(0, Math.round(zero) + 0.5);
    pen.lineTo(width, Math.round(zero) + 0.5);
    pen.stroke();

    for (const [which, sign] of [["down", -1], ["up", 1]]) {
      const base = samples.map(() => 0);
      for (let line = 0; line < lines; line += 1) {
        if (!samples.length) break;
        const top = samples.map((it, place) => base[place] + (it[which][line] ?? 0));
        pen.beginPath();
        samples.forEach((it, place) => pen.lineTo(x(it.time_ms), zero + sign * base[place] * grow));
        for (let place = samples.length - 1; place >= 0; place -= 1) pen.lineTo(x(samples[place].time_ms), zero + sign * top[place] * grow);
        pen.closePath();
        pen.globalAlpha = which === "down" ? 0.75 : 0.45;
        pen.fillStyle = color(`line-${line % 8}`);
        pen.fill();
        pen.globalAlpha = 1;
        top.forEach((value, place) => { base[place] = value; });
      }
    }

    pen.fillStyle = color("quiet");
    pen.textAlign = "left";
    pen.fillText(`↓ to the mobile, at most ${rate(downMost)}`, LEFT, 11);
    pen.fillText(`↑ from the mobile, at most ${rate(upMost)}`, LEFT, chart - 2);

    let top = chart + 4;
    if (linked) {
      for (let line = 0; line < lines; line += 1) {
        for (let place = 0; place < samples.length;) {
          const word = samples[place].state[line];
          let next = place + 1;
          while (next < samples.length && samples[next].state[line] === word) next += 1;
          const [from, to] = [x(samples[place].time_ms), next < samples.length ? x(samples[next].time_ms) : width - LEFT];
          pen.fillStyle = color(STATES[word] ?? "unknown");
          pen.fillRect(from, top, Math.max(1, to - from), RIBBON);
          place = next;
        }
        pen.fillStyle = color(`line-${line % 8}`);
        pen.fillRect(0, top, 3, RIBBON);
        top += RIBBON + 2;
      }
    }
    for (const mark of this.marks()) {
      if (mark.time_ms < start || mark.time_ms > end || mark.weight === "plain") continue;
      const at = x(mark.time_ms);
      pen.fillStyle = color({ move: "accent", bad: "bad", good: "good" }[mark.weight]);
      if (mark.weight === "move") {
        pen.globalAlpha = 0.5;
        pen.fillRect(at - 0.5, 12, 1, top - 12);
        pen.globalAlpha = 1;
      }
      pen.beginPath();
      pen.moveTo(at, top + 2);
      pen.lineTo(at + 5, top + 11);
      pen.lineTo(at - 5, top + 11);
      pen.fill();
    }
    top += LANE;
    pen.fillStyle = color("quiet");
    const ticks = Math.max(2, Math.floor(width / 110));
    for (let tick = 0; tick <= ticks; tick += 1) {
      const time = start + ((end - start) * tick) / ticks;
      pen.textAlign = tick === 0 ? "left" : tick === ticks ? "right" : "center";
      pen.fillText(clock(time, this.minutes <= 15), x(time), top + 8);
    }
    if (this.at !== null) {
      pen.fillStyle = color("text");
      pen.globalAlpha = 0.6;
      pen.fillRect(this.at * width, 0, 1, top - 6);
      pen.globalAlpha = 1;
    }
  }

  /** Says what there was at a place of the chart, 0 left to 1 right. */
  point(share) {
    this.at = share;
    this.draw();
    if (share === null) return;
    const { start, end, samples } = this.samples();
    const time = start + share * (end - start);
    const near = samples.reduce((best, it) => (best && Math.abs(best.time_ms - time) < Math.abs(it.time_ms - time) ? best : it), null);
    if (!near) return say(this.detail, "Nothing is known of that time.");
    const lines = this.history.lines.map((name, line) => {
      const state = near.state[line] ? ` ${near.state[line]}` : "";
      return `${name}${state} ↓ ${rate(near.down[line] ?? 0)} ↑ ${rate(near.up[line] ?? 0)}`;
    });
    const reach = Math.max(2000, (end - start) / 60);
    const marks = this.marks().filter((it) => it.weight !== "plain" && Math.abs(it.time_ms - time) < reach).slice(0, 2);
    return say(this.detail, [`${clock(near.time_ms)}, ${span((end - near.time_ms) / 1000)} ago`, ...lines, ...marks.map((it) => it.text)].join("  ·  "));
  }

  walk(pressed) {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[pressed.key];
    if (!step) return;
    pressed.preventDefault();
    this.point(Math.min(1, Math.max(0, (this.at ?? 1) + step)));
  }
}
