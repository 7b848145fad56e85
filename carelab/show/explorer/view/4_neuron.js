// The neuron in focus: its curve, its activations, and the two sliders.

function drawCurve(focus, width, height, text, held) {
  const all = [...focus.low, ...focus.high, focus.unmodified, ...(focus.now_curve || [])];
  let [low, high] = [Math.min(...all), Math.max(...all)];
  const pad = Math.max(0.08 * (high - low), 1e-6 + 1e-3 * Math.abs(high));
  [low, high] = [low - pad, high + pad];
  const values = focus.values;
  const seen = [...values, ...(focus.now_values || [])];
  const { root, x, y, edge, inner } = plot(width, height,
    [Math.min(...seen), Math.max(...seen)], [low, high],
    { x: `value v that the neuron is held at (n = ${focus.samples})`, y: "mean score", text, title: "interventional expectation" });
  const back = [...values].reverse();
  root.append(
    svg("path", { class: "band", d: `${path(values, focus.high, x, y)}${
      path(back, [...focus.low].reverse(), x, y).replace("M", "L")}Z` }),
    svg("line", { class: "unmodified", x1: edge.left, x2: edge.left + inner.width,
      y1: y(focus.unmodified), y2: y(focus.unmodified) }),
    svg("path", { class: "curve", d: path(values, focus.curve, x, y) }));
  if (focus.now_curve) {
    root.append(svg("path", { class: "curve now", d: path(focus.now_values, focus.now_curve, x, y) }));
  }
  if (held !== null && values[values.length - 1] > values[0]) {
    root.append(svg("line", { class: "held", x1: x(held), x2: x(held), y1: edge.top,
      y2: edge.top + inner.height }));
  }
  return root;
}

function curveKey(focus) {
  const line = (name) => svg("svg", { width: 22, height: 12 }, svg("path", { class: name, d: "M1 6H21" }));
  const parts = [html("span", {}, line("curve"), "E[score | do(neuron = v)], 95 %"),
    html("span", {}, line("unmodified"), "no intervention")];
  if (focus.now_curve) parts.push(html("span", {}, line("curve now"), "after repair"));
  return parts;
}

function drawHistogram(focus, width, height, text) {
  const most = Math.max(...focus.behaving, ...focus.misbehaving, 1e-9);
  const edges = focus.edges;
  const { root, x, y, edge, inner } = plot(width, height, [edges[0], edges[edges.length - 1]],
    [0, most * 1.08], { x: "activation", y: "share", text, title: "activations" });
  const bottom = edge.top + inner.height;
  const steps = (shares) => {
    let d = `M${x(edges[0])} ${bottom}`;
    shares.forEach((share, at) => {
      d += `L${x(edges[at]).toFixed(1)} ${y(share).toFixed(1)}L${x(edges[at + 1]).toFixed(1)} ${y(share).toFixed(1)}`;
    });
    return `${d}L${x(edges[edges.length - 1])} ${bottom}Z`;
  };
  root.append(svg("path", { class: "behaving", d: steps(focus.behaving) }),
    svg("path", { class: "misbehaving", d: steps(focus.misbehaving) }));
  return root;
}

function histogramKey() {
  const patch = (name) => svg("svg", { width: 16, height: 12 },
    svg("rect", { class: name, x: 1, y: 1, width: 14, height: 10 }));
  return [html("span", {}, patch("behaving"), "inputs that behave"),
    html("span", {}, patch("misbehaving"), "inputs that misbehave")];
}

// The sliders act on every selected neuron: held each at the same share of its own range, or scaled
// all by the same factor.
function makeSliders(actions, scene) {
  const hold = html("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0,
    "aria-label": "hold the selected neurons at a share of their range", class: "hold" });
  const factor = html("input", { type: "range", min: scene.factor_low, max: scene.factor_high,
    step: 0.02, value: 1, "aria-label": "factor of the selected neurons", class: "factor" });
  const holdText = html("output", {});
  const factorText = html("output", {});
  const whom = html("div", { class: "whom" });
  const release = html("button", { type: "button", onclick: () => actions.release(),
    title: "take back what was done to the selected neurons" }, "Release");
  const guilty = html("button", { type: "button", onclick: () => actions.selectGuilty(),
    title: "select all guilty neurons" }, "Select guilty");
  hold.addEventListener("input", () => actions.hold(Number(hold.value)));
  factor.addEventListener("input", () => actions.scale(Number(factor.value)));
  const box = html("div", { class: "sliders" }, html("div", { class: "row" }, whom, guilty, release),
    html("label", {}, html("span", {}, "do(neuron = v)"), hold, holdText),
    html("label", {}, html("span", {}, "repair factor"), factor, factorText));

  function show(map, cells, change) {
    const [cell] = cells.slice(-1);
    const one = map.neurons[cell];
    whom.textContent = cells.length === 1 ? `${one[0]}[${one[1]}]` : `${cells.length} neurons selected`;
    const [low, high] = [map.low[cell], map.high[cell]];
    const held = change && change[2] !== null;
    const share = held && high > low ? (change[2] - low) / (high - low) : Number(hold.value);
    if (document.activeElement !== hold) hold.value = share;
    const times = change && !held ? change[3] : 1;
    if (document.activeElement !== factor) factor.value = times;
    const value = low + Number(hold.value) * (high - low);
    holdText.textContent = !held ? "not held"
      : cells.length === 1 ? `v = ${short(value)}` : `${Math.round(100 * hold.value)} % of range`;
    factorText.textContent = held ? "held" : `× ${short(times)}`;
    box.classList.toggle("is-held", Boolean(held));
    box.classList.toggle("is-scaled", Boolean(change && !held));
  }

  function disable() {
    for (const one of [hold, factor, release, guilty]) one.disabled = true;
  }

  return { box, show, disable };
}
