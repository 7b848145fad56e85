// Elements, numbers, colours and axes: what every part of the view draws with.

const SVG = "http://www.w3.org/2000/svg";

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74",
  "#c3b369", "#e1cc55", "#fee838"];
const RED_BLUE = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7",
  "#f4a582", "#d6604d", "#b2182b", "#67001f"];
// Okabe and Ito's colours: grey for the quiet answer, blues for left, oranges for right.
const CLASSES = ["#e8e8e8", "#56b4e9", "#e69f00", "#0072b2", "#d55e00", "#009e73", "#cc79a7",
  "#f0e442", "#999999", "#332288"];
const GOOD = "#0072b2";
const BAD = "#d55e00";

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// JupyterLab's shortcuts would take the keys from whatever has the focus, unless it says so itself.
const FOCUSABLE = new Set(["button", "input", "select"]);

function fill(element, attributes, children) {
  if (FOCUSABLE.has(element.localName) || "tabindex" in attributes) {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// A number as short as it can be read: 3 digits, no exponent where it can be avoided.
function short(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(1).replace("e", "·10^").replace("+", "");
  const decimals = Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size))));
  const text = value.toFixed(decimals);
  const plain = (text.includes(".") ? text.replace(/\.?0+$/, "") : text).replace("-", "−");
  return size >= 1e4 ? plain.replace(/\B(?=(\d{3})+$)/g, ",") : plain;
}

// A number with the half width of its interval, both to the interval's second digit.
function measured(value, reach) {
  if (!(reach > 1e-6) || Math.abs(value) >= 1e4 || reach >= 1e4) {
    return reach > 0 ? `${short(value)} ± ${short(reach)}` : short(value);
  }
  const decimals = Math.max(0, Math.min(7, 1 - Math.floor(Math.log10(reach))));
  return `${value.toFixed(decimals).replace("-", "−")} ± ${reach.toFixed(decimals)}`;
}

function percent(fraction, digits = 1) {
  return `${(100 * fraction).toFixed(digits).replace("-", "−")} %`;
}

function points(difference) {
  const value = 100 * difference;
  if (Math.abs(value) < 0.005) return "±0";
  const digits = Math.abs(value) < 1 ? 2 : Math.abs(value) < 99.95 ? 1 : 0;
  return `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(digits)}`;
}

function mix(stops, share) {
  const at = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const part = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  const channel = (i) => Math.round(
    part(stops[low], i) + (at - low) * (part(stops[low + 1], i) - part(stops[low], i)));
  return `rgb(${channel(0)}, ${channel(1)}, ${channel(2)})`;
}

// Round numbers that divide an interval into some three to five parts.
function ticks(low, high, most = 4) {
  if (!(high > low)) return [low];
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; at += 1) {
    found.push(Math.abs(at * step) < 1e-12 ? 0 : at * step);
  }
  // One number alone is no scale.
  return found.length < 2 && most < 20 ? ticks(low, high, 2 * most) : found;
}

// The size of the letters in drawings, as the style sheet sets it: on a projector they are larger.
function letters(element) {
  return element.closest("[data-size='large']") ? 14 : 11;
}

// A plot of a given size with axes; returns its elements and the two scales.
function plot(width, height, across, up, labels, margin = {}) {
  const text = labels.text || 11;
  const edge = { left: 5.4 * text, right: 10, top: 8, bottom: 3.1 * text, ...margin };
  const inner = { width: width - edge.left - edge.right, height: height - edge.top - edge.bottom };
  const spanX = across[1] - across[0] || 1;
  const spanY = up[1] - up[0] || 1;
  const x = (value) => edge.left + ((value - across[0]) / spanX) * inner.width;
  const y = (value) => edge.top + (1 - (value - up[0]) / spanY) * inner.height;
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": labels.title || "" });
  const bottom = edge.top + inner.height;
  for (const value of ticks(across[0], across[1], Math.max(2, Math.floor(inner.width / (6.4 * text))))) {
    root.append(svg("line", { x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4, class: "tick" }),
      svg("text", { x: x(value), y: bottom + 4 + text, "text-anchor": "middle" }, short(value)));
  }
  for (const value of ticks(up[0], up[1], Math.max(2, Math.floor(inner.height / (3 * text))))) {
    root.append(svg("line", { x1: edge.left, x2: edge.left + inner.width, y1: y(value), y2: y(value),
      class: "guide" }),
    svg("text", { x: edge.left - 5, y: y(value) + 0.36 * text, "text-anchor": "end" }, short(value)));
  }
  root.append(svg("line", { x1: edge.left, x2: edge.left + inner.width, y1: bottom, y2: bottom,
    class: "axis" }));
  if (labels.x) {
    root.append(svg("text", { x: edge.left + inner.width / 2, y: height - 4, class: "label",
      "text-anchor": "middle" }, labels.x));
  }
  if (labels.y) {
    const turn = `translate(${text} ${edge.top + inner.height / 2}) rotate(-90)`;
    root.append(svg("text", { transform: turn, class: "label", "text-anchor": "middle" }, labels.y));
  }
  return { root, x, y, edge, inner };
}

function path(xs, ys, x, y) {
  return xs.map((value, at) => `${at ? "L" : "M"}${x(value).toFixed(1)} ${y(ys[at]).toFixed(1)}`)
    .join("");
}
