// The read-outs on held-out data, and the repair with its progress.

function drawReadings(readings) {
  return readings.map((one) => {
    const change = one.now - one.before;
    const good = one.higher ? change > 0 : change < 0;
    const word = Math.abs(change) < 5e-5 ? "" : good ? "better" : "worse";
    const bar = html("div", { class: "bar" },
      html("div", { class: `now ${one.higher ? "" : "harm"}`, style: `width:${100 * one.now}%` }),
      html("div", { class: "before", style: `left:${100 * one.before}%`,
        title: `original network: ${percent(one.before, 2)}` }));
    return html("div", { class: "reading", "data-name": one.name, "data-now": one.now,
      "data-before": one.before },
    html("div", { class: "name" }, one.label, " ", html("small", {}, `n = ${one.rows}`)),
    html("div", { class: "value" }, percent(one.now)),
    html("div", { class: `change ${word}` }, points(change),
      html("small", {}, word ? ` ${word}` : " points")),
    bar);
  });
}

function makeRepair(actions) {
  const start = html("button", { type: "button", class: "main repair", onclick: () => actions.repair() },
    "Repair");
  const stop = html("button", { type: "button", class: "stop", onclick: () => actions.stop(),
    disabled: true, title: "keeps the best found so far" }, "Stop");
  const keep = html("button", { type: "button", class: "keep", onclick: () => actions.keep(),
    title: "write the factors set by hand into the weights" }, "Keep");
  const undo = html("button", { type: "button", class: "undo", onclick: () => actions.undo(),
    title: "back to the network before the last repair" }, "Undo");
  const bar = html("progress", { max: 1, value: 0, "aria-label": "progress of the repair" });
  const text = html("div", { class: "status" });
  const chart = html("div", { class: "history" });
  const files = ["repair.safetensors", "network.safetensors", "explorer.html"];
  const names = { "repair.safetensors": "repair", "network.safetensors": "network",
    "explorer.html": "this page" };
  const saves = files.map((file) => html("button", { type: "button", "data-file": file,
    title: `save ${file}`, onclick: () => actions.save(file) }, names[file]));
  const box = html("div", { class: "repairs" }, html("div", { class: "row" }, start, stop, keep, undo),
    bar, text, chart, html("div", { class: "row saves" }, html("span", {}, "Save"), ...saves));

  function show(search, map, live, width) {
    const running = Boolean(search.running);
    start.textContent = `Repair ${map.guilty.length} guilty`;
    start.disabled = running;
    stop.disabled = !running;
    keep.disabled = running || !live.changes.length;
    undo.disabled = running || !live.undo;
    saves[0].disabled = !live.undo;
    bar.value = search.iterations ? search.iteration / search.iterations : 0;
    text.textContent = describe(search, live, running);
    const history = search.history || [];
    chart.replaceChildren(...(history.length > 1 ? [drawHistory(history, search.iterations, width, letters(box))] : []));
  }

  function describe(search, live, running) {
    if (running) {
      const so = search.kept === undefined ? ""
        : `: ${percent(search.violation_rate)} violate, ${percent(search.kept)} of answers kept`;
      return `iteration ${search.iteration} of ${search.iterations}, best so far${so}`;
    }
    if (!live.undo) return "The search sees training data only; the read-outs above do not.";
    const ended = search.stopped ? `stopped at iteration ${search.iteration}` : "done";
    return live.method === "by hand" ? "factors by hand, written into the weights"
      : `repaired, ${ended}: ${live.repaired.filter((one) => one[2] !== 1).length} neurons scaled`;
  }

  function disable() {
    for (const one of box.querySelectorAll("button")) one.disabled = true;
  }

  return { box, show, disable };
}

function drawHistory(history, iterations, width, text) {
  const [low, high] = [Math.min(...history), Math.max(...history)];
  const { root, x, y } = plot(width, 9 * text, [0, iterations], [low - 0.05 * (high - low), high],
    { x: "iteration", y: "cost", text, title: "best cost" });
  root.append(svg("path", { class: "curve", d: path(history.map((_, at) => at), history, x, y) }));
  return root;
}
