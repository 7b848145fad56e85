// The whole view: its parts side by side, what they ask of the kernel, what they are told.

const view = {
  render({ model, el }) {
    const root = html("div", { class: "carelab-explorer" });
    el.append(root);
    if (model.get("problem")) {
      root.append(html("div", { class: "problem", role: "alert" },
        html("b", {}, "This network cannot be explored."), html("div", {}, model.get("problem"))));
      return undefined;
    }
    return build(model, root);
  },
};

function build(model, root) {
  const get = (name) => model.get(name);
  const scene = get("scene");
  const status = html("span", { class: "latency" });
  const notice = html("div", { class: "notice", role: "alert", hidden: true });
  const requests = makeRequests(model, (done, milliseconds) => {
    root.dataset.waiting = done ? "no" : "yes";
    if (done) status.textContent = `updated in ${Math.round(milliseconds)} ms`;
    else setTimeout(() => { if (requests.waits()) status.textContent = "working …"; }, 400);
  });
  root.requests = requests;

  const changeOf = (cell) => {
    const [layer, index] = get("map").neurons[cell];
    return get("live").changes.find((one) => one[0] === layer && one[1] === index);
  };
  const change = (cells, make) => requests.ask({ kind: "change",
    changes: cells.map((cell) => [...get("map").neurons[cell], ...make(cell)]) });

  const map = makeMap({ select: (cell) => look(cell) });
  const actions = {
    hold: (share) => change(map.selected(), (cell) => {
      const { low, high } = get("map");
      return [low[cell] + share * (high[cell] - low[cell]), 1];
    }),
    scale: (times) => change(map.selected(), () => [null, times]),
    release: () => change(map.selected(), () => [null, 1]),
    selectGuilty: () => {
      map.show(get("map").guilty[0], get("map").guilty);
      look(get("map").guilty[0]);
    },
    repair: () => requests.ask({ kind: "repair" }),
    stop: () => requests.stop(),
    keep: () => requests.ask({ kind: "keep" }),
    undo: () => requests.ask({ kind: "undo" }),
    save: (file) => requests.ask({ kind: "export", file }, `export ${file}`),
    edit: (edit) => (model.frozen ? glance(edit) : requests.ask({ kind: "side", edit })),
  };

  // On a saved page every picture shown has its answers with it; rows and planes have not.
  function glance(edit) {
    if (get("side").kind !== "pictures") return;
    Object.assign(get("side"), edit);
    side.draw(get("side"), get("live").drawing);
  }

  function look(cell) {
    if (model.frozen) {
      const one = get("portraits")[cell];
      drawFocus(one);
    } else requests.ask({ kind: "select", neuron: get("map").neurons[cell] });
    showSliders();
  }

  // The parts.
  const methods = html("select", { "aria-label": "ranking", class: "method" },
    scene.methods.map((name) => html("option", { value: name }, name.replaceAll("_", " "))));
  const layers = html("select", { "aria-label": "layer", class: "layer" },
    html("option", { value: "" }, "all layers"),
    Object.keys(scene.widths).map((name) => html("option", { value: name }, name)));
  const count = html("input", { type: "number", min: 1, max: get("map").neurons.length, class: "count",
    "aria-label": "number of guilty neurons" });
  const rank = () => requests.ask({ kind: "rank", method: methods.value, layer: layers.value,
    count: Math.max(1, Number(count.value) || 1) });
  for (const one of [methods, layers, count]) one.addEventListener("change", rank);
  const clear = html("button", { type: "button", class: "clear", onclick: () => requests.ask({ kind: "clear" }) },
    "Clear changes");
  const keys = html("div", { class: "legend" });
  const neuronTitle = html("b", { class: "neuron-name" });
  const neuronText = html("div", { class: "neuron-text" });
  const curve = html("div", { class: "curve-box" });
  const histogram = html("div", { class: "histogram-box" });
  const sliders = makeSliders(actions, scene);
  const readings = html("div", { class: "readings", "aria-live": "polite" });
  const repairs = makeRepair(actions);
  const kind = get("side").kind;
  const side = kind ? SIDES[kind](actions) : null;
  root.append(...[
    html("header", {}, html("h3", {}, scene.title), html("span", {}, scene.property),
      html("span", { class: "space" }), clear, status),
    model.frozen ? html("div", { class: "frozen" },
      "A saved page: click neurons to look at them. Nothing is computed here; run the notebook to change something.") : null,
    notice,
    html("div", { class: "panels" },
      html("section", { class: "panel map-panel" },
        html("div", { class: "bar-row" }, html("label", {}, "ranking ", methods),
          html("label", {}, "in ", layers), html("label", {}, "guilty ", count)),
        scene.left_out ? html("div", { class: "left-out" }, scene.left_out) : null, map.box, keys),
      html("section", { class: "panel neuron-panel" }, html("div", { class: "row" }, neuronTitle, neuronText),
        curve, histogram, sliders.box),
      html("section", { class: "panel reading-panel" }, html("b", {}, "Held-out data"), readings, repairs.box),
      side ? html("section", { class: "panel side-panel" }, side.box) : null),
    html("footer", {}, html("span", { class: "note" }, scene.note),
      html("span", { class: "hints" },
        "map: arrow keys move · shift-click or space adds to the selection · g next guilty")),
  ].filter((part) => part !== null));

  // Drawing: each part only when what it shows has changed.
  const shown = {};
  function stale(name) {
    const value = get(name);
    if (shown[name] === value) return false;
    shown[name] = value;
    return true;
  }

  function drawMap() {
    const state = get("map");
    const box = map.box.getBoundingClientRect();
    methods.value = state.method;
    layers.value = state.layer;
    if (document.activeElement !== count) count.value = state.count;
    const scale = map.draw(scene, state, get("live"), Math.max(240, Math.floor(box.width)),
      Math.max(200, Math.floor(box.height)));
    keys.replaceChildren(...legend(scale, `${state.method.replaceAll("_", " ")}: ${state.measure}`));
  }

  // A slider's every step passes here: what stays the same is not drawn again.
  const drawn = {};
  function drawFocus(focus) {
    if (!focus || !focus.neuron) return;
    const { neurons } = get("map");
    const cell = neurons.findIndex((one) => one[0] === focus.neuron[0] && one[1] === focus.neuron[1]);
    if (map.focus() < 0 && cell >= 0) map.show(cell, [cell]);
    neuronTitle.textContent = `${focus.neuron[0]}[${focus.neuron[1]}]`;
    neuronText.textContent = cell < 0 ? "" : map.summary(cell);
    const change = cell < 0 ? undefined : changeOf(cell);
    const held = change ? change[2] : null;
    const width = Math.max(260, Math.floor(curve.clientWidth));
    const [text, tall] = [letters(root), root.dataset.size === "large"];
    if (drawn.focus !== focus || drawn.held !== held || drawn.width !== width) {
      curve.replaceChildren(drawCurve(focus, width, tall ? 236 : 128, text, held),
        html("div", { class: "keys" }, curveKey(focus)));
    }
    const known = drawn.focus === focus && drawn.width === width;
    Object.assign(drawn, { focus, held, width });
    if (known) return;
    histogram.replaceChildren(drawHistogram(focus, width, tall ? 150 : 84, text),
      html("div", { class: "keys" }, histogramKey()));
  }

  function showSliders() {
    const cells = map.selected();
    if (cells.length) sliders.show(get("map"), cells, changeOf(cells[cells.length - 1]));
  }

  function drawLive() {
    const live = get("live");
    readings.replaceChildren(...drawReadings(live.readings));
    clear.disabled = !live.changes.length || Boolean(model.frozen);
    map.mark(live);
    showSliders();
  }

  function update() {
    const mapChanged = stale("map");
    if (mapChanged) drawMap();
    const liveChanged = stale("live");
    if (stale("neuron") || mapChanged || liveChanged) drawFocus(get("neuron"));
    if (liveChanged) drawLive();
    const searchChanged = stale("search");
    if (searchChanged || liveChanged || mapChanged) {
      repairs.show(get("search"), get("map"), get("live"), Math.max(220, repairs.box.clientWidth));
    }
    const sideChanged = stale("side");
    if (side && (sideChanged || liveChanged)) side.draw(get("side"), get("live").drawing);
    notice.textContent = get("notice");
    notice.hidden = !get("notice");
    if (model.frozen) freeze();
    if (liveChanged) requests.answered(get("live").reply);
  }

  function freeze() {
    sliders.disable();
    repairs.disable();
    for (const one of root.querySelectorAll("select, input:not(.trigger), .side button")) one.disabled = true;
  }

  function resize() {
    const width = root.clientWidth;
    root.dataset.size = width >= 1500 ? "large" : width >= 1080 ? "medium" : "small";
    for (const name of Object.keys(shown)) delete shown[name];
    update();
  }

  function onFile(content, buffers) {
    if (!content || content.kind !== "file") return;
    const address = URL.createObjectURL(new Blob([buffers[0]]));
    const link = html("a", { href: address, download: content.name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  let asked = false;
  const later = () => {
    if (asked) return;
    asked = true;
    queueMicrotask(() => { asked = false; update(); });
  };
  model.on("change", later);
  model.on("msg:custom", onFile);
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 2) return;
    width = root.clientWidth;
    resize();
  });
  observer.observe(root);
  return () => {
    observer.disconnect();
    model.off("change", later);
    model.off("msg:custom", onFile);
  };
}

export default view;
