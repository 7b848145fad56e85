// The input side: a row with its counterfactuals, pictures with a trigger, or a slice of the inputs.

const SIDES = { row: makeRow, pictures: makePictures, slice: makeSlice };

function makeRow(actions) {
  const form = html("div", { class: "form" });
  const table = html("div", { class: "variants" });
  const title = html("b", {});
  const what = html("b", {});
  const button = (text, edit, label) => html("button", { type: "button", "aria-label": label,
    onclick: () => actions.edit(edit) }, text);
  const reset = button("As it was", { reset: true }, "take back edits of the row");
  const box = html("div", { class: "side row-side" },
    html("div", { class: "left" }, html("div", { class: "row" }, title,
      button("‹", { step: -1 }, "row before"), button("›", { step: 1 }, "next row"), reset), form),
    html("div", { class: "right" }, what, table));
  let controls = [];

  function build(side) {
    controls = side.features.map((feature, at) => {
      const send = (value) => actions.edit({ feature: at, value });
      const control = feature.options
        ? html("select", { onchange: (event) => send(Number(event.target.value)) },
          feature.options.map((option, value) => html("option", { value }, option)))
        : html("input", { type: "number", min: feature.low, max: feature.high, step: "any",
          onchange: (event) => send(Number(event.target.value)) });
      form.append(html("label", { class: feature.sensitive ? "sensitive" : "" },
        html("span", {}, feature.name), control));
      return control;
    });
  }

  function draw(side, drawing) {
    if (!controls.length) build(side);
    title.textContent = `Test row ${side.number} of ${side.of}${side.edited ? ", edited" : ""}`
      + `${side.label ? ` (label ${side.label})` : ""}`;
    reset.disabled = !side.edited;
    side.features.forEach((feature, at) => { controls[at].value = feature.value; });
    const two = side.classes.length === 2;
    what.textContent = two ? `Chance of "${side.classes[1]}" with another value of the sensitive feature`
      : "Answer with another value of the sensitive feature";
    table.replaceChildren(html("div", { class: "head" }, html("span", {}, ""),
      html("span", {}, "original network"), html("span", {}, "network now")),
    ...["this row", ...side.variants].map((name, at) => html("div", { class: at ? "variant" : "variant own" },
      html("span", {}, name), answer(side, drawing.before, at), answer(side, drawing.after, at))));
  }

  function answer(side, given, at) {
    const two = side.classes.length === 2;
    const label = given.labels[at];
    const chance = two ? given.chances[at][1] : given.chances[at][label];
    const text = two ? percent(chance, 0) : `${side.classes[label]} ${percent(chance, 0)}`;
    return html("span", { class: `answer ${given.flips[at] ? "flips" : ""}`, title: side.classes[label] },
      html("span", { class: "bar" }, html("span", { class: "now", style: `width:${100 * chance}%` }),
        two ? html("span", { class: "half" }) : null),
      html("span", { class: "text" }, given.flips[at] ? `${text} flips` : text));
  }

  return { box, draw };
}

function makePictures(actions) {
  const big = html("canvas", { class: "picture", role: "img" });
  const toggle = html("input", { type: "checkbox", class: "trigger" });
  const chances = html("div", { class: "chances" });
  const strip = html("div", { class: "strip" });
  const title = html("b", {});
  toggle.addEventListener("change", () => actions.edit({ on: toggle.checked }));
  const box = html("div", { class: "side picture-side" },
    html("div", { class: "left" }, big, html("label", {}, toggle, " trigger")),
    html("div", { class: "middle" }, title, chances),
    html("div", { class: "right" }, html("b", {}, "Answers, original → now"), strip));
  let pixels = null;

  function draw(side, drawing) {
    const count = side.labels.length;
    const at = side.at + (side.on ? count : 0);
    toggle.checked = side.on;
    paint(big, side, side.pixels[at]);
    big.setAttribute("aria-label", `image of ${side.classes[side.labels[side.at]]}`);
    title.textContent = `True class ${side.classes[side.labels[side.at]]}, ${side.on ? "with" : "without"} trigger`;
    const [before, after] = [drawing.before.chances[at], drawing.after.chances[at]];
    const order = before.map((_, one) => one);
    const top = order.length <= 10 ? order
      : order.sort((a, b) => after[b] + before[b] - after[a] - before[a]).slice(0, 10);
    chances.replaceChildren(html("div", { class: "head" }, html("span", {}, ""), html("span", {}, "original"),
      html("span", {}, "now")), ...top.map((one) => html("div", { class: "chance" },
      html("span", {}, side.classes[one]), bar(before[one]), bar(after[one]))));
    if (!pixels || side.pixels.some((one, place) => one !== pixels[place])) build(side);
    [...strip.querySelectorAll("figure")].forEach((figure, place) => {
      const [was, is] = [drawing.before.labels[place], drawing.after.labels[place]];
      const right = side.labels[place % count];
      const caption = figure.querySelector("figcaption");
      caption.replaceChildren(html("span", { class: was === right ? "" : "wrong" }, side.classes[was]), " → ",
        html("span", { class: is === right ? "" : "wrong" }, side.classes[is]));
      figure.classList.toggle("is-at", place === at);
    });
  }

  function build(side) {
    pixels = side.pixels;
    const count = side.labels.length;
    strip.style.gridTemplateColumns = `auto repeat(${count}, minmax(0, 1fr))`;
    strip.replaceChildren(...[0, 1].flatMap((row) => [
      html("span", { class: "kind" }, row ? "trigger" : "clean"),
      ...side.labels.map((label, place) => {
        const canvas = html("canvas", {});
        paint(canvas, side, side.pixels[place + row * count]);
        const choose = () => actions.edit({ at: place, on: Boolean(row) });
        return html("figure", { tabindex: 0, role: "button", onclick: choose,
          "aria-label": `${side.classes[label]}, ${row ? "with trigger" : "clean"}: show it large`,
          onkeydown: (event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            choose();
          } }, canvas, html("figcaption", {}));
      })]));
  }

  function bar(chance) {
    return html("span", { class: "answer" }, html("span", { class: "bar" },
      html("span", { class: "now", style: `width:${100 * chance}%` })),
    html("span", { class: "text" }, percent(chance, chance > 0.0995 ? 0 : 1)));
  }

  return { box, draw };
}

// Bytes (height, width, channels) in base64 on a canvas of that many pixels.
function paint(canvas, side, text) {
  const bytes = atob(text);
  canvas.width = side.width;
  canvas.height = side.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side.width, side.height);
  for (let pixel = 0; pixel < side.width * side.height; pixel += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      const from = pixel * side.channels + (side.channels === 3 ? channel : 0);
      image.data[4 * pixel + channel] = bytes.charCodeAt(from);
    }
    image.data[4 * pixel + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function makeSlice(actions) {
  const maps = html("div", { class: "slices" });
  const controls = html("div", { class: "form" });
  const key = html("div", { class: "classes" });
  const box = html("div", { class: "side slice-side" }, maps,
    html("div", { class: "right" }, html("b", {}, "Answer of the network on a plane through its inputs"),
      key, controls));
  let held = null;

  function draw(side, drawing) {
    const signature = JSON.stringify([side.axes, side.features]);
    if (held !== signature) build(side, signature);
    for (const input of controls.querySelectorAll("input")) {
      const feature = Number(input.dataset.feature);
      if (document.activeElement !== input) input.value = side.point[feature];
      input.nextElementSibling.textContent = short(side.point[feature]);
    }
    const most = letters(box) > 11 ? 700 : 560;
    const width = Math.max(280, Math.min(most, (maps.clientWidth - 24) / 2 || 360));
    maps.replaceChildren(plane(side, drawing.before, "original network", width),
      plane(side, drawing.after, "network now", width));
    const keys = side.classes.map((name, at) => html("span", {},
      html("i", { style: `background:${CLASSES[at % CLASSES.length]}` }), name));
    key.replaceChildren(...keys, html("span", {}, html("i", { class: "unsafe" }), "unsafe"),
      html("span", {}, html("i", { class: "box" }), "box of the property"));
  }

  function build(side, signature) {
    held = signature;
    const choose = (which) => html("select", { "aria-label": which ? "feature upwards" : "feature across",
      onchange: (event) => {
        const axes = [...side.axes];
        const other = Number(event.target.value);
        // Two equal axes span no plane: they change places instead.
        if (axes[1 - which] === other) axes[1 - which] = axes[which];
        axes[which] = other;
        actions.edit({ axes });
      } }, side.features.map((name, at) => html("option", { value: at, selected: at === side.axes[which] }, name)));
    const sliders = side.features.map((name, at) => (side.axes.includes(at) ? null
      : html("label", {}, html("span", {}, name),
        html("input", { type: "range", min: side.low[at], max: side.high[at], value: side.point[at],
          step: (side.high[at] - side.low[at]) / 200 || 1, "data-feature": at,
          oninput: (event) => actions.edit({ feature: at, value: Number(event.target.value) }) }),
        html("output", {}))));
    controls.replaceChildren(html("label", {}, html("span", {}, "across"), choose(0)),
      html("label", {}, html("span", {}, "upwards"), choose(1)), ...sliders.filter((one) => one));
  }

  function plane(side, given, title, width) {
    const [across, up] = side.axes;
    const height = Math.round(Math.min(330, width * 0.58));
    const drawn = plot(width, height, [side.low[across], side.high[across]], [side.low[up], side.high[up]],
      { x: side.features[across], y: side.features[up], title, text: letters(box) },
      { left: 6 * letters(box) });
    const { root, x, y, edge, inner } = drawn;
    const cell = { width: inner.width / side.columns, height: inner.height / side.rows };
    const left = (column) => edge.left + column * cell.width;
    const top = (row) => edge.top + (side.rows - row) * cell.height;
    root.append(svg("image", { x: edge.left, y: edge.top, width: inner.width, height: inner.height,
      preserveAspectRatio: "none", class: "pixels", href: raster(side, given.answers) }));
    for (const one of side.boxes) {
      root.append(svg("rect", { class: one.meets ? "region" : "region away", x: x(one.low[0]), y: y(one.high[1]),
        width: Math.max(1, x(one.high[0]) - x(one.low[0])), height: Math.max(1, y(one.low[1]) - y(one.high[1])) }));
    }
    const edges = borders(side, given.unsafe, left, top);
    root.append(svg("path", { class: "unsafe halo", d: edges }), svg("path", { class: "unsafe", d: edges }));
    return html("figure", { "data-unsafe": given.unsafe_share }, html("figcaption", {}, html("b", {}, title),
      ` unsafe in ${percent(given.unsafe_share, given.unsafe_share < 0.01 ? 2 : 1)} of the box shown`), root);
  }

  function raster(side, answers) {
    const canvas = document.createElement("canvas");
    canvas.width = side.columns;
    canvas.height = side.rows;
    const context = canvas.getContext("2d");
    for (let at = 0; at < answers.length; at += 1) {
      context.fillStyle = CLASSES[Number(answers[at]) % CLASSES.length];
      context.fillRect(at % side.columns, side.rows - 1 - Math.floor(at / side.columns), 1, 1);
    }
    return canvas.toDataURL();
  }

  return { box, draw };
}

// The border of the cells marked "1", as one path.
function borders(side, marks, left, top) {
  const on = (column, row) => column >= 0 && row >= 0 && column < side.columns && row < side.rows
    && marks[row * side.columns + column] === "1";
  let d = "";
  for (let row = 0; row < side.rows; row += 1) {
    for (let column = 0; column < side.columns; column += 1) {
      if (!on(column, row)) continue;
      if (!on(column - 1, row)) d += `M${left(column)} ${top(row)}V${top(row + 1)}`;
      if (!on(column + 1, row)) d += `M${left(column + 1)} ${top(row)}V${top(row + 1)}`;
      if (!on(column, row - 1)) d += `M${left(column)} ${top(row)}H${left(column + 1)}`;
      if (!on(column, row + 1)) d += `M${left(column)} ${top(row + 1)}H${left(column + 1)}`;
    }
  }
  return d || "M0 0";
}
