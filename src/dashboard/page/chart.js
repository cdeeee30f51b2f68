// The rate chart: what came down above the axis and what went up below it, by link; under it the
// states of the links as ribbons, and the handovers with their reasons on the same time.

import { clock, el, event, fill, rate, say, span, weight } from "./words.js";

const RIBBON = 8, GAP = 4, LANE = 36, AXIS = 16, RIGHT = 4;
/** Room above and below the rates for what they are. */
const CAPTION = 18;
const STATES = { up: "good", degraded: "warn", recovering: "warn", drained: "warn", held: "warn", down: "bad", unknown: "unknown" };
/** Samples that are kept, as the daemon keeps them. */
const FINE = 900, COARSE = 1440, MOVES = 500;

export class Chart {
  constructor(canvas, detail, list) {
    Object.assign(this, { canvas, detail, list, minutes: 5, at: null });
    this.history = { lines: [], fine: [], coarse: [], moves: [], events: [] };
    canvas.addEventListener("pointermove", (moved) => this.point(this.share(moved.offsetX)));
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
      time_ms: it.time_ms, weight: "move", to: it.to, reason: it.reason,
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
    const linked = samples.some((it) => it.state.some(Boolean));
    const ribbons = linked ? history.lines.length * (RIBBON + GAP) : 0;
    this.left = Math.max(...history.lines.map((name) => pen.measureText(name).width), 46) + 10;
    const x = (time) => this.left + ((time - start) / (end - start || 1)) * (width - this.left - RIGHT);
    const plot = { pen, color, start, end, samples, x, width, bottom: height - ribbons - LANE - AXIS };
    this.drawRates(plot);
    let top = plot.bottom + 4;
    if (linked) {
      this.drawStates(plot, top);
      top += ribbons;
    }
    this.drawMarks(plot, top);
    this.drawTimes(plot, top + LANE);
    if (this.at !== null) {
      pen.fillStyle = color("text");
      pen.globalAlpha = 0.6;
      pen.fillRect(x(start + this.at * (end - start)), 0, 1, top);
      pen.globalAlpha = 1;
    }
  }

  /** What came down above the axis and what went up below it, with a scale for both. */
  drawRates({ pen, color, samples, x, width, bottom }) {
    const lines = this.history.lines.length;
    const sum = (values) => values.reduce((all, value) => all + value, 0);
    const downMost = Math.max(1, ...samples.map((it) => sum(it.down)));
    const upMost = Math.max(1, ...samples.map((it) => sum(it.up)));
    const share = Math.min(0.8, Math.max(0.2, downMost / (downMost + upMost)));
    const zero = Math.round(CAPTION + (bottom - 2 * CAPTION) * share);
    const grow = Math.min((zero - CAPTION) / downMost, (bottom - CAPTION - zero) / upMost);

    pen.fillStyle = color("quiet");
    pen.textAlign = "right";
    pen.fillText("0", this.left - 6, zero + 4);
    const step = round(Math.max(downMost, upMost));
    for (const sign of [-1, 1]) {
      const lowest = sign < 0 ? zero - CAPTION : bottom - CAPTION - zero;
      for (let value = step; value * grow <= lowest + 1; value += step) {
        const y = Math.round(zero + sign * value * grow) + 0.5;
        pen.fillStyle = color("rule");
        pen.fillRect(this.left, y, width - this.left - RIGHT, 1);
        pen.fillStyle = color("quiet");
        pen.fillText(rate(value).replace(/\.0+ /u, " ").replace(/bit\/s$/u, ""), this.left - 6, y + 4);
      }
    }
    // A sample before the beginning is drawn too, so that the edge is no step.
    pen.save();
    pen.beginPath();
    pen.rect(this.left, 0, width - this.left - RIGHT, bottom);
    pen.clip();
    for (const [which, sign] of [["down", -1], ["up", 1]]) {
      const base = samples.map(() => 0);
      for (let line = 0; line < lines && samples.length; line += 1) {
        const top = samples.map((it, place) => base[place] + (it[which][line] ?? 0));
        pen.beginPath();
        samples.forEach((it, place) => pen.lineTo(x(it.time_ms), zero + sign * base[place] * grow));
        for (let place = samples.length - 1; place >= 0; place -= 1) pen.lineTo(x(samples[place].time_ms), zero + sign * top[place] * grow);
        pen.closePath();
        pen.globalAlpha = which === "down" ? 0.85 : 0.5;
        pen.fillStyle = color(`line-${line % 8}`);
        pen.fill();
        pen.globalAlpha = 1;
        top.forEach((value, place) => { base[place] = value; });
      }
    }
    pen.restore();
    pen.fillStyle = color("text");
    pen.globalAlpha = 0.5;
    pen.fillRect(this.left, zero, width - this.left - RIGHT, 1);
    pen.globalAlpha = 1;
    pen.fillStyle = color("quiet");
    pen.textAlign = "left";
    pen.fillText(`bit/s  ↓ to the mobile, at most ${rate(downMost)}`, this.left, 11);
    pen.fillText(`↑ from the mobile, at most ${rate(upMost)}`, this.left, bottom - 3);
  }

  /** A ribbon for each link: how it was. */
  drawStates({ pen, color, samples, x, width }, top) {
    this.history.lines.forEach((name, line) => {
      const y = top + line * (RIBBON + GAP);
      for (let place = 0; place < samples.length;) {
        const word = samples[place].state[line];
        let next = place + 1;
        while (next < samples.length && samples[next].state[line] === word) next += 1;
        const from = Math.max(this.left, x(samples[place].time_ms));
        const to = next < samples.length ? x(samples[next].time_ms) : width - RIGHT;
        pen.fillStyle = color(STATES[word] ?? "unknown");
        if (to > from) pen.fillRect(from, y, Math.max(1, to - from), RIBBON);
        place = next;
      }
      pen.fillStyle = color(`line-${line % 8}`);
      pen.textAlign = "right";
      pen.fillText(name, this.left - 6, y + RIBBON);
    });
  }

  /** Handovers and what else mattered, each with its reason where there is room for the word. */
  drawMarks({ pen, color, start, end, x, width }, top) {
    const shown = this.marks().filter((it) => it.time_ms >= start && it.time_ms <= end && it.weight !== "plain").reverse();
    // Where the last word of each row ends.
    const ends = [0, 0];
    for (const mark of shown) {
      const at = x(mark.time_ms);
      const line = this.history.lines.indexOf(mark.to);
      pen.fillStyle = color(mark.weight === "move" ? (line < 0 ? "accent" : `line-${line % 8}`) : mark.weight);
      if (mark.weight === "move") {
        pen.globalAlpha = 0.55;
        pen.fillRect(at - 0.5, CAPTION, 1, top - CAPTION);
        pen.globalAlpha = 1;
      }
      pen.beginPath();
      pen.moveTo(at, top + 1);
      pen.lineTo(at + 4, top + 8);
      pen.lineTo(at - 4, top + 8);
      pen.fill();
      if (mark.weight !== "move") continue;
      const wide = pen.measureText(mark.reason).width;
      const from = Math.min(at - 4, width - RIGHT - wide);
      const row = ends.findIndex((last) => from > last + 6);
      if (row < 0) continue;
      ends[row] = from + wide;
      pen.textAlign = "left";
      pen.fillText(mark.reason, from, top + 19 + row * 12);
    }
  }

  drawTimes({ pen, color, start, end, x, width }, top) {
    pen.fillStyle = color("quiet");
    const ticks = Math.max(2, Math.floor((width - this.left) / 110));
    for (let tick = 0; tick <= ticks; tick += 1) {
      const time = start + ((end - start) * tick) / ticks;
      pen.textAlign = tick === 0 ? "left" : tick === ticks ? "right" : "center";
      pen.fillText(clock(time, this.minutes <= 15), x(time), top + 11);
    }
  }

  /** The share of the time axis, 0 to 1, at a place of the canvas. */
  share(place) {
    const left = this.left ?? 0;
    return Math.min(1, Math.max(0, (place - left) / (this.canvas.clientWidth - left - RIGHT)));
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

/** A step of a scale that ends at `most`, of one, two or five, in bits. */
function round(most) {
  const rough = (most * 8) / 3.5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((it) => it * power >= rough) * power;
  return step / 8;
}
