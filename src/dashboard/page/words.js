// Elements, numbers and times as people read them. What is not known is said in words.

/** An element with attributes and children; text is only ever text. */
export function el(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Replaces what a node has. */
export function fill(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** Sets a text only if it differs, so that nothing is read out twice. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function scaled(value, step, units) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Octets a second, in bits as links are sold. */
export function rate(octets) {
  return scaled(octets * 8, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
}

export function bytes(octets) {
  return scaled(octets, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]);
}

/** A length of time, its two largest units. */
export function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let rest = Math.max(0, Math.round(seconds));
  const words = [];
  for (const [name, length] of units) {
    const count = Math.floor(rest / length);
    if (count > 0 || (name === "s" && words.length === 0)) words.push(`${count} ${name}`);
    else if (words.length > 0) break;
    rest -= count * length;
    if (words.length === 2) break;
  }
  return words.join(" ");
}

/** The time of day. */
export function clock(ms, withSeconds = true) {
  const two = (number) => String(number).padStart(2, "0");
  const time = new Date(ms);
  const short = `${two(time.getHours())}:${two(time.getMinutes())}`;
  return withSeconds ? `${short}:${two(time.getSeconds())}` : short;
}

/** The mark of a state: a shape beside the colour, for those who do not see the colour. */
export const MARKS = {
  up: "●", degraded: "◐", recovering: "◔", drained: "▽", held: "■", down: "✕", unknown: "?",
};

/** The protocol of a flow. */
export function protocol(number) {
  const known = { 1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp" };
  return known[number] ?? `protocol ${number}`;
}

/** An address with its port. */
export function endpoint(address, port) {
  if (port === null || port === undefined) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The way of a flow in words. */
export function way(path, none) {
  if (!path) return none;
  const link = path.link ?? (path.bid === null ? "no BID" : `BID ${path.bid}`);
  if (path.breakout) return `${link} outside`;
  return path.straight ? `${link} straight` : link;
}

/** So many of something. */
function count(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** What happened, in one line. */
export function event(it) {
  const over = it.link ?? (it.bid ? `BID ${it.bid}` : "a binding");
  switch (it.event) {
    case "link-up": return `${it.link} is up: ${it.care_of}`;
    case "link-down": return `${it.link} is down: ${it.reason}`;
    case "link-state": return it.from === it.to ? `${it.link} is ${it.to} as before: ${it.reason}` : `${it.link} was ${it.from} and is ${it.to}: ${it.reason}`;
    case "link-administered": return `${it.link} is ${it.admin === "open" ? "released" : it.admin} by hand`;
    case "radio": return `radio of ${it.link}: ${it.technology ?? "technology not known"}, ${it.registration ?? "registration not known"}`;
    case "path-mtu": return `the path of ${it.link} carries ${it.octets} octets, its interface ${it.interface_octets}`;
    case "quota": return `${it.link} has carried ${bytes(it.octets)} of ${bytes(it.limit)}: quota ${it.level}`;
    case "cap-reached": return `rule ${it.rule} has used up its cap`;
    case "bound": return `${over} registered at home ${it.home}: ${it.care_of}`;
    case "unbound": return `${over} no longer registered at home ${it.home}: ${it.reason}`;
    case "at-home": return `home ${it.home} is reached by ${it.link ?? "no link"}: at home`;
    case "left-home": return `home ${it.home} is left`;
    case "flow-bindings": return `the agent of home ${it.home} holds ${it.held} flow bindings, refused ${it.refused}`;
    case "route-optimized": return `${over} goes straight to ${it.correspondent}`;
    case "route-tunnelled": return `${over} takes the tunnel to ${it.correspondent}: ${it.reason}`;
    case "correspondent-changed": return `${it.home_address} has ${count(it.care_of.length, "binding")} here`;
    case "mobile-changed": return `mobile ${it.home_address} has ${count(it.care_of.length, "binding")}${it.care_of.length ? `: ${it.care_of.join(", ")}` : ""}`;
    case "published": return `decisions of home ${it.home} changed: generation ${it.generation}`;
    case "steered": return `override ${it.id}: ${it.filter} by ${it.via} for ${span(it.seconds)}${it.reason ? `, ${it.reason}` : ""}`;
    case "steer-ended": return `override ${it.id} ended${it.expired ? ": its time is over" : ""}`;
    case "policy-applied": return `policy ${it.name} is in force`;
    case "policy-on-trial": return `policy ${it.name} is on trial for ${span(it.seconds)}`;
    case "policy-confirmed": return `policy ${it.name} stays`;
    case "policy-taken-back": return `policy ${it.name} was taken back, ${it.restored} is in force`;
    case "policy-refused": return `a policy was refused: ${it.message}`;
    case "notice": return it.text;
    case "lost": return `${it.count} events were not shown in time`;
    default: return it.event;
  }
}

/** How much an event matters: `bad`, `good` or `plain`. */
export function weight(it) {
  if (["link-down", "unbound", "policy-refused", "policy-taken-back", "cap-reached"].includes(it.event)) return "bad";
  if (it.event === "link-state") return it.to === "up" ? "good" : "bad";
  if (it.event === "notice") return it.severity === "warning" ? "bad" : "plain";
  if (["link-up", "bound", "at-home", "policy-applied", "policy-confirmed"].includes(it.event)) return "good";
  return "plain";
}
