// The network as a map: layers as columns, neurons as cells, coloured by their effect.

function makeMap(actions) {
  const box = html("div", { class: "map" });
  const announce = html("div", { class: "unseen", "aria-live": "polite" });
  const tip = html("div", { class: "tip", hidden: true });
  let state = null;
  let cells = [];
  let at = -1;
  let selected = new Set();

  function draw(scene, map, live, width, height) {
    state = { scene, map, live };
    const layout = arrange(map.layers, width, height - 40);
    const scale = colours(map.effect);
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0,
      class: "cells", role: "application", onkeydown: onKey,
      "aria-label": "network map: arrow keys move, space selects, g next guilty neuron" });
    const guilty = new Map(map.guilty.map((cell, rank) => [cell, rank + 1]));
    cells = [];
    let cell = 0;
    map.layers.forEach(([layer, count], column) => {
      const left = layout.lefts[column];
      for (let place = 0; place < count; place += 1, cell += 1) {
        const x = left + Math.floor(place / layout.rows) * layout.size;
        const y = 4 + (place % layout.rows) * layout.size;
        cells.push({ x, y, layer: column, place });
        root.append(drawCell(cell, x, y, layout.size, scale, guilty.get(cell)));
      }
      const middle = left + (Math.ceil(count / layout.rows) * layout.size) / 2;
      const whole = scene.widths[layer] === count ? `${count}` : `${count} of ${scene.widths[layer]}`;
      root.append(
        svg("text", { x: inside(middle, layer, width), y: height - 20, class: "layer",
          "text-anchor": "middle" }, layer),
        svg("text", { x: inside(middle, whole, width), y: height - 5, "text-anchor": "middle" }, whole));
    });
    root.append(svg("g", { class: "marks" }));
    const had = box.contains(document.activeElement);
    box.replaceChildren(root, tip, announce);
    if (had) root.focus();
    state.size = layout.size;
    mark();
    return scale;
  }

  function drawCell(cell, x, y, size, scale, rank) {
    const inner = Math.max(2, size - Math.max(1, size * 0.12));
    const group = svg("g", { class: "cell", "data-cell": cell });
    group.append(svg("rect", { x, y, width: inner, height: inner, fill: scale.of(cell), rx: size > 9 ? 2 : 0,
      onpointerenter: () => showTip(cell), onpointerleave: hideTip,
      onclick: (event) => pick(cell, event.shiftKey || event.ctrlKey || event.metaKey) }));
    if (rank) {
      group.append(svg("rect", { x: x - 0.5, y: y - 0.5, width: inner + 1, height: inner + 1,
        class: "guilty", rx: size > 9 ? 2 : 0 }));
      if (size >= 17) {
        group.append(svg("text", { x: x + inner / 2, y: y + inner / 2 + 4, class: "rank",
          "text-anchor": "middle", style: `fill: ${scale.dark(cell) ? "#fff" : "#000"}` }, `${rank}`));
      }
    }
    return group;
  }

  // What changes with every move: focus, selection, changes by hand, repaired neurons.
  function mark() {
    const marks = box.querySelector(".marks");
    if (!marks) return;
    marks.replaceChildren();
    const { map, live, size } = state;
    const place = new Map(map.neurons.map(([layer, index], cell) => [`${layer} ${index}`, cell]));
    const inner = Math.max(2, size - Math.max(1, size * 0.12));
    for (const cell of selected) outline(marks, cells[cell], inner, "selected");
    if (at >= 0) outline(marks, cells[at], inner, "focus");
    for (const [layer, index] of live.repaired) {
      const one = cells[place.get(`${layer} ${index}`)];
      if (!one) continue;
      const [x, y, r] = [one.x + inner - 1, one.y + 1, Math.max(2, size * 0.22)];
      marks.append(svg("path", { class: "repaired",
        d: `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z` }));
    }
    for (const [layer, index] of live.changes) {
      const one = cells[place.get(`${layer} ${index}`)];
      if (!one) continue;
      marks.append(svg("circle", { class: "changed", cx: one.x + inner / 2, cy: one.y + inner / 2,
        r: Math.max(2, size * 0.24) }));
    }
  }

  function outline(marks, one, inner, name) {
    if (!one) return;
    marks.append(svg("rect", { x: one.x - 2.5, y: one.y - 2.5, width: inner + 5, height: inner + 5,
      class: `${name} halo` }),
    svg("rect", { x: one.x - 2.5, y: one.y - 2.5, width: inner + 5, height: inner + 5, class: name }));
  }

  function pick(cell, more) {
    at = cell;
    if (!more) selected = new Set([cell]);
    else if (selected.has(cell) && selected.size > 1) selected.delete(cell);
    else selected.add(cell);
    mark();
    announce.textContent = describe(cell).join(", ");
    actions.select(cell, [...selected]);
  }

  function onKey(event) {
    const { map } = state;
    const one = cells[Math.max(0, at)];
    let cell = Math.max(0, at);
    const start = map.layers.slice(0, one.layer).reduce((sum, [, count]) => sum + count, 0);
    const count = map.layers[one.layer][1];
    const sideways = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "ArrowDown") cell = start + Math.min(count - 1, one.place + 1);
    else if (event.key === "ArrowUp") cell = start + Math.max(0, one.place - 1);
    else if (event.key === "Home") cell = start;
    else if (event.key === "End") cell = start + count - 1;
    else if (sideways) {
      const other = one.layer + sideways;
      if (other < 0 || other >= map.layers.length) return;
      const first = map.layers.slice(0, other).reduce((sum, [, each]) => sum + each, 0);
      cell = first + Math.round((one.place / Math.max(1, count - 1)) * (map.layers[other][1] - 1));
    } else if (event.key === "g") {
      cell = map.guilty[(map.guilty.indexOf(at) + 1) % map.guilty.length];
    } else if (event.key === " ") {
      event.preventDefault();
      pick(cell, true);
      return;
    } else if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    pick(cell, event.shiftKey);
    showTip(cell);
  }

  function rankOf(cell) {
    const { map } = state;
    const sure = map.first[cell] === map.last[cell] ? "" : ` (${map.first[cell]} to ${map.last[cell]})`;
    return `rank ${map.rank[cell]} of ${map.neurons.length}${sure}`
      + (map.guilty.includes(cell) ? ", guilty" : "");
  }

  function summary(cell) {
    return `effect ${measured(state.map.effect[cell], state.map.reach[cell])}, ${rankOf(cell)}`;
  }

  // Everything that is known of a neuron, line by line, and what was done to it.
  function describe(cell) {
    const { map, live } = state;
    const [layer, index] = map.neurons[cell];
    const same = (one) => one[0] === layer && one[1] === index;
    const [by, repaired] = [live.changes.find(same), live.repaired.find(same)];
    const lines = [
      `${layer}[${index}]`,
      `effect ${measured(map.effect[cell], map.reach[cell])}${map.reach[cell] > 0 ? " (95 %)" : ""}`,
      rankOf(cell),
      `activation ${short(map.low[cell])} to ${short(map.high[cell])}`,
    ];
    if (repaired) lines.push(`repaired: × ${short(repaired[2])}`);
    if (by) lines.push(by[2] === null ? `scaled by hand: × ${short(by[3])}` : `held at ${short(by[2])}`);
    return lines;
  }

  function showTip(cell) {
    const [name, ...rest] = describe(cell);
    tip.replaceChildren(html("b", {}, name), ...rest.map((line) => html("div", {}, line)));
    tip.hidden = false;
    const one = cells[cell];
    const right = one.x + state.size + 8 + tip.offsetWidth > box.clientWidth;
    tip.style.left = `${right ? Math.max(0, one.x - tip.offsetWidth - 8) : one.x + state.size + 6}px`;
    tip.style.top = `${Math.max(0, Math.min(one.y - 8, box.clientHeight - tip.offsetHeight - 4))}px`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  function show(cell, cellsSelected) {
    at = cell;
    selected = new Set(cellsSelected);
    mark();
  }

  box.addEventListener("focusout", hideTip);
  return { box, draw, mark: (live) => { state.live = live; mark(); }, show, summary,
    selected: () => [...selected], focus: () => at };
}

// Where a text can stand in the middle without being cut off.
function inside(middle, text, width) {
  const half = 4.2 * text.length;
  return Math.max(half, Math.min(width - half, middle));
}

// Cells as large as the space allows; a wide layer takes several columns side by side.
function arrange(layers, width, height) {
  const gap = Math.max(14, Math.min(46, width / (layers.length * 4)));
  const room = width - gap * (layers.length - 1) - 10;
  let best = { size: 2, rows: Math.max(1, Math.floor(height / 2)) };
  for (let size = 36; size >= 3; size -= 0.5) {
    const rows = Math.max(1, Math.floor(height / size));
    const columns = layers.reduce((sum, [, count]) => sum + Math.ceil(count / rows), 0);
    if (columns * size <= room) {
      best = { size, rows };
      break;
    }
  }
  const widths = layers.map(([, count]) => Math.ceil(count / best.rows) * best.size);
  const used = widths.reduce((sum, one) => sum + one, 0);
  const spread = layers.length > 1 ? Math.min(90, (width - 10 - used) / (layers.length - 1)) : 0;
  let left = Math.max(4, (width - used - spread * (layers.length - 1)) / 2);
  const lefts = widths.map((one) => {
    const here = left;
    left += one + spread;
    return here;
  });
  return { ...best, lefts };
}

// Amounts in cividis, on a root scale so that small ones can be told apart; signed ones around 0.
function colours(effect) {
  const most = Math.max(...effect.map(Math.abs), 1e-12);
  const signed = Math.min(...effect) < -0.05 * most;
  const share = (value) => {
    const root = Math.sqrt(Math.abs(value) / most);
    return signed ? 0.5 + (Math.sign(value) * root) / 2 : value > 0 ? root : 0;
  };
  const stops = signed ? RED_BLUE : CIVIDIS;
  return { most, signed, stops, of: (cell) => mix(stops, share(effect[cell])),
    dark: (cell) => (signed ? Math.abs(share(effect[cell]) - 0.5) > 0.3 : share(effect[cell]) < 0.6) };
}

function legend(scale, measure) {
  const ends = scale.signed
    ? [[0, -scale.most], [0.5, 0], [1, scale.most]] : [[0, 0], [0.5, scale.most / 4], [1, scale.most]];
  const bar = svg("svg", { width: 164, height: 28 });
  for (let at = 0; at < 60; at += 1) {
    bar.append(svg("rect", { x: 15 + at * 2.2, y: 0, width: 2.4, height: 11, fill: mix(scale.stops, at / 59) }));
  }
  for (const [share, value] of ends) {
    bar.append(svg("text", { x: 15 + share * 132, y: 24, "text-anchor": "middle" }, short(value, 2)));
  }
  const key = (name, text) => {
    const mark = svg("svg", { width: 16, height: 16, class: "key" });
    if (name === "guilty") mark.append(svg("rect", { x: 2, y: 2, width: 12, height: 12, class: "guilty" }));
    if (name === "changed") mark.append(svg("circle", { cx: 8, cy: 8, r: 4.5, class: "changed" }));
    if (name === "repaired") mark.append(svg("path", { d: "M8 3L13 8L8 13L3 8Z", class: "repaired" }));
    return html("span", {}, mark, text);
  };
  return [html("span", { class: "measure", title: measure }, measure), bar, key("guilty", "guilty"),
    key("changed", "changed by hand"), key("repaired", "repaired")];
}
